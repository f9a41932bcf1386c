"""What the steps of the stage `agglomerate` have in common: settings, places, and the tables between them."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from math import ceil, prod
from pathlib import Path
from typing import Any

import numpy as np

from ffn.blockwise import BlockTask, Entry, Grid, Reduce, Result, Step
from ffn.blockwise.stage import STEPS
from ffn.blockwise.tables import StoredTable
from ffn.config import Config
from ffn.geometry import ZYX, Box, blocks
from ffn.runs import SEGMENTATION_STORE
from ffn.stages import Stage, settings_hash
from ffn.volumes import Store, StoreLayout, Volume, VoxelSize, open_labels

SIZES: Mapping[str, Any] = {"ids": np.uint64, "voxels": np.int64}
_PAIR: Mapping[str, Any] = {**dict.fromkeys(("a", "b"), np.uint64), "depth": np.int64}
CONTACTS = {**_PAIR, "places": np.int64, "total": (np.int64, (3,))}
PLANNED = {**_PAIR, "zyx": (np.int64, (3,)), "voxels_a": np.int64, "voxels_b": np.int64}
_PROCESS, _MEETING, _FILLING, _SHARD = 300_000_000, 130, 60, 10
"""Bytes: of Python and its libraries, of a voxel where segments meet, of one that is filled around, of one written."""
MOVED: Mapping[str, Any] = {"segment": np.uint64, "object": np.uint64}


@dataclass(frozen=True)
class Spec:
    """What is agglomerated, and where to.

    Attributes:
        config: Of the run, with the network of its first pass.
        stage: The folder.
        image, labels: URIs of the image, of which the region is a part, and of the segments in the region.
        box: The region in the image.
        voxel_size: Nanometres, zyx.
        pairs_made_from: Hash of what decides which pairs there are.
    """

    config: Config
    stage: Stage
    image: str
    labels: str
    box: Box
    voxel_size: VoxelSize
    pairs_made_from: str

    @property
    def shape(self) -> ZYX:
        return self.box.shape

    @property
    def store(self) -> Store:
        """The result."""
        return Store(self.stage.folder / SEGMENTATION_STORE, layout_of(self.config, self.box, self.voxel_size))

    @property
    def grid(self) -> Grid:
        """What a step does at once: the shards of the result."""
        return Grid(Box.of_shape(self.shape), self.store.layout.shard)

    def parts(self, box: Box) -> Iterator[Box]:
        """The blocks of `assembly.block` in one box of the grid."""
        return blocks(box, self.config.assembly.block)

    def over_blocks(self, name: str) -> Step:
        """A step over the grid."""
        return self.step(name, len(self.grid))

    def reduce(self, name: str) -> Step:
        """A step of a single unit."""
        return self.step(name, 1)

    def step(self, name: str, units: int) -> Step:
        """Where the ledger of a step is."""
        return Step(self.stage.folder / STEPS / name, settings_hash(self.stage.settings), units)

    @property
    def worker_bytes(self) -> int:
        """What a process holds at most: Python with its libraries; a block with its rim, or a shard and a block with
        what is looked at to fill it."""
        settings, rule = self.config.agglomeration, self.config.assembly
        meeting = _around(rule.block, settings.max_distance_nm, self.voxel_size) * _MEETING
        filling = _around(rule.block, 2 * rule.fill_nm, self.voxel_size) * _FILLING
        return _PROCESS + max(meeting, filling + prod(self.store.layout.shard) * _SHARD)

    @property
    def plan(self) -> Mapping[str, Any]:
        """How many `pairs` there are, how many are `tried`, in how many `groups`, and how many a `group` has.

        Raises StageError where the step `rank` is not done.
        """
        return self.reduce("rank").facts()

    @property
    def segments(self) -> StoredTable:
        """Segments that are large enough, ascending, and their voxels (`SIZES`)."""
        return self._table("segments", SIZES)

    @property
    def contacts(self) -> StoredTable:
        """All pairs (`CONTACTS`), sorted by (a, b): what `decision_points.merged` makes."""
        return self._table("pairs", CONTACTS)

    @property
    def planned(self) -> StoredTable:
        """The pairs to be tried (`PLANNED`), group by group."""
        return self._table("rank", PLANNED)

    @property
    def moved(self) -> StoredTable:
        """Segments that get the id of another one, ascending (`MOVED`)."""
        return self._table("join", MOVED)

    def _table(self, step: str, types: Mapping[str, Any]) -> StoredTable:
        return StoredTable(self.reduce(step).folder / "table", list(types))


def layout_of(config: Config, box: Box, voxel_size: VoxelSize) -> StoreLayout:
    """How the result of a region is stored."""
    rule = config.assembly
    return StoreLayout.of_blocks(box.shape, rule.dtype, rule.block, voxel_size, box.start, rule.shard)


def _around(block: ZYX, distance_nm: float, voxel_size: VoxelSize) -> int:
    """Voxels of a block and of what is within a distance."""
    return prod(n + 2 * ceil(distance_nm / edge) for n, edge in zip(block, voxel_size, strict=True))


class OverBlocks(BlockTask):
    """A step over the blocks of the segmentation."""

    remedy = "Use fewer assembly.workers or a smaller assembly.block."

    def __init__(self, spec: Spec) -> None:
        self.spec, self.grid, self.unit_bytes = spec, spec.grid, spec.worker_bytes

    def __getstate__(self) -> dict[str, Any]:
        return {"spec": self.spec, "grid": self.grid, "unit_bytes": self.unit_bytes}

    @cached_property
    def files(self) -> ExitStack:
        """Open files; they are closed with the task."""
        return ExitStack()

    @cached_property
    def labels(self) -> Volume:
        return self.files.enter_context(open_labels(self.spec.labels))

    def close(self) -> None:
        self.files.close()
        # What is opened anew when it is needed again.
        self.__dict__ = self.__getstate__()


class Joined(Reduce):
    """A step that joins what the units before it left, in bounded memory. Its files are checked by their sizes."""

    remedy = "It needs up to 4 GB."

    def __init__(self, spec: Spec) -> None:
        self.spec = spec

    @property
    def folder(self) -> Path:
        """For what does not fit into memory."""
        return self.spec.reduce(self.name).folder

    def written(self) -> list[Path]:
        """What it writes for users."""
        return []

    def table(self) -> StoredTable | None:
        """What it writes for later steps."""
        return None

    def noted(self, **facts: Any) -> Result:
        """What the step leaves, with the bytes of its files."""
        return Result(facts={**facts, "bytes": self._bytes()})

    def is_intact(self, entry: Entry) -> bool:
        return bool(entry.facts.get("bytes") == self._bytes())

    def _bytes(self) -> list[int]:
        table = self.table()
        sizes = [path.stat().st_size if path.exists() else 0 for path in self.written()]
        return [*sizes, 0 if table is None else table.bytes]
