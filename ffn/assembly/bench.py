"""What a process of the assembly has open, and the tasks that it does there.

A task is a function of the job's files and of a few arguments, a group of sub-volumes or a block, and of nothing that
other tasks did meanwhile. So tasks may be done in any order, in any process, on any machine that sees the files.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import fastremap
import numpy as np
from numpy.typing import NDArray

from ffn.assembly.evidence import groups, part_path, save_part
from ffn.assembly.fill import Filling
from ffn.assembly.labelled import IdTables, OpenLabels, Segmented, StoredIds
from ffn.assembly.merge import merged_labels
from ffn.assembly.pieces import AXES, Ids, Pieces, find_pieces, outer_planes, planes_shape, planes_start, touching
from ffn.assembly.reconcile import equivalences_of
from ffn.config import Assembly
from ffn.geometry import ZYX, Box
from ffn.volumes import PackedChunk, Volume, VoxelSize, chunk_dividing, chunk_within, open_image, open_volume, pack

PIECES = "pieces"


@dataclass(frozen=True)
class Job:
    """An assembly, as files and numbers.

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
    def parts(self) -> Path:
        """Folder of the groups' equivalences, until they are one table."""
        return self.folder / "pairs"

    @property
    def evidence(self) -> Path:
        """HDF5 with all equivalences and the global ids."""
        return self.folder / "equivalences.h5"

    @property
    def pieces(self) -> Path:
        """HDF5 with names of pieces and the planes of blocks; there while objects are split or dropped."""
        return self.folder / "pieces.h5"

    @property
    def splits(self) -> bool:
        return self.rule.disconnected == "split"

    @property
    def looks_twice(self) -> bool:
        """Whether the ids of a block depend on voxels outside of it."""
        return self.splits or self.rule.min_size > 0

    @property
    def shape(self) -> ZYX:
        return self.box.shape

    @property
    def chunk(self) -> ZYX:
        """Chunks of the result."""
        return chunk_within(chunk_dividing(self.rule.block), self.shape)

    def planes_chunk(self, axis: int) -> ZYX:
        """Chunks of `planes_<axis>`: one plane of one block."""
        z, y, x = (1 if i == axis else n for i, n in enumerate(self.rule.block))
        return chunk_within((z, y, x), planes_shape(axis, self.shape, self.rule.block))


@dataclass(frozen=True)
class LabelBlock:
    """A block of the result: its chunks, and the ids in it (uint64, ascending)."""

    chunks: list[PackedChunk]
    ids: Ids


@dataclass(frozen=True)
class PieceBlock:
    """A block of pieces: chunks of their names, of the planes along each axis, and the pieces."""

    chunks: list[PackedChunk]
    planes: list[list[PackedChunk]]
    pieces: Pieces


class Bench:
    """What one process has open."""

    def __init__(self, job: Job, ids: IdTables | None = None) -> None:
        self.job = job
        self.labels = OpenLabels(job.tiles, StoredIds(job.evidence, job.tiles.largest_ids) if ids is None else ids)

    @cached_property
    def filling(self) -> Filling | None:
        job = self.job
        if job.rule.fill_nm == 0 or job.voxel_size is None:
            return None
        return Filling(job.rule.fill_nm, open_image(job.image), job.voxel_size)

    @cached_property
    def names(self) -> Volume:
        return open_volume(f"{self.job.pieces}:{PIECES}")

    @cached_property
    def planes(self) -> tuple[Volume, Volume, Volume]:
        z, y, x = (open_volume(f"{self.job.pieces}:planes_{axis}") for axis in AXES)
        return z, y, x

    def assembled(self, part: Box) -> Ids:
        """Global labels, uint64 zyx, of the block `part`, counted from the corner of the result."""
        place = part.shifted(self.job.box.start)
        if self.filling is None:
            return merged_labels(self.labels, place)
        wide = self.filling.surroundings(place, self.job.box)
        return self.filling.filled(merged_labels(self.labels, wide), wide)[place.relative_to(wide.start).slices]


def count_group(bench: Bench, group: int) -> int:
    """Write the equivalences of a group of sub-volumes with later ones; returns how many there are."""
    job, rule = bench.job, bench.job.rule
    numbers = groups(len(job.tiles.boxes))[group]
    found = equivalences_of(bench.labels, numbers, rule.min_overlap_voxels, rule.min_overlap_fraction, rule.block)
    save_part(part_path(job.parts, group), found)
    return len(found)


def label_block(bench: Bench, part: Box) -> LabelBlock:
    """A block of the result, where nothing is split or dropped."""
    labels = bench.assembled(part)
    ids = fastremap.unique(labels)
    return LabelBlock(_packed(bench.job, labels, part), ids[ids != 0])


def piece_block(bench: Bench, part: Box) -> PieceBlock:
    """The pieces of a block: what hangs together where objects are split, else all voxels of a label."""
    job, labels = bench.job, bench.assembled(part)
    if not job.splits:
        ids, voxels = fastremap.unique(labels, return_counts=True)
        ids, voxels = ids[ids != 0], voxels[ids != 0].astype(np.int64)
        return PieceBlock(list(pack(labels, part.start, job.chunk, job.shape)), [], Pieces(ids, ids, voxels))
    names, pieces = find_pieces(labels, part.start, job.shape, job.rule.connectivity)
    block = job.rule.block
    planes = [
        list(
            pack(
                outer_planes(names, axis),
                planes_start(axis, part.start, block),
                job.planes_chunk(axis),
                planes_shape(axis, job.shape, block),
            )
        )
        for axis in range(3)
    ]
    return PieceBlock(list(pack(names, part.start, job.chunk, job.shape)), planes, pieces)


def touching_block(bench: Bench, part: Box) -> tuple[Ids, Ids]:
    """Names of pieces of a block and of those before it that they touch."""
    return touching(bench.planes, part, bench.job.rule.block, bench.job.rule.connectivity)


def renamed_block(bench: Bench, task: tuple[Box, Ids, Ids]) -> list[PackedChunk]:
    """A block of the result from its pieces.

    Args:
        bench: Of this process.
        task: The block, the names of its pieces, and the id that each gets.
    """
    part, names, ids = task
    table = dict(zip(names.tolist(), ids.tolist(), strict=True)) | {0: 0}
    return _packed(bench.job, fastremap.remap(bench.names.read(part), table, in_place=True), part)


def _packed(job: Job, labels: NDArray[np.unsignedinteger], part: Box) -> list[PackedChunk]:
    return list(pack(labels.astype(job.rule.dtype, copy=False), part.start, job.chunk, job.shape))
