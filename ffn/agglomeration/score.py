"""Whether two segments are one, from what came back of each.

    iou              where the fills from a and from b agree / where either is
    from_a_in_b      part of b that the fill from a covers; and so from_a_in_a, from_b_in_a, from_b_in_b
    deleted_a        voxels that the fill from a had and lost again / voxels that it ended with; and so deleted_b
    recovered_a      part of a that came back when it was filled from inside; and so recovered_b

They are joined if iou and all four parts are above their thresholds, one of the two fills deleted little, and both
segments came back. How clearly that is so is the *margin*: the distance of the worst value to its threshold, from -1
(as far below as possible) over 0 (on it) to 1.

The larger the two, the more a mistake costs; so large ones can be left to a proofreader.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ffn.agglomeration.resegment import Resegmentation
from ffn.config import Agglomeration


@dataclass(frozen=True)
class Scores:
    """The values at the top of this module."""

    iou: float
    from_a_in_a: float
    from_a_in_b: float
    from_b_in_a: float
    from_b_in_b: float
    deleted_a: float
    deleted_b: float
    recovered_a: float
    recovered_b: float


@dataclass(frozen=True)
class Verdict:
    """What follows from the scores.

    Attributes:
        joined: Whether the two are one.
        reason: The value that decided: the worst one. `no_seed_a` or `no_seed_b` where nothing could be filled,
            `max_smaller_segment` where the scores would join the two but both are too large for that.
        margin: Its distance to its threshold, -1 to 1; the nearer to 0, the more doubtful.
    """

    joined: bool
    reason: str
    margin: float


def scores_of(
    a: Resegmentation, b: Resegmentation, original_a: NDArray[np.bool_], original_b: NDArray[np.bool_]
) -> Scores:
    """Compare two fills with each other and with the segments (bool [z, y, x] of the analysed region)."""
    return Scores(
        iou=_part(a.reached & b.reached, a.reached | b.reached),
        from_a_in_a=_part(a.reached & original_a, original_a),
        from_a_in_b=_part(a.reached & original_b, original_b),
        from_b_in_a=_part(b.reached & original_a, original_a),
        from_b_in_b=_part(b.reached & original_b, original_b),
        deleted_a=a.deleted / max(a.voxels, 1),
        deleted_b=b.deleted / max(b.voxels, 1),
        recovered_a=a.recovered,
        recovered_b=b.recovered,
    )


def verdict_of(a: Resegmentation, b: Resegmentation, scores: Scores, settings: Agglomeration) -> Verdict:
    """The merge rule."""
    for name, fill in (("a", a), ("b", b)):
        if fill.seed is None:
            return Verdict(False, f"no_seed_{name}", -1.0)
    enough = settings.segment_recovery_fraction
    found = [
        (f"recovered_{name}", _margin(value, enough), value >= enough)
        for name, value in (("a", scores.recovered_a), ("b", scores.recovered_b))
    ]
    found.append(("iou", _margin(scores.iou, settings.min_iou), scores.iou > settings.min_iou))
    for name in ("from_a_in_a", "from_a_in_b", "from_b_in_a", "from_b_in_b"):
        value = getattr(scores, name)
        found.append((name, _margin(value, settings.min_consistency), value > settings.min_consistency))
    deleted = min(scores.deleted_a, scores.deleted_b)
    found.append(("deleted", max(1 - deleted / settings.max_deleted, -1.0), deleted < settings.max_deleted))
    reason, margin, _ = min(found, key=lambda entry: (entry[1], entry[2]))
    return Verdict(all(passes for *_, passes in found), reason, margin)


def withheld(verdict: Verdict, smaller: int, most: int | None) -> Verdict:
    """The verdict where the smaller of two segments may have at most `most` voxels; None = any number.

    Two that are too large to be joined are as doubtful as can be.
    """
    if not verdict.joined or most is None or smaller <= most:
        return verdict
    return Verdict(False, "max_smaller_segment", 0.0)


def _margin(value: float, threshold: float) -> float:
    """Distance of a part to its threshold, as a fraction of the greatest that there can be on its side."""
    return (value - threshold) / (1 - threshold if value > threshold else threshold)


def _part(common: NDArray[np.bool_], whole: NDArray[np.bool_]) -> float:
    return int(np.count_nonzero(common)) / max(int(np.count_nonzero(whole)), 1)
