"""An assembly as files and numbers: what its tasks share, in whatever process they run."""

from dataclasses import dataclass
from math import prod
from pathlib import Path

from ffn.assembly.labelled import HELD_OPEN, Segmented
from ffn.blockwise import Grid
from ffn.config import Assembly
from ffn.files import remove
from ffn.geometry import ZYX, Box
from ffn.runs import SEGMENTATION_STORE
from ffn.volumes import Store, StoreLayout, VoxelSize
from ffn.volumes.hdf5 import CHUNKS_HELD

_PROCESS, _BLOCK, _SHARD, _SHARD_PIECES = 420_000_000, 60, 10, 28
"""Bytes: of Python and its libraries, a voxel of a block, and a voxel of a shard, where pieces are looked for too."""


def looks_twice(rule: Assembly) -> bool:
    """Whether the ids of a block depend on voxels outside of it."""
    return rule.disconnected == "split" or rule.min_size > 0


CONSENSUS_BYTES = 65
"""Memory for each voxel of a sub-volume while its passes are joined."""


def worker_bytes(rule: Assembly, shard: ZYX) -> int:
    """What a process holds at most: its shard, a block, open sub-volumes, and Python with its libraries."""
    of_shard = prod(shard) * (_SHARD_PIECES if looks_twice(rule) else _SHARD)
    return _PROCESS + HELD_OPEN * CHUNKS_HELD + of_shard + prod(rule.block) * _BLOCK


@dataclass(frozen=True)
class AssemblySpec:
    """What is assembled, and where.

    Attributes:
        tiles: The sub-volumes; their order decides ties.
        box: Voxels of the common volume to write; outside all sub-volumes the result is 0.
        rule: The section `assembly`.
        folder: Of the stage.
        image: URI of grey values in whose voxels the boxes are given; needed to fill.
        voxel_size: Nanometres zyx, or None; needed to fill.
    """

    tiles: Segmented
    box: Box
    rule: Assembly
    folder: Path
    image: str
    voxel_size: VoxelSize | None

    @property
    def splits(self) -> bool:
        return self.rule.disconnected == "split"

    @property
    def looks_twice(self) -> bool:
        """Whether the ids of a block depend on voxels outside of it."""
        return looks_twice(self.rule)

    @property
    def shape(self) -> ZYX:
        return self.box.shape

    @property
    def grid(self) -> Grid:
        """The units of the result: its shards, counted from its corner."""
        return Grid(Box.of_shape(self.shape), self.segmentation.layout.shard)

    @property
    def worker_bytes(self) -> int:
        """What a process holds at most."""
        return worker_bytes(self.rule, self.segmentation.layout.shard)

    @property
    def evidence(self) -> Path:
        """HDF5 with all equivalences and the global ids."""
        return self.folder / "equivalences.h5"

    @property
    def segmentation(self) -> Store:
        """The result, global ids."""
        return self._store(SEGMENTATION_STORE, self.rule.dtype)

    @property
    def pieces(self) -> Store:
        """For each voxel the number of its piece in its unit, from 1; there while objects are split or dropped."""
        return self._store("pieces.zarr", "uint32")

    @property
    def objects(self) -> Path:
        """The id of each piece, one unit after the other; there while objects are split or dropped."""
        return self.folder / "objects.npy"

    def clean(self) -> None:
        """Remove what only an unfinished assembly needs."""
        self.segmentation.remove_leftovers()
        remove(self.pieces.path)
        remove(self.objects)

    def _store(self, name: str, dtype: str) -> Store:
        layout = StoreLayout.of_blocks(
            self.shape, dtype, self.rule.block, self.voxel_size, self.box.start, self.rule.shard
        )
        return Store(self.folder / name, layout)
