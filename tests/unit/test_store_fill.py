"""A store whose voxels are not 0 where nothing was written."""

from dataclasses import replace

import numpy as np
import pytest

from ffn.errors import StageError
from ffn.geometry import Box
from ffn.volumes import open_volume
from ffn.volumes.store import Store, StoreLayout

LAYOUT = StoreLayout((10, 10, 10), "uint8", (4, 4, 4), (8, 8, 8), (8.0, 8.0, 8.0), fill=255)


def test_voxels_that_are_not_stored_have_the_fill_value(tmp_path):
    store = Store(tmp_path / "classes.zarr", LAYOUT)
    store.created()
    untouched, zeros = Box((0, 0, 0), (8, 8, 8)), Box((8, 0, 0), (10, 8, 8))
    assert store.write_shard(untouched, np.full(untouched.shape, 255, np.uint8)) == 0
    assert not store.shard_path(untouched).exists()
    assert store.write_shard(zeros, np.zeros(zeros.shape, np.uint8)) > 0
    expected = np.full(LAYOUT.shape, 255, np.uint8)
    expected[zeros.slices] = 0
    np.testing.assert_array_equal(open_volume(str(store.path))[...], expected)


def test_a_store_with_another_fill_value_is_refused(tmp_path):
    Store(tmp_path / "classes.zarr", LAYOUT).created()
    with pytest.raises(StageError, match="another layout"):
        Store(tmp_path / "classes.zarr", replace(LAYOUT, fill=0)).created()
