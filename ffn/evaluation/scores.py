"""Variation of information and Rand scores of a contingency table, under three treatments of background.

VOI as in Meila, J. Multivariate Analysis 98 (2007), in bits: split = H(segmentation | truth), merge = H(truth |
segmentation). Adapted Rand error as in Arganda-Carreras et al., Front. Neuroanat. 9 (2015), from plain squares of
counts: precision = sum n_ij^2 / sum s_j^2, recall = sum n_ij^2 / sum t_i^2, error = 1 - their harmonic mean. n_ij
are voxels shared by body i and segment j, t_i and s_j the sizes. Voxels of unknown truth never count.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np

from ffn.evaluation.contingency import Contingency, Rows
from ffn.evaluation.totals import Counts, Floats, places

Treatment = Literal["object", "singletons", "excluded"]
TREATMENTS: dict[Treatment, str] = {
    "object": "background of the segmentation is one more segment",
    "singletons": "each background voxel of the segmentation is a segment of its own",
    "excluded": "background voxels of the segmentation are left out",
}

Chosen = Literal["all", "segmented", "background"]
"""Rows of a table, by what their segment is."""


@dataclass(frozen=True)
class Scores:
    """Scores of one treatment; None where no voxel is left to score. VOI in bits, the rest in 0..1."""

    voi_split: float | None
    voi_merge: float | None
    voi: float | None
    are: float | None
    precision: float | None
    recall: float | None
    voxels: int

    def as_dict(self) -> dict[str, float | int | None]:
        return asdict(self)


def score(table: Rows, treatment: Treatment) -> Scores:
    """All scores of one treatment of the segmentation's background.

    Holds two numbers of 8 bytes for each pair: sums over all pairs are those of one array, to the last bit, however
    the table is read.
    """
    totals = table.totals
    chosen: Chosen = "all" if treatment == "object" else "segmented"
    voxels = totals.segmented if treatment == "excluded" else totals.voxels
    if voxels == 0:
        return Scores(None, None, None, None, None, None, 0)
    body_voxels = totals.body_segmented if treatment == "excluded" else totals.body_voxels

    def bodies(rows: Contingency) -> Floats:
        return body_voxels[np.searchsorted(totals.bodies, rows.truth)]

    def segments(rows: Contingency) -> Floats:
        return totals.segment_voxels[places(totals.segments, rows.segmentation)]

    shared = _column(table, chosen, lambda rows: rows.count)
    split_bits = float(shared @ _column(table, chosen, lambda rows: np.log2(bodies(rows) / rows.count)))
    merge_bits = float(shared @ _column(table, chosen, lambda rows: np.log2(segments(rows) / rows.count)))
    together = float(shared @ shared)
    del shared
    in_segments = totals.segment_voxels if chosen == "all" else totals.segment_voxels[totals.segments != 0]
    in_bodies = body_voxels[body_voxels > 0]
    singletons = 0.0
    if treatment == "singletons":
        # Per body, voxels that are each a segment of size 1.
        single = _column(table, "background", lambda rows: rows.count)
        split_bits += float(single @ _column(table, "background", lambda rows: np.log2(bodies(rows))))
        singletons = float(single.sum())
    split, merge = split_bits / voxels, merge_bits / voxels
    together += singletons
    precision = together / (float(in_segments @ in_segments) + singletons)
    recall = together / float(in_bodies @ in_bodies)
    error = 1.0 - 2.0 * precision * recall / (precision + recall)
    return Scores(split, merge, split + merge, error, precision, recall, voxels)


def coverage(table: Rows) -> float:
    """Fraction of the voxels with known truth that have a segment; 0 for an empty table."""
    return table.totals.segmented / max(table.totals.voxels, 1)


def _column(table: Rows, chosen: Chosen, values: Callable[[Contingency], Floats | Counts]) -> Floats:
    """What `values` are of the chosen rows of a table, which is read in parts; float64 [rows]."""
    totals = table.totals
    background = totals.pairs - totals.segmented_pairs
    pairs = {"all": totals.pairs, "segmented": totals.segmented_pairs, "background": background}[chosen]
    column, end = np.empty(pairs), 0
    for part in table.parts():
        rows = part if chosen == "all" else part.select((part.segmentation != 0) == (chosen == "segmented"))
        begin, end = end, end + rows.count.size
        column[begin:end] = values(rows)
    return column
