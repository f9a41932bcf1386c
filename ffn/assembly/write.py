"""Writing the global label volume: worker processes make whole compressed chunks, this one puts them into the file.

merged blocks                                      -> segmentation.h5            where nothing is split or dropped
merged blocks -> pieces.h5 -> touching, sizes -> ids -> segmentation.h5          else
"""

from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np

from ffn.assembly.bench import (
    PIECES,
    Bench,
    Job,
    label_block,
    piece_block,
    renamed_block,
    touching_block,
)
from ffn.assembly.pieces import AXES, Ids, Pieces, planes_shape
from ffn.assembly.unionfind import numbered, smallest_members
from ffn.errors import DataError
from ffn.files import remove
from ffn.geometry import Box, blocks
from ffn.inference.results import LABELS
from ffn.progress import Progress
from ffn.volumes import create_hdf5, create_hdf5_file
from ffn.workers import Workers


def write_segmentation(path: Path, job: Job, workers: Workers[Bench], objects: int) -> int:
    """Write `path:labels` with the shape of the job's box; the file appears when it is complete.

    Args:
        path: HDF5 file to make.
        job: What is assembled.
        workers: With benches of the job.
        objects: Largest global id that the equivalences left.

    Returns:
        How many objects have voxels in it.

    Raises DataError where the ids do not fit into the configured type.
    """
    if job.looks_twice:
        found = _write_pieces(job, workers)
        ids = object_ids(found, _touching(job, workers), job.rule.min_size)
        _write_renamed(path, job, workers, found, ids)
        remove(job.pieces)
        return int(ids.max(initial=0))
    return _write_merged(path, job, workers, objects)


def require_room(objects: int, dtype: str) -> None:
    """Raise DataError if ids up to `objects` do not fit into the type."""
    if objects > (largest := int(np.iinfo(dtype).max)):
        raise DataError(
            f"There are {objects} objects, but assembly.dtype {dtype} holds ids up to {largest}: use uint64."
        )


def object_ids(blocks_of: list[Pieces], pairs: Iterable[tuple[Ids, Ids]], min_size: int) -> Ids:
    """The id of each piece, uint64, one block after the other; 0 = of an object that is dropped.

    Objects are pieces of one name, and of one label that touch. They are numbered from 1 without gaps in the order of
    their smallest names.

    Args:
        blocks_of: The pieces of each block.
        pairs: Names of pieces that touch, of one label or not.
        min_size: Smaller objects are dropped.
    """
    everything = np.concatenate([np.empty(0, np.uint64), *(pieces.names for pieces in blocks_of)])
    names, first, places = np.unique(everything, return_index=True, return_inverse=True)
    labels = np.concatenate([np.empty(0, np.uint64), *(pieces.labels for pieces in blocks_of)])[first]
    voxels = np.concatenate([np.empty(0, np.int64), *(pieces.voxels for pieces in blocks_of)])

    def joined() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for a, b in pairs:
            i, j = np.searchsorted(names, a), np.searchsorted(names, b)
            same = labels[i] == labels[j]
            yield i[same], j[same]

    members = smallest_members(len(names), joined())
    sizes = np.bincount(members[places], weights=voxels, minlength=len(names))
    return numbered(members, sizes >= min_size)[places]


def _write_merged(path: Path, job: Job, workers: Workers[Bench], objects: int) -> int:
    require_room(objects, job.rule.dtype)
    present = np.zeros(objects + 1, np.bool_)
    with (
        create_hdf5(
            path, LABELS, job.shape, job.rule.dtype, job.voxel_size, chunk=job.chunk, offset=job.box.start
        ) as volume,
        Progress("assemble", job.box.voxels, "voxels") as progress,
    ):
        for part, block in zip(_parts(job), workers.results(label_block, _parts(job)), strict=True):
            for chunk in block.chunks:
                volume.write_packed(chunk)
            present[block.ids] = True
            progress.advance(part.voxels)
    return int(np.count_nonzero(present))


def _write_pieces(job: Job, workers: Workers[Bench]) -> list[Pieces]:
    found = []
    with create_hdf5_file(job.pieces) as file, Progress("assemble", job.box.voxels, "voxels") as progress:
        names = file.add(PIECES, job.shape, np.uint64, None, chunk=job.chunk)
        planes = [
            file.add(
                f"planes_{AXES[axis]}",
                planes_shape(axis, job.shape, job.rule.block),
                np.uint64,
                None,
                chunk=job.planes_chunk(axis),
            )
            for axis in range(3 if job.splits else 0)
        ]
        for part, block in zip(_parts(job), workers.results(piece_block, _parts(job)), strict=True):
            for volume, chunks in zip([names, *planes], [block.chunks, *block.planes], strict=True):
                for chunk in chunks:
                    volume.write_packed(chunk)
            found.append(block.pieces)
            progress.advance(part.voxels)
    return found


def _touching(job: Job, workers: Workers[Bench]) -> Iterator[tuple[Ids, Ids]]:
    if not job.splits:
        return
    with Progress("match", job.box.voxels, "voxels") as progress:
        for part, pairs in zip(_parts(job), workers.results(touching_block, _parts(job)), strict=True):
            yield pairs
            progress.advance(part.voxels)


def _write_renamed(path: Path, job: Job, workers: Workers[Bench], found: list[Pieces], ids: Ids) -> None:
    require_room(int(ids.max(initial=0)), job.rule.dtype)
    ends = pairwise([0, *np.cumsum([len(pieces.names) for pieces in found]).tolist()])
    tasks = ((part, pieces.names, ids[a:b]) for part, pieces, (a, b) in zip(_parts(job), found, ends, strict=True))
    with (
        create_hdf5(
            path, LABELS, job.shape, job.rule.dtype, job.voxel_size, chunk=job.chunk, offset=job.box.start
        ) as volume,
        Progress("number", job.box.voxels, "voxels") as progress,
    ):
        for part, chunks in zip(_parts(job), workers.results(renamed_block, tasks), strict=True):
            for chunk in chunks:
                volume.write_packed(chunk)
            progress.advance(part.voxels)


def _parts(job: Job) -> Iterator[Box]:
    return blocks(Box.of_shape(job.shape), job.rule.block)
