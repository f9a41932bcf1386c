"""How long the slowest of many workers takes: distributions of step times and their order statistics."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(400)


@dataclass(frozen=True)
class Lognormal:
    """Seconds of one worker's step: `mean`, and `cv`, the standard deviation over the mean."""

    mean: float
    cv: float

    @classmethod
    def fit(cls, samples: NDArray[np.float64]) -> "Lognormal":
        """The lognormal with the samples' mean and the spread of their logarithms (outliers weigh little)."""
        return cls(float(np.mean(samples)), math.sqrt(math.expm1(float(np.var(np.log(samples))))))

    def quantile(self, part: NDArray[np.float64]) -> NDArray[np.float64]:
        """Seconds that this part of the steps, 0 to 1, stays below."""
        sigma = math.sqrt(math.log1p(self.cv**2))
        return np.asarray(self.mean * np.exp(sigma * special.ndtri(part) - sigma**2 / 2))

    def summed(self, passes: int, lasting: float) -> "Lognormal":
        """The time of `passes` steps of one worker, a lognormal again.

        `lasting` is the part of the variance that belongs to the worker and stays (a slow node), 0 to 1; the rest is
        drawn anew for each step, and so evens out.
        """
        return Lognormal(self.mean * passes, self.cv * math.sqrt(lasting + (1 - lasting) / passes))


def expected_slowest(step: Lognormal, workers: int, dropped: int = 0) -> float:
    """Mean time until all but the `dropped` slowest of `workers` independent workers are done, seconds.

    The i-th smallest of n uniform numbers is Beta(i, n + 1 - i) distributed, so this is the mean of the quantile
    function over that distribution. Raises ValueError where nobody is left.
    """
    if not 0 <= dropped < workers:
        raise ValueError(f"{dropped} of {workers} workers dropped: at least one must stay.")
    part = special.betaincinv(workers - dropped, dropped + 1, (_NODES + 1) / 2)
    return float(_WEIGHTS @ step.quantile(part)) / 2


def expected_maximum(samples: Sequence[NDArray[np.float64]]) -> float:
    """Mean of the largest of one draw from each worker's own measured times, seconds.

    Args:
        samples: for each worker float64 [n].

    Exact for the empirical distributions: the integral of 1 - product of their distribution functions.
    """
    times = np.unique(np.concatenate([np.asarray(s, np.float64) for s in samples]))
    below = np.prod([np.searchsorted(np.sort(s), times, side="right") / len(s) for s in samples], axis=0)
    return float(times[0] + np.sum(np.diff(times) * (1 - below[:-1])))


def expected_on_cores(
    times: NDArray[np.float64], work: NDArray[np.float64], cores: int, draws: int = 2000, seed: int = 0
) -> float:
    """Mean time until all ranks of one machine have done a step, seconds, where they may share cores.

    Args:
        times: float64 [ranks, steps], seconds by the clock while all ran side by side without waiting for each other.
        work: float64 [ranks, steps], seconds of the cores in the same steps.
        cores: of the machine.

    With no more ranks than cores it is the mean of the slowest. With more, work is conserved: shared cores are busy
    until the last rank is done, so a step of all takes what it took side by side. Waiting for each other at every step
    adds what the busiest core has more than the mean. By the clock the steps of such ranks differ far more than that,
    since the system gives the cores now to one and now to another; their work shows what really differs.
    """
    ranks, steps = times.shape
    if ranks <= cores:
        return expected_maximum(list(times))
    random = np.random.default_rng(seed)
    relative = (work / work.mean(axis=1, keepdims=True)).ravel()
    loads = random.choice(relative, (draws, cores, -(-ranks // cores))).mean(axis=2)
    return float(times.sum(axis=1).max() / steps) * float(loads.max(axis=1).mean())
