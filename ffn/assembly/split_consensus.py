"""What two segmentations do not separate stays together: every disagreement becomes a split.

    A   11111111111   and   B   55555577777   give   1111118888      (1,5) is the larger part of 1 and keeps its id
        222222                  666                  222222           (2,6) and (2,0) are parts of 2 as well:
                                                                      a part that is too small becomes 0

A flood fill that leaks joins two neurons; another one, from other seeds, leaks elsewhere. Their common refinement has
the mistakes of neither, and more pieces, which agglomeration joins again (Januszewski et al. 2018). Voxels of A that B
left empty are a part like any other; voxels that A left empty stay empty, so A is the one to trust more.

Everything follows from a table of how many voxels each pair of labels shares. Tables of blocks add up, and the result
is a lookup in the table, so a volume is only ever held block by block.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ffn.errors import VolumeError
from ffn.geometry import ZYX, Box, blocks
from ffn.progress import Progress
from ffn.volumes import Volume, VoxelSize, create_hdf5

LABELS = "labels"


@dataclass(frozen=True)
class Overlaps:
    """Voxels that label `a` (never 0) of one segmentation shares with label `b` (may be 0) of another.

    Attributes:
        a: uint64 [n]; rows are sorted by (a, b) and each pair occurs once.
        b: uint64 [n].
        voxels: int64 [n].
    """

    a: NDArray[np.uint64]
    b: NDArray[np.uint64]
    voxels: NDArray[np.int64]


@dataclass(frozen=True)
class Parts:
    """The id that the voxels of each pair get.

    Attributes:
        a: uint64 [n], as in `Overlaps`.
        b: uint64 [n].
        ids: uint64 [n]; 0 where the part is too small.
    """

    a: NDArray[np.uint64]
    b: NDArray[np.uint64]
    ids: NDArray[np.uint64]


def count_overlaps(first: NDArray[np.unsignedinteger], second: NDArray[np.unsignedinteger]) -> Overlaps:
    """Count the label pairs of two segmentations of the same voxels. Raises VolumeError for different shapes."""
    pairs, _, voxels = _pairs(first, second)
    return Overlaps(pairs[0], pairs[1], voxels)


def added(tables: Sequence[Overlaps]) -> Overlaps:
    """The table of several blocks together."""
    a, b, voxels = (np.concatenate([getattr(table, name) for table in tables]) for name in ("a", "b", "voxels"))
    pairs, member = np.unique(np.stack([a, b]), axis=1, return_inverse=True)
    # Sums of whole numbers below 2^53 are exact.
    total = np.bincount(member.ravel(), weights=voxels, minlength=pairs.shape[1]).astype(np.int64)
    return Overlaps(pairs[0], pairs[1], total)


def parts_of(table: Overlaps, split_min_size: int) -> Parts:
    """Ids of all pairs.

    Of the parts of an `a` the largest (of equally large ones that of the smallest `b`) keeps the id `a`; the others get
    ids above all of A, in the order of the table. Parts of fewer than `split_min_size` voxels get 0.
    """
    # By a, then the largest first, then by b: the first row of each a is its largest part.
    order = np.lexsort((table.b, -table.voxels, table.a))
    largest = np.zeros(len(order), np.bool_)
    largest[order[np.unique(table.a[order], return_index=True)[1]]] = True
    kept = table.voxels >= split_min_size
    ids = np.where(largest & kept, table.a, np.uint64(0))
    new = kept & ~largest
    ids[new] = table.a.max(initial=0) + np.arange(1, np.count_nonzero(new) + 1, dtype=np.uint64)
    return Parts(table.a, table.b, ids)


def divided(
    first: NDArray[np.unsignedinteger], second: NDArray[np.unsignedinteger], parts: Parts
) -> NDArray[np.uint64]:
    """The ids of `parts` for the voxels of a block of both segmentations; all its pairs must be in the table."""
    pairs, member, _ = _pairs(first, second)
    at = _rows(parts, pairs)
    result = np.zeros(first.shape, np.uint64)
    result[first != 0] = parts.ids[at][member]
    return result


def split_consensus(segmentations: Iterable[NDArray[np.unsignedinteger]], split_min_size: int) -> NDArray[np.uint64]:
    """The split consensus of several segmentations, the first with the second, that with the third, and so on.

    Args:
        segmentations: Labels of one shape, 0 = nothing; at least one. One besides the result is held at a time.
        split_min_size: Voxels below which a part becomes 0.
    """
    each = iter(segmentations)
    result = next(each).astype(np.uint64)
    for other in each:
        result = divided(result, other, parts_of(count_overlaps(result, other), split_min_size))
    return result


def write_split_consensus(
    path: Path,
    segmentations: Sequence[Volume],
    split_min_size: int,
    block: ZYX,
    voxel_size: VoxelSize | None = None,
    offset: ZYX = (0, 0, 0),
) -> int:
    """`split_consensus` of volumes, block by block, into `path:labels` (uint64); returns how many parts there are.

    Each further segmentation takes one more reading of those before it. Raises VolumeError for different shapes.
    """
    shape = segmentations[0].shape
    for other in segmentations[1:]:
        _require_shape(shape, other.shape, other.uri)
    box = Box.of_shape(shape)
    steps: list[Parts] = []

    def result(part: Box) -> NDArray[np.uint64]:
        labels = segmentations[0].read(part).astype(np.uint64)
        for step, other in zip(steps, segmentations[1:], strict=False):
            labels = divided(labels, other.read(part), step)
        return labels

    with Progress("split consensus", box.voxels * len(segmentations), "voxels") as progress:
        for other in segmentations[1:]:
            table = Overlaps(np.empty(0, np.uint64), np.empty(0, np.uint64), np.empty(0, np.int64))
            for part in blocks(box, block):
                table = added([table, count_overlaps(result(part), other.read(part))])
                progress.advance(part.voxels)
            steps.append(parts_of(table, split_min_size))
        present: NDArray[np.uint64] = np.empty(0, np.uint64)
        with create_hdf5(path, LABELS, shape, np.uint64, voxel_size, chunk=block, offset=offset) as volume:
            for part in blocks(box, block):
                labels = result(part)
                present = np.union1d(present, labels[labels != 0])
                volume.write(part, labels)
                progress.advance(part.voxels)
    return len(present)


def _pairs(
    first: NDArray[np.unsignedinteger], second: NDArray[np.unsignedinteger]
) -> tuple[tuple[NDArray[np.uint64], NDArray[np.uint64]], NDArray[np.int64], NDArray[np.int64]]:
    """(a, b) of each pair sorted, row of each voxel where `first` is not 0, voxels of each pair."""
    _require_shape(first.shape, second.shape, "The second segmentation")
    there = first != 0
    a, of_a = np.unique(first[there], return_inverse=True)
    b, of_b = np.unique(second[there], return_inverse=True)
    codes, member, voxels = np.unique(of_a * max(len(b), 1) + of_b, return_inverse=True, return_counts=True)
    row, column = np.divmod(codes, max(len(b), 1))
    return (a[row].astype(np.uint64), b[column].astype(np.uint64)), member, voxels


def _rows(parts: Parts, pairs: tuple[NDArray[np.uint64], NDArray[np.uint64]]) -> NDArray[np.int64]:
    """Where each of the sorted `pairs` is in the table."""
    rows = np.flatnonzero(np.isin(parts.a, pairs[0]) & np.isin(parts.b, pairs[1]))
    key = np.dtype([("a", np.uint64), ("b", np.uint64)])
    table, wanted = np.empty(len(rows), key), np.empty(len(pairs[0]), key)
    table["a"], table["b"] = parts.a[rows], parts.b[rows]
    wanted["a"], wanted["b"] = pairs
    return rows[np.searchsorted(table, wanted)]


def _require_shape(expected: tuple[int, ...], found: tuple[int, ...], what: str) -> None:
    if expected != found:
        raise VolumeError(f"{what} has shape {found}, the first segmentation {expected} (z,y,x); they must be equal.")
