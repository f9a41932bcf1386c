"""Object maps in one byte a voxel: the formula's result for every logit."""

import tracemalloc

import numpy as np
import pytest
from scipy.special import expit

from ffn.inference.probability import LEVELS, SLAB, probability, quantised


def by_formula(logits):
    with np.errstate(over="ignore"):
        odds = np.exp(-logits.astype(np.float64)).astype(np.float32)
    p = np.float32(1) / (np.float32(1) + odds)
    q = np.digitize(p, np.linspace(0, 1, 255))
    q[np.isnan(p)] = 0
    return q.astype(np.uint8)


@pytest.mark.parametrize("scale", [0.1, 1, 5, 30, 1000])
def test_random_logits(scale):
    logits = np.random.default_rng(int(scale)).normal(0, scale, (37, 50, 60)).astype(np.float32)
    logits[::3, ::2] = np.nan
    found = quantised(logits)
    assert found.dtype == np.uint8
    assert found.shape == logits.shape
    np.testing.assert_array_equal(found, by_formula(logits))


def test_all_kinds_of_float32():
    bits = np.random.default_rng(1).integers(0, 2**32, 400_000, dtype=np.uint32)
    logits = bits.view(np.float32)
    logits = np.where(np.isnan(logits), np.float32(np.nan), logits)
    np.testing.assert_array_equal(quantised(logits), by_formula(logits))


def test_just_below_at_and_above_each_level():
    below, above = (np.nextafter(LEVELS, np.float32(end), dtype=np.float32) for end in (-np.inf, np.inf))
    np.testing.assert_array_equal(quantised(LEVELS), np.arange(1, 256))
    np.testing.assert_array_equal(quantised(below)[1:], np.arange(1, 255))
    for logits in (below, LEVELS, above):
        np.testing.assert_array_equal(quantised(logits), by_formula(logits))


def test_the_ends():
    ends = np.array([-np.inf, -1e38, -20, -17, -0.0, 0.0, 16.5, 17, 20, 1e38, np.inf, np.nan], np.float32)
    np.testing.assert_array_equal(quantised(ends), [1, 1, 1, 1, 128, 128, 254, 255, 255, 255, 255, 0])


def test_float32_arithmetic_of_others_agrees():
    logits = np.random.default_rng(2).normal(0, 8, 300_000).astype(np.float32)
    theirs = np.digitize(expit(logits), np.linspace(0, 1, 255))
    apart = np.abs(theirs - quantised(logits))
    # Another library's exp may be a rounding apart, which shows where a level lies in between.
    assert apart.max() <= 1
    assert np.count_nonzero(apart) < 30


def test_back_to_probabilities():
    q = np.arange(256, dtype=np.uint8).reshape(4, 8, 8)
    p = probability(q)
    assert p.dtype == np.float32
    assert np.isnan(p[0, 0, 0])
    np.testing.assert_array_equal(p.ravel()[1:], ((np.arange(1, 256) - 0.5) / 255).astype(np.float32))
    np.testing.assert_array_equal(p.ravel()[1:], ((np.arange(1, 256) - 0.5) * (1.0 / 255)).astype(np.float32))


def test_there_and_back_is_at_most_one_and_a_half_steps_away():
    # Levels are 1/254 apart, what they stand for 1/255: near 1 the two have drifted apart by a step.
    logits = np.random.default_rng(3).normal(0, 3, 10_000).astype(np.float32)
    assert np.abs(probability(quantised(logits)) - expit(logits)).max() < 1.5 / 254


def test_views_and_nothing():
    logits = np.random.default_rng(4).normal(size=(9, 10, 11)).astype(np.float32)
    np.testing.assert_array_equal(quantised(logits[::2, :, ::-3]), by_formula(logits)[::2, :, ::-3])
    assert quantised(np.empty((0, 3), np.float32)).shape == (0, 3)
    assert probability(np.empty((2, 0), np.uint8)).shape == (2, 0)


@pytest.mark.parametrize("function", [quantised, probability])
def test_temporaries_do_not_grow_with_the_volume(function):
    values = np.zeros(40 * SLAB, np.float32 if function is quantised else np.uint8)
    tracemalloc.start()
    result = function(values)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak - result.nbytes < 40 * SLAB
