"""Probabilities as logits: ln(p / (1 - p)). The object map lives in logits everywhere."""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray


def logit(probability: float) -> np.float32:
    """The logit of one probability strictly between 0 and 1, rounded once to float32."""
    return np.float32(math.log(probability / (1.0 - probability)))


def expit(logits: ArrayLike) -> NDArray[np.float32]:
    """Probabilities (float32, same shape) of logits; no overflow for large magnitudes."""
    values = np.asarray(logits, dtype=np.float32)
    small = np.exp(-np.abs(values))
    return np.where(values >= 0, 1 / (1 + small), small / (1 + small)).astype(np.float32)
