"""The best learning rate of a row of the study, between the rates that were tried, and how sure it is."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_ROUNDING = 1e-9
_REACH = 2
_LEAST_ERROR = 0.1


@dataclass(frozen=True)
class Optimum:
    """Best power of the spacing (it may lie between whole ones), its standard error, and whether the row shows a
    maximum: `open_end` is true where the best rate tried is the lowest or highest of those that did not diverge and no
    diverged rate bounds it."""

    power: float
    error: float
    open_end: bool


def best_between(powers: NDArray[np.int64], scores: NDArray[np.float64]) -> float:
    """Vertex of the parabola through the best score and up to two neighbours on either side.

    Args:
        powers: int64 [n], ascending.
        scores: float64 [n], larger is better, nan where training diverged.

    The vertex is kept within one step of the best rate tried; where the scores do not bend down, or fewer than three
    are known, the best rate tried is the answer. Returns nan where nothing is known.
    """
    known = np.isfinite(scores)
    if not known.any():
        return float("nan")
    best = int(powers[known][np.argmax(scores[known])])
    near = known & (np.abs(powers - best) <= _REACH)
    if np.count_nonzero(near) < 3:
        return float(best)
    curve, slope, _ = np.polyfit(powers[near] - best, scores[near], 2)
    # Of scores on a straight line rounding would decide, differently on every processor.
    if curve >= -_ROUNDING * np.ptp(scores[near]):
        return float(best)
    return best + float(np.clip(-slope / (2 * curve), -1, 1))


def find_optimum(
    powers: NDArray[np.int64], scores: NDArray[np.float64], spread: NDArray[np.float64], seed: int, draws: int = 1000
) -> Optimum:
    """The best power of a row, with the error that the spread between seeds makes.

    Args:
        powers: int64 [n], ascending.
        scores: float64 [n], means over seeds, larger is better, nan where training diverged.
        spread: float64 [n], standard errors of the means.
        seed: decides the draws.

    The error is the standard deviation of the optimum over `draws` rows whose scores are drawn around the measured
    ones (parametric bootstrap); never less than a tenth of the spacing, which the grid cannot resolve.
    """
    random = np.random.default_rng(seed)
    noisy = scores + random.normal(size=(draws, len(scores))) * spread
    optima = np.array([best_between(powers, row) for row in noisy])
    known = np.flatnonzero(np.isfinite(scores))
    if len(known) == 0:
        return Optimum(float("nan"), float("nan"), True)
    best = known[np.argmax(scores[known])]
    return Optimum(
        best_between(powers, scores), max(float(np.nanstd(optima)), _LEAST_ERROR), best in (0, len(powers) - 1)
    )


def seed_spread(groups: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Standard deviation of a score between seeds, for each row.

    Args:
        groups: for each row the scores of its cell with several seeds, float64 [seeds].

    Three seeds say little about one row, so the variance of a row is the mean of its own and of all rows'; where a row
    has a single seed, all rows' alone. Zero where no row has more.
    """
    variances = np.array([np.var(group, ddof=1) if len(group) > 1 else np.nan for group in groups])
    if np.isnan(variances).all():
        return np.zeros(len(groups))
    common = float(np.nanmean(variances))
    return np.sqrt(np.where(np.isnan(variances), common, (variances + common) / 2))
