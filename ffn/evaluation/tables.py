"""Which voxels are compared, and the step that counts them: a table for each block of the volume."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property

from ffn.blockwise import BlockTask, Columns, Grid, Result, suitable_workers
from ffn.errors import VolumeError
from ffn.evaluation.contingency import DEFAULT_BLOCK, Contingency, contingency_of_volumes, require_same_shape
from ffn.geometry import ZYX, Box
from ffn.volumes import Volume, open_labels
from ffn.volumes.store import shard_of

_VOXELS_OF_A_WORKER = 1 << 24
"""Fewer are counted before another process has started."""


@dataclass(frozen=True)
class Pair:
    """Two label volumes to compare.

    Attributes:
        truth: URI of the ground truth, 0 = unknown.
        segmentation: URI of labels, 0 = background; of the shape of the truth, or of the box.
        box: Voxels (zyx) of the truth to compare; also taken from the segmentation if that has the truth's shape.
    """

    truth: str
    segmentation: str
    box: Box | None = None

    @contextmanager
    def opened(self) -> Iterator[tuple[Volume, Volume]]:
        """Truth and segmentation (uint64) of one shape, open for reading.

        Raises VolumeError for volumes that do not fit, GeometryError for a box outside the truth.
        """
        with open_labels(self.truth) as truth, open_labels(self.segmentation) as segmentation:
            truth, segmentation = _paired(truth, segmentation, self.box)
            require_same_shape(truth, segmentation)
            yield truth, segmentation

    def grid(self) -> Grid:
        """The blocks of the voxels to compare."""
        with self.opened() as (truth, _):
            return blocks_of(truth.shape)

    def as_dict(self) -> dict[str, str | None]:
        """What `scores.json` says of its inputs."""
        box = None if self.box is None else str(self.box)
        return {"truth": self.truth, "segmentation": self.segmentation, "box": box}


class Tables(BlockTask):
    """The table of each block, kept as columns.

    Args:
        pair: What is compared.
        grid: Its blocks.
    """

    name = "tables"
    unit_bytes = 1 << 29
    remedy = "Give the job more memory, or fewer cores: each process takes about 0.5 GB."

    def __init__(self, pair: Pair, grid: Grid) -> None:
        self.pair, self.grid = pair, grid

    @property
    def workers(self) -> int:
        """Processes that suit the volume: one for each core, for a small volume fewer."""
        return suitable_workers(0, -(-self.grid.box.voxels // _VOXELS_OF_A_WORKER))

    def run(self, unit: int) -> Result:
        _, truth, segmentation = self._opened
        return Result(contingency_of_volumes(truth, segmentation, box=self.write_box(unit)).columns)

    @cached_property
    def _opened(self) -> tuple[ExitStack, Volume, Volume]:
        held = ExitStack()
        return held, *held.enter_context(self.pair.opened())

    def close(self) -> None:
        if "_opened" in vars(self):
            self._opened[0].close()
            del self._opened


def blocks_of(shape: ZYX) -> Grid:
    """The blocks of a volume of this shape. Each is read in parts, so that its size does not decide about memory."""
    return Grid(Box.of_shape(shape), shard_of(shape, DEFAULT_BLOCK))


def table_of(columns: Columns) -> Contingency:
    """The table that a unit of `Tables` left."""
    return Contingency(**columns)


def _paired(truth: Volume, segmentation: Volume, box: Box | None) -> tuple[Volume, Volume]:
    if box is None:
        return truth, segmentation
    if segmentation.shape == truth.shape:
        return truth.view(box), segmentation.view(box)
    if segmentation.shape == box.shape:
        return truth.view(box), segmentation
    raise VolumeError(
        f"Segmentation {segmentation.uri} has shape {segmentation.shape}; with the box {box} it must have the box's "
        f"shape {box.shape}, or that of the ground truth {truth.uri}, {truth.shape} (z,y,x)."
    )
