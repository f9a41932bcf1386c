"""Which boxes share voxels."""

import numpy as np
import pytest

from ffn.assembly.neighbours import BoxIndex
from ffn.geometry import Box, overlapping_tiles


def random_box(rng, most):
    start = rng.integers(-20, 60, 3)
    return Box(tuple(start.tolist()), tuple((start + rng.integers(1, most, 3)).tolist()))


@pytest.mark.parametrize("seed", range(5))
def test_like_comparing_with_all(seed):
    rng = np.random.default_rng(seed)
    boxes = [random_box(rng, 30) for _ in range(60)]
    index = BoxIndex(boxes)
    for _ in range(20):
        asked = random_box(rng, 80)
        expected = [number for number, box in enumerate(boxes) if box.intersection(asked) is not None]
        assert index.meeting(asked).tolist() == expected
    pairs = [(i, j, shared) for i in range(60) for j, shared in index.pairs_of(i)]
    together = ((i, j, boxes[i].intersection(boxes[j])) for i in range(60) for j in range(i + 1, 60))
    assert pairs == [(i, j, shared) for i, j, shared in together if shared is not None]


def test_as_many_looks_as_there_are_neighbours(monkeypatch):
    """Each of 30,000 tiles is compared with those around it: all pairs would be 450 million."""
    boxes = overlapping_tiles(Box((0, 0, 0), (200, 5000, 5000)), (100, 60, 60), (10, 10, 10))
    index = BoxIndex(boxes)
    compared = []
    intersection = Box.intersection
    monkeypatch.setattr(Box, "intersection", lambda *both: compared.append(1) or intersection(*both))
    pairs = sum(1 for number in range(len(boxes)) for _ in index.pairs_of(number))
    assert len(boxes) == 30_000
    assert 9 * len(boxes) < pairs == len(compared) < 18 * len(boxes)
