"""What a contingency table says of each body and of each segment: how many voxels they have."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ffn.blockwise.tables import ROWS, Sorter, group_starts

Ids = npt.NDArray[np.uint64]
Counts = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Totals:
    """Sums over the rows of a table. Voxels are whole numbers below 2^53, so their sums are exact in any order.

    Attributes:
        bodies: Ids of the ground truth, ascending, uint64 [bodies].
        body_voxels: Voxels of each body, float64 [bodies].
        body_segmented: Those of them that have a segment, float64 [bodies].
        segments: Ids of the segmentation, ascending, 0 (background) among them where it occurs, uint64 [segments].
        segment_voxels: Voxels of each segment, float64 [segments].
        pairs: Rows of the table.
        segmented_pairs: Rows whose segment is not 0.
    """

    bodies: Ids
    body_voxels: Floats
    body_segmented: Floats
    segments: Ids
    segment_voxels: Floats
    pairs: int
    segmented_pairs: int

    @classmethod
    def of(cls, truth: Ids, segmentation: Ids, count: Counts) -> "Totals":
        """The totals of the columns of a table, sorted by truth, in memory."""
        segmented = segmentation != 0
        voxels = count.astype(np.float64)
        bodies, body_voxels, body_segmented = _sums(truth, voxels, voxels * segmented)
        order = np.argsort(segmentation)
        segments, segment_voxels = _sums(segmentation[order], voxels[order])
        segmented_pairs = int(np.count_nonzero(segmented))
        return cls(bodies, body_voxels, body_segmented, segments, segment_voxels, count.size, segmented_pairs)

    @classmethod
    def joined(cls, parts: Iterable["Totals"], folder: Path, rows: int = ROWS) -> "Totals":
        """The totals of a table from those of its parts, which follow each other in the order of their bodies.

        Args:
            parts: Taken one at a time.
            folder: Segments are sorted in a folder of its own in there, where they are many.
            rows: Segments held in memory while they are sorted, about.
        """
        kept: list[tuple[npt.NDArray[Any], ...]] = []
        pairs = segmented_pairs = 0
        with Sorter(folder, ["id"], rows=rows) as sorter:
            for part in parts:
                kept.append((part.bodies, part.body_voxels, part.body_segmented))
                sorter.add({"id": part.segments, "voxels": part.segment_voxels})
                pairs, segmented_pairs = pairs + part.pairs, segmented_pairs + part.segmented_pairs
            # A body may begin in one part and end in another.
            bodies, body_voxels, body_segmented = _sums(*_columns(kept))
            kept += (_sums(piece["id"], piece["voxels"]) for piece in sorter.pieces())
        segments, segment_voxels = _columns(kept)
        return cls(bodies, body_voxels, body_segmented, segments, segment_voxels, pairs, segmented_pairs)

    @cached_property
    def voxels(self) -> int:
        """Voxels with known truth."""
        return int(self.body_voxels.sum())

    @cached_property
    def segmented(self) -> int:
        """Those of them that have a segment."""
        return int(self.body_segmented.sum())


def places(ids: Ids, wanted: Ids) -> npt.NDArray[np.intp]:
    """Where each of the ids `wanted`, in any order, is in the ascending `ids`, which has them all."""
    order = np.argsort(wanted)
    found = np.empty(wanted.size, np.intp)
    # In ascending order each search begins where the one before ended, in memory that is at hand.
    found[order] = np.searchsorted(ids, wanted[order])
    return found


def _sums(ids: Ids, *values: Floats) -> tuple[npt.NDArray[Any], ...]:
    """The different ones of ascending ids, and the sums of the values of each."""
    starts = group_starts([ids])
    return ids[starts], *(np.add.reduceat(column, starts) if starts.size else column for column in values)


def _columns(tables: list[tuple[npt.NDArray[Any], ...]]) -> Iterator[npt.NDArray[Any]]:
    """The columns of tables one after the other; the list is empty afterwards, so that little is held twice."""
    columns = list(zip(*tables, strict=True))
    tables.clear()
    while columns:
        yield np.concatenate(columns.pop(0))
