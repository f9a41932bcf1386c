"""Which segments of overlapping sub-volumes are the same object, and the global ids that follow from it.

Two sub-volumes A and B see the same voxels in their overlap. Segment a of A and segment b of B are one object if

    common voxels                                         >= min_overlap_voxels, and
    common voxels / voxels of a where B has any segment   >= min_overlap_fraction, and
    common voxels / voxels of b where A has any segment   >= min_overlap_fraction.

Both fractions are needed: a piece that merely reaches into a large segment would pass one of them, and a chain of such
pieces would join everything. Voxels that one of the two left empty say nothing about identity (near its border a
sub-volume segments less), so they are not counted against a pair. Objects are the connected components of these
pairs; they are numbered by their first member in the order of sub-volumes and ids there, whatever the order in which
the overlaps were compared.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from ffn.geometry import ZYX, Box, blocks
from ffn.volumes import Volume

# Two ids in one number; those of a sub-volume are far below 2^32.
_HALF = np.uint64(32)
_LOW = np.uint64(2**32 - 1)


@dataclass(frozen=True)
class PairTable:
    """Voxels that segment `a` of one sub-volume shares with segment `b` of another; int64 columns, sorted by (a, b)."""

    a: NDArray[np.int64]
    b: NDArray[np.int64]
    common: NDArray[np.int64]

    def totals(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """For each row: the voxels of its `a`, and of its `b`, where both sub-volumes have a segment."""
        return _summed_by(self.a, self.common), _summed_by(self.b, self.common)


@dataclass(frozen=True)
class Equivalence:
    """Segment `ids[0]` of sub-volume `tiles[0]` and `ids[1]` of `tiles[1]` are one object."""

    tiles: tuple[int, int]
    ids: tuple[int, int]
    common: int
    voxels: tuple[int, int]
    """Voxels of each where both sub-volumes have a segment."""


def overlapping_pairs(boxes: Sequence[Box]) -> Iterator[tuple[int, int, Box]]:
    """Indices i < j of the boxes that share voxels, and these voxels."""
    for (i, first), (j, second) in combinations(enumerate(boxes), 2):
        shared = first.intersection(second)
        if shared is not None:
            yield i, j, shared


def count_pairs(first: Volume, second: Volume, boxes: tuple[Box, Box], shared: Box, block: ZYX) -> PairTable:
    """Count label pairs in the overlap of two sub-volumes, one block at a time.

    Args:
        first: Integer labels zyx of the one sub-volume, starting at its corner; 0 = empty.
        second: Those of the other.
        boxes: Where the two lie in the common volume.
        shared: Their overlap in the common volume.
        block: Voxels read at once.
    """
    codes, counts = np.empty(0, np.uint64), np.empty(0, np.int64)
    for part in blocks(shared, block):
        a = first.read(part.relative_to(boxes[0].start)).astype(np.uint64)
        b = second.read(part.relative_to(boxes[1].start)).astype(np.uint64)
        both = (a != 0) & (b != 0)
        found, voxels = np.unique((a[both] << _HALF) | b[both], return_counts=True)
        codes, counts = _summed(np.concatenate([codes, found]), np.concatenate([counts, voxels]))
    return PairTable((codes >> _HALF).astype(np.int64), (codes & _LOW).astype(np.int64), counts)


def equivalences(table: PairTable, tiles: tuple[int, int], min_voxels: int, min_fraction: float) -> list[Equivalence]:
    """The rows of `table` that pass the rule at the top of this module."""
    of_a, of_b = table.totals()
    same = (table.common >= min_voxels) & (table.common >= min_fraction * of_a) & (table.common >= min_fraction * of_b)
    return [
        Equivalence(tiles, (int(table.a[i]), int(table.b[i])), int(table.common[i]), (int(of_a[i]), int(of_b[i])))
        for i in np.flatnonzero(same)
    ]


def global_ids(segments: Sequence[int], same: Iterable[Equivalence]) -> list[NDArray[np.uint64]]:
    """Tables from local to global ids, one per sub-volume: `global = table[local]`, with table[0] = 0.

    Args:
        segments: How many segments each sub-volume has; their ids are 1..n.
        same: Equivalences in any order.

    Returns:
        uint64 arrays of n + 1 entries. Global ids are 1..m without gaps.
    """
    offsets = np.concatenate([[0], np.cumsum(segments, dtype=np.int64)])
    nodes = int(offsets[-1])
    pairs = np.array(
        [[offsets[tile] + number - 1 for tile, number in zip(pair.tiles, pair.ids, strict=True)] for pair in same],
        dtype=np.int64,
    ).reshape(-1, 2)
    if nodes == 0:
        return [np.zeros(1, np.uint64) for _ in segments]
    graph = coo_array((np.ones(len(pairs), np.int8), (pairs[:, 0], pairs[:, 1])), shape=(nodes, nodes))
    _, objects = connected_components(graph, directed=False)
    _, first, member = np.unique(objects, return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.uint64)
    rank[np.argsort(first)] = np.arange(1, len(first) + 1)
    ids = rank[member]
    zero = np.zeros(1, np.uint64)
    return [np.concatenate([zero, ids[a:b]]) for a, b in pairwise(offsets)]


def _summed(codes: NDArray[np.uint64], counts: NDArray[np.int64]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    unique, member = np.unique(codes, return_inverse=True)
    return unique, np.bincount(member, weights=counts, minlength=len(unique)).astype(np.int64)


def _summed_by(keys: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.int64]:
    unique, member = np.unique(keys, return_inverse=True)
    return np.bincount(member, weights=counts, minlength=len(unique)).astype(np.int64)[member]
