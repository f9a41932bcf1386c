"""Training centres away from the boundaries of their object."""

import numpy as np
from scipy.spatial.distance import cdist

from ffn.prepare.centres import Centres
from ffn.prepare.partitions import IGNORED


def test_equals_the_distance_to_every_other_label():
    random = np.random.default_rng(5)
    labels = np.kron(random.integers(0, 4, (3, 3, 3)), np.ones((4, 3, 4), int)).astype(np.uint64)
    classes = random.integers(0, 14, labels.shape).astype(np.uint8)
    voxel_size = (30.0, 10.0, 10.0)
    points = np.argwhere(np.ones(labels.shape, bool)) * np.array(voxel_size)
    distances = cdist(points, points)
    distances[labels.ravel()[:, None] == labels.ravel()] = np.inf
    expected = np.where((distances.min(1) <= 21.0).reshape(labels.shape), IGNORED, classes)

    interior = Centres(classes, labels, 21.0, voxel_size, zero_is_unknown=False)
    np.testing.assert_array_equal(interior[0:12, 0:9, 0:12], expected)
    assert interior.left_out == {"near_boundary": np.count_nonzero(expected != classes)}
    # The same voxels, whichever slab they are read in.
    np.testing.assert_array_equal(interior[5:7, 2:6, 3:9], expected[5:7, 2:6, 3:9])
    assert (expected != classes).any()
    assert (expected == classes).any()


def test_no_distance_leaves_out_nothing():
    labels = np.arange(27, dtype=np.uint64).reshape(3, 3, 3)
    classes = np.ones((3, 3, 3), np.uint8)
    centres = Centres(classes, labels, 0.0, (10.0, 10.0, 10.0), zero_is_unknown=False)
    assert (centres[0:3, 0:3, 0:3] == 1).all()
    assert not centres.left_out


def test_unlabelled_voxels_are_counted_before_those_near_a_boundary():
    labels = np.zeros((1, 1, 9), np.uint64)
    labels[..., 2:] = 4
    classes = np.where(np.arange(9) == 1, IGNORED, np.arange(9) // 2).astype(np.uint8).reshape(labels.shape)
    centres = Centres(classes, labels, 10.0, (10.0, 10.0, 10.0), zero_is_unknown=True)
    assert centres[0:1, 0:1, 0:9].tolist() == [[[255, 255, 255, 1, 2, 2, 3, 3, 4]]]
    assert centres.left_out == {"unlabelled": 1, "near_boundary": 1}
