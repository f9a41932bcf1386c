"""Variation of information and Rand scores of a contingency table, under three treatments of background.

VOI as in Meila, J. Multivariate Analysis 98 (2007), in bits: split = H(segmentation | truth), merge = H(truth |
segmentation). Adapted Rand error as in Arganda-Carreras et al., Front. Neuroanat. 9 (2015), from plain squares of
counts: precision = sum n_ij^2 / sum s_j^2, recall = sum n_ij^2 / sum t_i^2, error = 1 - their harmonic mean. n_ij
are voxels shared by body i and segment j, t_i and s_j the sizes. Voxels of unknown truth never count.
"""

from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from ffn.evaluation.contingency import Contingency, Ids

Treatment = Literal["object", "singletons", "excluded"]
TREATMENTS: dict[Treatment, str] = {
    "object": "background of the segmentation is one more segment",
    "singletons": "each background voxel of the segmentation is a segment of its own",
    "excluded": "background voxels of the segmentation are left out",
}

Floats = npt.NDArray[np.float64]


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


def score(table: Contingency, treatment: Treatment) -> Scores:
    """All scores of one treatment of the segmentation's background."""
    segmented = table.segmentation != 0
    rows = table if treatment == "object" else table.select(segmented)
    # What the singletons add: per body, voxels that are each a segment of size 1.
    alone = table.select(~segmented) if treatment == "singletons" else Contingency.empty()
    voxels = rows.voxels + alone.voxels
    if voxels == 0:
        return Scores(None, None, None, None, None, None, 0)
    shared = rows.count.astype(np.float64)
    single = alone.count.astype(np.float64)
    bodies, row_body = _grouped(np.concatenate([rows.truth, alone.truth]), np.concatenate([shared, single]))
    segments, row_segment = _grouped(rows.segmentation, shared)
    singletons = float(single.sum())
    split_bits = shared @ np.log2(row_body[: shared.size] / shared) + single @ np.log2(row_body[shared.size :])
    merge_bits = shared @ np.log2(row_segment / shared)
    split, merge = float(split_bits) / voxels, float(merge_bits) / voxels
    together = float(shared @ shared) + singletons
    precision = together / (float(segments @ segments) + singletons)
    recall = together / float(bodies @ bodies)
    error = 1.0 - 2.0 * precision * recall / (precision + recall)
    return Scores(split, merge, split + merge, error, precision, recall, voxels)


def coverage(table: Contingency) -> float:
    """Fraction of the voxels with known truth that have a segment; 0 for an empty table."""
    segmented = int(table.count[table.segmentation != 0].sum())
    return segmented / max(table.voxels, 1)


def _grouped(keys: Ids, weights: Floats) -> tuple[Floats, Floats]:
    """Sums of `weights` per distinct key, and for every row the sum of its key."""
    _, index = np.unique(keys, return_inverse=True)
    sums = np.bincount(index, weights=weights).astype(np.float64)  # of no rows it would be whole numbers
    return sums, sums[index]
