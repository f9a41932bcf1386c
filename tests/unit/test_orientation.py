"""Ways to turn a volume."""

import numpy as np
import pytest

from ffn.config import Network
from ffn.model.orientation import Orientation, equal_axes

SHAPE = (3, 4, 5)


@pytest.mark.parametrize(("axes", "count"), [("zyx", 48), ("yx", 16), ("", 8)])
def test_list_of_all_orientations(axes, count):
    listed = Orientation.listed(axes)
    assert listed[0] == Orientation((0, 1, 2), ())
    assert len({(o.order, o.mirrored) for o in listed}) == len(listed) == count
    assert listed == Orientation.listed(axes)
    if axes == "yx":
        assert {o.order[0] for o in listed} == {0}


@pytest.mark.parametrize("orientation", Orientation.listed("zyx"), ids=str)
def test_arrays_and_positions_turn_alike_and_back(orientation):
    volume = np.arange(60).reshape(SHAPE)
    seen = orientation.apply(volume)
    assert seen.shape == orientation.reordered(SHAPE)
    np.testing.assert_array_equal(orientation.undo(seen), volume)
    points = np.argwhere(volume % 7 == 3)
    moved = orientation.positions(points, SHAPE)
    np.testing.assert_array_equal(seen[tuple(moved.T)], volume[tuple(points.T)])
    np.testing.assert_array_equal(orientation.positions_before(moved, SHAPE), points)


def test_axes_that_may_be_swapped_follow_from_voxels_and_network():
    network = Network(fov=(9, 9, 9), deltas=(2, 2, 2))
    assert equal_axes(network, (10.0, 10.0, 10.0)) == ["z", "y", "x"]
    assert equal_axes(network, (30.0, 10.0, 10.0)) == ["y", "x"]
    assert equal_axes(network, None) == ["y", "x"]
    assert equal_axes(network, (30.0, 20.0, 10.0)) == []
    assert equal_axes(Network(fov=(9, 9, 7), deltas=(2, 2, 2)), (10.0, 10.0, 10.0)) == ["z", "y"]
    assert equal_axes(Network(fov=(9, 9, 9), deltas=(1, 2, 2)), (10.0, 10.0, 10.0)) == ["y", "x"]
