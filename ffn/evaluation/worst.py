"""The bodies that are split most and the segments that merge most, with what each costs in bits."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ffn.blockwise.tables import ROWS
from ffn.evaluation.contingency import Contingency, Rows
from ffn.evaluation.totals import Floats, Ids, places

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


def worst_splits(table: Rows, number: int) -> list[Mistake]:
    """Ground-truth bodies that add most to H(segmentation | truth), background left out."""
    totals = table.totals
    return _worst(table, totals.bodies, totals.body_segmented, "truth", "segmentation", number)


def worst_merges(table: Rows, number: int) -> list[Mistake]:
    """Segments that add most to H(truth | segmentation), background left out."""
    totals = table.totals
    return _worst(table, totals.segments, totals.segment_voxels, "segmentation", "truth", number)


def _worst(table: Rows, ids: Ids, sizes: Floats, whole: str, part: str, number: int) -> list[Mistake]:
    """The mistakes of wholes with these ids and sizes, which columns of the table's rows tell with their parts."""
    bits = np.zeros(ids.size)
    for rows in _segmented(table):
        place = places(ids, rows.columns[whole])
        # One after the other, so that sums do not depend on where parts of the table begin.
        np.add.at(bits, place, rows.count * np.log2(sizes[place] / rows.count))
    bits /= max(table.totals.segmented, 1)
    worst = _largest(bits, number)
    pieces = _pieces(table, ids[worst], whole, part)
    return [Mistake(int(ids[k]), float(bits[k]), int(sizes[k]), pieces[int(ids[k])]) for k in worst]


def _segmented(table: Rows) -> Iterator[Contingency]:
    return (rows.select(rows.segmentation != 0) for rows in table.parts())


def _largest(values: Floats, number: int) -> npt.NDArray[np.intp]:
    """Where the largest of the positive values are, the largest first, of equal ones the first first."""
    best = np.empty(0, np.intp)
    for begin in range(0, values.size, ROWS):
        least = values[best[-1]] if 0 < number == best.size else 0.0
        best = np.concatenate([best, begin + np.flatnonzero(values[begin : begin + ROWS] > least)])
        best = best[np.argsort(-values[best], kind="stable")[:number]]
    return best


def _pieces(table: Rows, wholes: Ids, whole: str, part: str) -> dict[int, tuple[Piece, ...]]:
    """The largest pieces of each of a few wholes, largest first."""
    found: dict[int, tuple[Piece, ...]] = {int(one): () for one in wholes}
    for rows in _segmented(table):
        columns = rows.select(np.isin(rows.columns[whole], wholes)).columns
        for one in found:
            members = columns[whole] == one
            parts, voxels = columns[part][members], columns["count"][members]
            largest = np.lexsort((parts, -voxels))[:_PARTNERS_SHOWN]
            here = [Piece(*piece) for piece in zip(parts[largest].tolist(), voxels[largest].tolist(), strict=True)]
            # Those of earlier rows among them.
            there = sorted([*found[one], *here], key=lambda piece: (-piece.voxels, piece.id))
            found[one] = tuple(there[:_PARTNERS_SHOWN])
    return found
