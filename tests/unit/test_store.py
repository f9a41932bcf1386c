"""Stores of images, masks and labels: types, metadata, and voxels that were never written."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zarr

from ffn.blockwise import Grid
from ffn.errors import GeometryError, StageError
from ffn.geometry import Box
from ffn.volumes import open_image, open_volume
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


TYPES = ["uint8", "uint16", "float32", "bool", "uint32", "uint64"]


def values_of(dtype: str) -> np.ndarray:
    """Voxels over the whole range of the type, and the first shard with nothing but zeros."""
    rng = np.random.default_rng(3)
    if dtype == "float32":
        values = rng.random((20, 21, 22), np.float32)
    else:
        most = 1 if dtype == "bool" else np.iinfo(dtype).max
        values = rng.integers(0, most, (20, 21, 22), np.uint64, endpoint=True).astype(dtype)
    values[:8, :8, :8] = 0
    return values


def stored(path: Path, values: np.ndarray, fill: int = 0) -> Store:
    layout = StoreLayout(values.shape, values.dtype.name, (4, 4, 4), (8, 8, 8), (12.0, 4.5, 4.5), (7, 0, 100), fill)
    store = Store(path, layout).created()
    for box in Grid(Box.of_shape(values.shape), layout.shard):
        store.write_shard(box, values[box.slices])
    return store


@pytest.mark.parametrize("dtype", TYPES)
def test_images_masks_and_labels_come_back_as_they_are(tmp_path, dtype):
    values = values_of(dtype)
    store = stored(tmp_path / "volume.zarr", values)
    assert not store.shard_path(Box((0, 0, 0), (8, 8, 8))).exists()
    for uri in (store.uri, str(store.path)):
        with open_volume(uri) as volume:
            assert (volume.dtype, volume.shape) == (values.dtype, values.shape)
            assert (volume.voxel_size, volume.offset) == ((12.0, 4.5, 4.5), (7, 0, 100))
            np.testing.assert_array_equal(volume[...], values)
            np.testing.assert_array_equal(volume[5:9, 7:20, 3], values[5:9, 7:20, 3])
    # Programs that know nothing of this one read the same.
    array = zarr.open_array(store.uri, mode="r")
    assert array.dtype == values.dtype
    np.testing.assert_array_equal(array[...], values)
    # A second process finds the store that it would make.
    stored(tmp_path / "volume.zarr", values)


@pytest.mark.parametrize("dtype", TYPES)
def test_metadata_are_those_of_ome_ngff(tmp_path, dtype):
    store = stored(tmp_path / "volume.zarr", values_of(dtype))
    group = json.loads((store.path / "zarr.json").read_text())
    assert (group["zarr_format"], group["node_type"]) == (3, "group")
    assert group["attributes"]["ome"] == {
        "version": "0.5",
        "multiscales": [
            {
                "name": "volume",
                "axes": [{"name": axis, "type": "space", "unit": "nanometer"} for axis in "zyx"],
                "datasets": [
                    {
                        "path": "0",
                        "coordinateTransformations": [
                            {"type": "scale", "scale": [12.0, 4.5, 4.5]},
                            {"type": "translation", "translation": [84.0, 0.0, 450.0]},
                        ],
                    }
                ],
            }
        ],
    }
    array = json.loads((store.path / "0/zarr.json").read_text())
    assert array["dimension_names"] == ["z", "y", "x"]
    assert array["data_type"] == dtype
    assert isinstance(array["fill_value"], bool) == (dtype == "bool")
    assert array["attributes"] == {"offset_zyx": [7, 0, 100], "voxel_size_nm": [12.0, 4.5, 4.5]}


def test_a_mask_that_is_true_where_nothing_was_written(tmp_path):
    values = np.ones((20, 21, 22), np.bool_)
    values[10, 10, 10] = False
    store = stored(tmp_path / "mask.zarr", values, fill=1)
    assert len([path for path in (store.path / "0/c").rglob("*") if path.is_file()]) == 1
    np.testing.assert_array_equal(open_volume(store.uri)[...], values)


def test_floats_that_are_no_numbers_come_back(tmp_path):
    values = np.zeros((20, 21, 22), np.float32)
    values[0, 0, :4] = [np.nan, np.inf, -np.inf, 1e-40]
    np.testing.assert_array_equal(open_volume(stored(tmp_path / "image.zarr", values).uri)[...], values)


@pytest.mark.parametrize(
    ("dtype", "grey"),
    [("uint8", lambda v: v), ("uint16", lambda v: v >> 8), ("bool", lambda v: v * 255), ("float32", lambda v: v * 255)],
)
def test_images_are_read_as_grey_values(tmp_path, dtype, grey):
    values = values_of(dtype)
    image = open_image(stored(tmp_path / "image.zarr", values).uri)
    assert (image.dtype, image.offset) == (np.uint8, (7, 0, 100))
    np.testing.assert_array_equal(image[...], np.rint(grey(values)).astype(np.uint8))


def test_values_of_another_type_are_refused(tmp_path):
    store = Store(tmp_path / "classes.zarr", LAYOUT).created()
    box = Box((0, 0, 0), (8, 8, 8))
    with pytest.raises(GeometryError, match="takes uint8, not bool"):
        store.write_shard(box, np.ones(box.shape, np.bool_))


def test_a_store_of_another_type_is_refused(tmp_path):
    stored(tmp_path / "volume.zarr", values_of("uint8"))
    with pytest.raises(StageError, match="another layout than bool"):
        stored(tmp_path / "volume.zarr", values_of("bool"))
