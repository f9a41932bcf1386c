"""Volumes pooled as they are read."""

import h5py
import numpy as np
import pytest

from ffn.geometry import Box
from ffn.volumes import coarse_shape, coarsen, open_volume, pool, refine


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


def test_factors_of_one_change_nothing(volume):
    assert coarsen(volume[1], (1, 1, 1), labels=False) is volume[1]


def test_labels_take_the_most_frequent():
    labels = np.array([[[7, 7, 2, 3], [7, 9, 3, 3]]], np.uint64)
    np.testing.assert_array_equal(pool(labels, (1, 2, 2), labels=True), [[[7, 3]]])
    tie = np.array([[[5, 4], [4, 5]]], np.uint64)
    assert pool(tie, (1, 2, 2), labels=True).item() == 5


def test_refine_undoes_coarsen():
    labels = np.arange(1, 28, dtype=np.uint64).reshape(3, 3, 3)
    fine = refine(labels, (2, 2, 2), (5, 6, 6))
    assert fine.shape == (5, 6, 6)
    np.testing.assert_array_equal(fine[::2, ::2, ::2], labels)
    assert fine[4, 5, 5] == labels[2, 2, 2]
