"""Which segments of overlapping sub-volumes are the same object.

Two sub-volumes A and B see the same voxels in their overlap. Segment a of A and segment b of B are one object if

    common voxels                                         >= min_overlap_voxels, and
    common voxels / voxels of a where B has any segment   >= min_overlap_fraction, and
    common voxels / voxels of b where A has any segment   >= min_overlap_fraction.

Both fractions are needed: a piece that merely reaches into a large segment would pass one of them, and a chain of such
pieces would join everything. Voxels that one of the two left empty say nothing about identity (near its border a
sub-volume segments less), so they are not counted against a pair.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from ffn.assembly.labelled import OpenLabels
from ffn.geometry import ZYX, Box, blocks

Column = NDArray[np.int64]


@dataclass(frozen=True)
class PairTable:
    """Voxels that segment `a` of one sub-volume shares with segment `b` of another; int64 columns, sorted by (a, b)."""

    a: Column
    b: Column
    common: Column

    def totals(self) -> tuple[Column, Column]:
        """For each row: the voxels of its `a`, and of its `b`, where both sub-volumes have a segment."""
        return _summed_by(self.a, self.common), _summed_by(self.b, self.common)


@dataclass(frozen=True)
class Equivalences:
    """A row says: segment `id_a` of sub-volume `tile_a` and `id_b` of `tile_b` are one object; int64 columns.

    Attributes:
        common: Their common voxels.
        voxels_a, voxels_b: Voxels of each where both sub-volumes have a segment.
    """

    tile_a: Column
    tile_b: Column
    id_a: Column
    id_b: Column
    common: Column
    voxels_a: Column
    voxels_b: Column

    @classmethod
    def of(cls, parts: Iterable["Equivalences"]) -> "Equivalences":
        """The rows of all parts."""
        listed = list(parts)
        none = np.empty(0, np.int64)
        return cls(*(np.concatenate([none, *(getattr(part, name) for part in listed)]) for name in cls.columns()))

    @classmethod
    def columns(cls) -> list[str]:
        return [field.name for field in fields(cls)]

    def __len__(self) -> int:
        return len(self.common)

    def nodes(self, offsets: Column) -> tuple[Column, Column]:
        """Both segments of each row in one numbering: id 1 of sub-volume t is `offsets[t]`."""
        return offsets[self.tile_a] + self.id_a - 1, offsets[self.tile_b] + self.id_b - 1

    def listed(self, most: int) -> list[dict[str, object]]:
        """The first rows as JSON."""
        names = ("tile_a", "tile_b", "id_a", "id_b", "common", "voxels_a", "voxels_b")
        rows = zip(*(getattr(self, name)[:most].tolist() for name in names), strict=True)
        return [
            {"tiles": [i, j], "ids": [a, b], "common": common, "voxels": [of_a, of_b]}
            for i, j, a, b, common, of_a, of_b in rows
        ]


def count_pairs(labels: OpenLabels, tiles: tuple[int, int], shared: Box, block: ZYX) -> PairTable:
    """Count label pairs in the overlap of two sub-volumes, one block at a time.

    Args:
        labels: Of all sub-volumes.
        tiles: The two.
        shared: Their overlap in the common volume.
        block: Voxels read at once.
    """
    keys, counts = np.empty(0, np.uint64), np.empty(0, np.int64)
    # Two ids in one number: what a segment id of the first is multiplied by.
    base = np.uint64(labels.tiles.largest_ids[tiles[1]] + 1)
    # From the corner of the overlap, not on a grid of the volume: stored chunks are unpacked anew for each part.
    for part in blocks(Box.of_shape(shared.shape), block):
        a, b = (labels.local(tile, part.shifted(shared.start)).ravel() for tile in tiles)
        # Neighbours along a line mostly have the same pair: sorting runs instead of voxels is many times less work.
        starts = np.flatnonzero(np.concatenate([[True], (a[1:] != a[:-1]) | (b[1:] != b[:-1])]))
        lengths = np.diff(starts, append=a.size)
        a, b = a[starts], b[starts]
        both = (a != 0) & (b != 0)
        keys, counts = _summed(np.concatenate([keys, a[both] * base + b[both]]), np.append(counts, lengths[both]))
    return PairTable((keys // base).astype(np.int64), (keys % base).astype(np.int64), counts)


def equivalences(table: PairTable, tiles: tuple[int, int], min_voxels: int, min_fraction: float) -> Equivalences:
    """The rows of `table` that pass the rule at the top of this module."""
    of_a, of_b = table.totals()
    same = (table.common >= min_voxels) & (table.common >= min_fraction * of_a) & (table.common >= min_fraction * of_b)
    i, j = (np.full(np.count_nonzero(same), tile, np.int64) for tile in tiles)
    return Equivalences(i, j, table.a[same], table.b[same], table.common[same], of_a[same], of_b[same])


def equivalences_of(
    labels: OpenLabels, numbers: Sequence[int], min_voxels: int, min_fraction: float, block: ZYX
) -> Equivalences:
    """All equivalences of the sub-volumes `numbers` with later ones, in the order of both."""

    def parts() -> Iterator[Equivalences]:
        for first in numbers:
            for second, shared in labels.tiles.index.pairs_of(first):
                table = count_pairs(labels, (first, second), shared, block)
                yield equivalences(table, (first, second), min_voxels, min_fraction)

    return Equivalences.of(parts())


def _summed(keys: NDArray[np.uint64], counts: Column) -> tuple[NDArray[np.uint64], Column]:
    unique, member = np.unique(keys, return_inverse=True)
    return unique, np.bincount(member, weights=counts, minlength=len(unique)).astype(np.int64)


def _summed_by(keys: Column, counts: Column) -> Column:
    unique, member = np.unique(keys, return_inverse=True)
    return np.bincount(member, weights=counts, minlength=len(unique)).astype(np.int64)[member]
