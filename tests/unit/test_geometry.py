"""Boxes."""

import numpy as np

from ffn.geometry import Box


def test_a_widened_box_ends_where_the_limits_do():
    rng, limits = np.random.default_rng(0), Box((2, 3, 4), (30, 31, 32))
    for _ in range(50):
        start = rng.integers(limits.start, np.array(limits.stop) - 1)
        stop = rng.integers(start + 1, np.array(limits.stop) + 1)
        rim = rng.integers(0, 12, 3)
        wide = Box(tuple(start.tolist()), tuple(stop.tolist())).widened(rim.tolist(), limits)
        np.testing.assert_array_equal(wide.start, np.maximum(start - rim, limits.start))
        np.testing.assert_array_equal(wide.stop, np.minimum(stop + rim, limits.stop))
        assert limits.contains(wide)
