"""Soft labels."""

import numpy as np

from ffn.prepare.labels import soft_labels


def test_object_of_the_centre_voxel():
    labels = np.full((5, 5, 7), 4, np.uint64)
    labels[2, 2, 3:] = 2**40
    labels[0] = 0
    soft = soft_labels(labels, zero_is_unknown=False)
    assert soft.dtype == np.float32
    np.testing.assert_array_equal(soft, np.where(labels == 2**40, np.float32(0.95), np.float32(0.05)))


def test_a_centre_without_object_teaches_to_fill_nothing():
    labels = np.full((3, 3, 3), 6, np.uint32)
    labels[1, 1, 1] = 0
    assert (soft_labels(labels, zero_is_unknown=False) == np.float32(0.05)).all()


def test_all_one_object():
    assert (soft_labels(np.ones((3, 3, 3), np.int64), zero_is_unknown=True) == np.float32(0.95)).all()


def test_nothing_is_said_where_the_label_is_unknown():
    labels = np.full((3, 3, 3), 6, np.uint32)
    labels[0], labels[2, 2] = 0, 7
    soft = soft_labels(labels, zero_is_unknown=True)
    np.testing.assert_array_equal(soft, np.where(labels == 0, -1, np.where(labels == 6, 0.95, 0.05)).astype(np.float32))
