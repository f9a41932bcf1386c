"""Conversions to the workflow's two types, and whether volumes fit each other."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from ffn.errors import DataError, GeometryError, VolumeError
from ffn.geometry import Box
from ffn.volumes import (
    Volume,
    check_fov,
    check_labels_not_empty,
    check_pair,
    open_image,
    open_labels,
    open_volume,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def stored(folder: Path, values: np.ndarray, name: str = "a") -> str:
    with h5py.File(folder / f"{name}.h5", "w") as file:
        file["raw"] = values.reshape(-1, 1, 1) if values.ndim == 1 else values
    return f"{folder}/{name}.h5:raw"


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([0, 7, 255], np.uint8), [0, 7, 255]),
        (np.array([False, True]), [0, 255]),
        (np.array([0, 255, 256, 65535], np.uint16), [0, 0, 1, 255]),
        (np.array([0, 2**24, 2**32 - 1], np.uint32), [0, 1, 255]),
        (np.array([0.0, 0.5, 1.0], np.float32), [0, 128, 255]),
    ],
)
def test_images_become_uint8(folder: Path, values: np.ndarray, expected: list[int]) -> None:
    image = open_image(stored(folder, values))
    assert image.dtype == np.uint8
    assert image[:, 0, 0].tolist() == expected


def test_images_that_have_no_grey_values(folder: Path) -> None:
    with pytest.raises(VolumeError, match="int16, which has negative values"):
        open_image(stored(folder, np.zeros(3, np.int16)))
    for name, bad in {"wide": [0.0, 255.0], "below": [-0.1, 0.5], "nan": [np.nan, 0.5]}.items():
        image = open_image(stored(folder, np.array(bad), name))
        with pytest.raises(VolumeError, match="must lie between 0 and 1"):
            image[...]


def test_labels_become_uint64(folder: Path) -> None:
    labels = open_labels(stored(folder, np.array([0, 5, 2**31 - 1], np.int32)))
    assert labels.dtype == np.uint64
    assert labels[:, 0, 0].tolist() == [0, 5, 2**31 - 1]
    huge = np.array([2**64 - 1], np.uint64)
    assert open_labels(stored(folder, huge, "huge"))[0, 0, 0] == 2**64 - 1
    with pytest.raises(VolumeError, match="labels must be whole numbers"):
        open_labels(stored(folder, np.array([0.5]), "floats"))
    negative = open_labels(stored(folder, np.array([3, -2]), "negative"))
    assert negative[0, 0, 0] == 3
    with pytest.raises(VolumeError, match="negative label -2"):
        negative[...]


def volume(folder: Path, shape: tuple[int, ...], name: str) -> Volume:
    return open_volume(stored(folder, np.zeros(shape, np.uint8), name))


def test_pairs_must_have_one_shape(folder: Path) -> None:
    image = volume(folder, (4, 5, 6), "image")
    check_pair(image, volume(folder, (4, 5, 6), "same"))
    with pytest.raises(VolumeError, match=r"image\.h5:raw has \(4, 5, 6\), .*other\.h5:raw has \(4, 6, 5\)"):
        check_pair(image, volume(folder, (4, 6, 5), "other"))


def test_the_field_of_view_must_fit() -> None:
    check_fov((33, 33, 33), (33, 33, 33))
    with pytest.raises(GeometryError, match=r"field of view \(33 voxels along y\) is larger than the volume \(32\)"):
        check_fov((33, 32, 33), (33, 33, 33))


def test_labels_must_not_be_empty(folder: Path) -> None:
    values = np.zeros((70, 4, 300), np.uint8)
    values[69, 3, 299] = 1
    uri = stored(folder, values)
    check_labels_not_empty(open_labels(uri))
    with pytest.raises(DataError, match=r"no labelled voxel in \[2:69,0:4,0:300\]"):
        check_labels_not_empty(open_labels(uri, box=Box((2, 0, 0), (69, 4, 300))))
