"""Object maps in one byte a voxel, as google/ffn stores them beside a segmentation.

A logit x has the probability p = 1 / (1 + exp(-x)), each of the three steps rounded to float32 (so from x = 16.7 on
p is 1, as with google/ffn's float32 arithmetic). Its byte is `numpy.digitize(p, numpy.linspace(0, 1, 255))`, so 1 to
255; 0 = no probability (NaN):

    p      0 ------- 1/254 ------- 2/254 --- ... --- 253/254 ------- 1
    byte        1             2          ...    253            254     255

Back, a byte q stands for (q - 0.5) / 255.

No step ever falls with x, so the byte is the number of levels that x reaches. The levels are found once, as float32
logits; then a cheap estimate of the byte, which may be one off, is put right by comparing x with the levels around it.
So the result is the formula's to the last voxel, whatever exp the estimate was made with.
"""

import numpy as np
from numpy.typing import NDArray

SLAB = 1 << 16
"""Voxels worked on at once: temporaries stay in the processor's cache."""

_BINS = np.linspace(0.0, 1.0, 255)
# float32 of the same sign are ordered as the integers with the same bits; negative ones the other way round.
_SIGN = np.int64(1) << 31


def quantised(logits: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The bytes (uint8, same shape) of float32 logits of any shape; NaN = no probability becomes 0."""
    values = np.ascontiguousarray(logits, np.float32)
    out = np.empty(values.shape, np.uint8)
    flat, into = values.reshape(-1), out.reshape(-1)
    for start in range(0, flat.size, SLAB):
        _quantise(flat[start : start + SLAB], into[start : start + SLAB])
    return out


def probability(q: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The probabilities (float32, same shape) that bytes of any shape stand for; NaN where the byte is 0."""
    values = np.ascontiguousarray(q, np.uint8)
    out = np.empty(values.shape, np.float32)
    flat, into = values.reshape(-1), out.reshape(-1)
    for start in range(0, flat.size, SLAB):
        np.take(PROBABILITIES, flat[start : start + SLAB], out=into[start : start + SLAB], mode="clip")
    return out


def _quantise(values: NDArray[np.float32], out: NDArray[np.uint8]) -> None:
    nothing = np.isnan(values)
    # Beyond +-20 only the comparison with the levels matters, and exp stays finite.
    estimate = np.clip(values, np.float32(-20), np.float32(20))
    np.copyto(estimate, 0, where=nothing)
    np.negative(estimate, out=estimate)
    np.exp(estimate, out=estimate)
    estimate += 1
    np.divide(np.float32(254), estimate, out=estimate)
    # Counted from 0: the estimate is the place of the last level reached, or one of its neighbours.
    place = np.minimum(estimate.astype(np.intp), len(LEVELS) - 2)
    place += values >= LEVELS.take(place + 1)
    place -= values < LEVELS.take(place)
    np.add(place, 1, out=out, casting="unsafe")
    np.copyto(out, 0, where=nothing)


def _sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):
        odds = np.exp(-logits.astype(np.float64)).astype(np.float32)
    return np.float32(1) / (np.float32(1) + odds)


def _levels() -> NDArray[np.float32]:
    """For each bin the smallest logit (float32 [255], ascending) that reaches it, by bisection over all float32."""
    infinity = np.int64(np.float32(np.inf).view(np.int32))
    low, high = np.full(len(_BINS), -infinity), np.full(len(_BINS), infinity)
    while np.any(high - low > 1):
        middle = (low + high) // 2
        reached = _sigmoid(_at_rank(middle)) >= _BINS
        low, high = np.where(reached, low, middle), np.where(reached, middle, high)
    levels = _at_rank(high)
    # The first bin starts at p = 0, which every logit reaches.
    levels[0] = -np.inf
    return levels


def _at_rank(rank: NDArray[np.int64]) -> NDArray[np.float32]:
    """The float32 with the given place in their order, where 0 has the place 0."""
    bits = np.where(rank >= 0, rank, _SIGN - rank)
    return bits.astype(np.uint32).view(np.float32)


LEVELS = _levels()
PROBABILITIES = np.concatenate([[np.nan], (np.arange(1, 256) - 0.5) / 255]).astype(np.float32)
"""What each byte stands for, float32 [256]."""
