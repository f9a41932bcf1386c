"""The exponent with which the best learning rate grows with the workers: rate = rate_1 * N^exponent."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats


@dataclass(frozen=True)
class Fit:
    """rate = exp(intercept) * N^exponent over `points` rows; `low` to `high` is the 95 % interval of the exponent."""

    exponent: float
    low: float
    high: float
    intercept: float
    points: int

    def rate(self, workers: float) -> float:
        return float(np.exp(self.intercept) * workers**self.exponent)


def fit_exponent(workers: NDArray[np.float64], rates: NDArray[np.float64], errors: NDArray[np.float64]) -> Fit | None:
    """Weighted straight line through (log workers, log rate); None with fewer than three rows.

    Args:
        workers, rates: float64 [n], positive.
        errors: float64 [n], standard errors of log rate.

    The interval is the slope's standard error times Student's t with n - 2 degrees of freedom. Where the rows scatter
    more than their errors explain, the standard error is widened by that ratio (Birge's), so it covers both the noise
    of the scores and rows that lie on no straight line.
    """
    known = np.isfinite(rates) & np.isfinite(errors)
    count = int(np.count_nonzero(known))
    if count < 3:
        return None
    x, y, weight = np.log(workers[known]), np.log(rates[known]), 1 / errors[known] ** 2
    middle = np.average(x, weights=weight)
    spread = float(np.sum(weight * (x - middle) ** 2))
    slope = float(np.sum(weight * (x - middle) * y)) / spread
    intercept = float(np.average(y, weights=weight)) - slope * float(middle)
    misfit = float(np.sum(weight * (y - intercept - slope * x) ** 2)) / (count - 2)
    half = float(stats.t.ppf(0.975, count - 2)) * np.sqrt(max(misfit, 1.0) / spread)
    return Fit(slope, slope - float(half), slope + float(half), intercept, count)
