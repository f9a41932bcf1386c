"""The bodies that are split most and the segments that merge most, with what each costs in bits."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ffn.evaluation.contingency import Contingency, Ids

_PARTNERS_SHOWN = 5


@dataclass(frozen=True)
class Piece:
    """One of the segments in a body, or of the bodies in a segment."""

    id: int
    voxels: int


@dataclass(frozen=True)
class Mistake:
    """A split body or a merging segment: what it adds to the VOI, and its largest pieces first."""

    id: int
    bits: float
    voxels: int
    pieces: tuple[Piece, ...]

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "pieces": [asdict(piece) for piece in self.pieces]}


def worst_splits(table: Contingency, number: int) -> list[Mistake]:
    """Ground-truth bodies that add most to H(segmentation | truth), background left out."""
    rows = table.select(table.segmentation != 0)
    return _worst(rows.truth, rows.segmentation, rows, number)


def worst_merges(table: Contingency, number: int) -> list[Mistake]:
    """Segments that add most to H(truth | segmentation), background left out."""
    rows = table.select(table.segmentation != 0)
    return _worst(rows.segmentation, rows.truth, rows, number)


def _worst(wholes: Ids, parts: Ids, rows: Contingency, number: int) -> list[Mistake]:
    ids, index = np.unique(wholes, return_inverse=True)
    count = rows.count.astype(np.float64)
    sizes = np.bincount(index, weights=count, minlength=ids.size)
    bits = np.bincount(index, weights=count * np.log2(sizes[index] / count), minlength=ids.size) / max(rows.voxels, 1)
    order = np.lexsort((ids, -bits))[:number]
    mistakes = []
    for k in order[bits[order] > 0]:
        members = np.flatnonzero(index == k)
        largest = members[np.lexsort((parts[members], -rows.count[members]))][:_PARTNERS_SHOWN]
        pieces = tuple(Piece(int(parts[m]), int(rows.count[m])) for m in largest)
        mistakes.append(Mistake(int(ids[k]), float(bits[k]), int(sizes[k]), pieces))
    return mistakes
