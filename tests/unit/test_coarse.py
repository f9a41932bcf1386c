"""Volumes pooled as they are read."""

import h5py
import numpy as np
import pytest

from ffn.geometry import Box
from ffn.volumes import coarse_shape, coarsen, interpolate, open_volume, phases, pool


@pytest.fixture
def volume(tmp_path):
    values = np.random.default_rng(1).integers(0, 255, (9, 10, 11), np.uint8)
    with h5py.File(tmp_path / "v.h5", "w") as file:
        file["image"] = values
        file["image"].attrs["voxel_size_nm"] = (30.0, 10.0, 10.0)
    return values, open_volume(f"{tmp_path}/v.h5:image")


def test_mean_of_the_voxels_that_exist(volume):
    values, opened = volume
    coarse = coarsen(opened, (1, 2, 2), labels=False)
    assert coarse.shape == coarse_shape((9, 10, 11), (1, 2, 2)) == (9, 5, 6)
    assert coarse.voxel_size == (30.0, 20.0, 20.0)
    assert coarse.dtype == np.uint8
    got = coarse[...]
    assert got[3, 2, 1] == int(values[3, 4:6, 2:4].mean() + 0.5)
    assert got[3, 2, 5] == int(values[3, 4:6, 10:11].mean() + 0.5)


def test_any_block_equals_the_whole(volume):
    coarse = coarsen(volume[1], (2, 2, 3), labels=False)
    box = Box((1, 2, 0), (5, 5, 4))
    np.testing.assert_array_equal(coarse.read(box), coarse[...][box.slices])
    np.testing.assert_array_equal(coarse.view(box)[...], coarse[...][box.slices])


@pytest.mark.parametrize("phase", phases((1, 2, 3)))
def test_counting_may_begin_before_the_corner(volume, phase):
    values, opened = volume
    coarse = coarsen(opened, (1, 2, 3), labels=False, phase=phase)
    before = [(p, -(n + p) % f) for p, n, f in zip(phase, (9, 10, 11), (1, 2, 3), strict=True)]
    expected = pool(np.pad(values, before, mode="edge"), (1, 2, 3), labels=False)
    assert coarse.shape == expected.shape == coarse_shape((9, 10, 11), (1, 2, 3), phase)
    np.testing.assert_array_equal(coarse[...], expected)
    box = Box((2, 0, 1), (7, 3, 4))
    np.testing.assert_array_equal(coarse.read(box), expected[box.slices])


def test_phases_come_in_opposite_pairs():
    assert phases((1, 1, 1)) == [(0, 0, 0)]
    assert phases((1, 2, 2)) == [(0, 0, 0), (0, 1, 1), (0, 0, 1), (0, 1, 0)]
    assert len(set(phases((2, 3, 2)))) == len(phases((2, 3, 2))) == 12


def test_factors_of_one_change_nothing(volume):
    assert coarsen(volume[1], (1, 1, 1), labels=False) is volume[1]


def test_labels_take_the_most_frequent():
    labels = np.array([[[7, 7, 2, 3], [7, 9, 3, 3]]], np.uint64)
    np.testing.assert_array_equal(pool(labels, (1, 2, 2), labels=True), [[[7, 3]]])
    tie = np.array([[[5, 4], [4, 5]]], np.uint64)
    assert pool(tie, (1, 2, 2), labels=True).item() == 5


def test_interpolation_is_linear_between_centres_and_constant_beyond():
    values = np.array([0.0, 8.0, 4.0], np.float32)
    for axis in range(3):
        shape = [1, 1, 1]
        shape[axis] = 3
        factors = [1, 1, 1]
        factors[axis] = 4
        fine = interpolate(values.reshape(shape), (factors[0], factors[1], factors[2]))
        np.testing.assert_allclose(fine.ravel(), [0, 0, 1, 3, 5, 7, 7.5, 6.5, 5.5, 4.5, 4, 4])
        assert fine.dtype == np.float32
    single = interpolate(np.full((1, 1, 1), 3, np.float32), (2, 1, 2))
    np.testing.assert_array_equal(single, np.full((2, 1, 2), 3))


def test_interpolation_keeps_means():
    values = np.random.default_rng(2).normal(size=(5, 6, 7))
    fine = interpolate(values, (2, 2, 2))
    inner = pool(fine, (2, 2, 2), labels=False)[1:-1, 1:-1, 1:-1]
    kernel = np.array([1, 6, 1]) / 8
    smooth = values
    for axis in range(3):
        smooth = np.apply_along_axis(np.convolve, axis, smooth, kernel, mode="valid")
    np.testing.assert_allclose(inner, smooth)
