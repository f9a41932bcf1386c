"""Labels in image voxels from maps in network voxels."""

import numpy as np

from ffn.inference.fine import FineLabels
from ffn.model.logits import logit
from ffn.volumes import interpolate

HALF = logit(0.5)


def ball(shape, factors):
    """Part of each coarse voxel inside a ball, and the ball in fine voxels."""
    fine = [n * f for n, f in zip(shape, factors, strict=True)]
    grid = np.indices(fine) + 0.5
    radius = min(fine) / 3
    inside = sum((g - n / 2) ** 2 for g, n in zip(grid, fine, strict=True)) < radius**2
    (a, b, c), (z, y, x) = factors, shape
    return inside.reshape(z, a, y, b, x, c).mean(axis=(1, 3, 5)), inside


def test_a_boundary_runs_through_voxels():
    factors = (2, 2, 2)
    part, inside = ball((20, 20, 20), factors)
    fine = FineLabels(part.shape, factors, HALF)
    with np.errstate(divide="ignore"):
        fine.claim(7, (slice(0, 20),) * 3, np.log(part / (1 - part)).astype(np.float32))
    repeated = (part >= 0.5).repeat(2, 0).repeat(2, 1).repeat(2, 2)
    wrong = np.count_nonzero((fine.labels == 7) != inside)
    assert wrong < 0.5 * np.count_nonzero(repeated != inside)
    assert set(np.unique(fine.labels)) == {0, 7}


def test_the_first_object_keeps_its_voxels_and_nothing_is_claimed_where_nothing_was_predicted():
    fine = FineLabels((40, 6, 6), (1, 2, 3), HALF)
    box = (slice(2, 38), slice(1, 5), slice(0, 6))
    logits = np.full((36, 4, 6), 3, np.float32)
    logits[30:] = np.nan
    fine.claim(1, box, logits)
    fine.claim(2, (slice(0, 40), slice(0, 6), slice(0, 6)), np.full((40, 6, 6), 3, np.float32))
    expected = np.full((40, 12, 18), 2, np.uint32)
    expected[2:32, 2:10] = 1
    np.testing.assert_array_equal(fine.labels, expected)


def test_slabs_leave_no_trace():
    logits = np.random.default_rng(1).normal(size=(70, 5, 5)).astype(np.float32)
    fine = FineLabels(logits.shape, (2, 1, 1), logit(0.6))
    fine.claim(1, (slice(0, 70), slice(0, 5), slice(0, 5)), logits)
    whole = interpolate((1 / (1 + np.exp(-logits))).astype(np.float32), (2, 1, 1)) >= np.float32(0.6)
    assert np.count_nonzero((fine.labels == 1) != whole) <= 2  # equal but for the rounding of the threshold
