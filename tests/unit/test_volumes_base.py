"""Slicing a volume is slicing an array."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ffn.errors import GeometryError, VolumeError
from ffn.geometry import Box
from ffn.volumes import Volume, as_labels

SHAPE = (4, 5, 6)
VALUES = np.arange(120, dtype=np.uint16).reshape(SHAPE)


class ArrayVolume(Volume):
    """An array that remembers which boxes were read."""

    def __init__(self, values: np.ndarray) -> None:
        super().__init__("memory", values.shape, values.dtype, (1.0, 2.0, 3.0), None)
        self.values = values
        self.asked: list[Box] = []

    def _read(self, box: Box) -> np.ndarray:
        self.asked.append(box)
        return self.values[box.slices]


def axis_keys(size: int) -> st.SearchStrategy[int | slice]:
    return st.integers(-size, size - 1) | st.slices(size)


KEYS = st.tuples(*(axis_keys(n) for n in SHAPE))


@given(KEYS, st.integers(1, 3))
def test_any_basic_index_gives_what_numpy_gives(key: tuple, given_axes: int) -> None:
    for index in (key, key[:given_axes], (..., *key[3 - given_axes :])):
        expected = VALUES[index]
        found = ArrayVolume(VALUES)[index]
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)


@given(KEYS)
def test_a_view_indexes_from_its_corner(key: tuple) -> None:
    box = Box((1, 2, 0), (4, 5, 6))
    whole = np.zeros((6, 8, 6), np.uint16)
    view = ArrayVolume(whole).view(Box((1, 2, 0), (5, 7, 6)))
    assert view.shape == SHAPE
    view.values[1:5, 2:7] = VALUES
    np.testing.assert_array_equal(view[key], VALUES[key])
    np.testing.assert_array_equal(view.view(box)[...], VALUES[box.slices])


def test_only_the_voxels_asked_for_are_read() -> None:
    volume = ArrayVolume(VALUES)
    assert volume[1, 2:4, -1].shape == (2,)
    assert volume[0:0].shape == (0, 5, 6)
    assert volume.asked == [Box((1, 2, 5), (2, 4, 6))]


def test_a_whole_volume_becomes_an_array() -> None:
    np.testing.assert_array_equal(np.asarray(ArrayVolume(VALUES)), VALUES)
    assert np.asarray(ArrayVolume(VALUES), dtype=np.float32).dtype == np.float32


@pytest.mark.parametrize("box", [Box((0, 0, 0), (5, 5, 6)), Box((0, 0, 3), (1, 1, 7)), Box((-1, 0, 0), (1, 1, 1))])
def test_boxes_outside_name_the_volume_and_its_size(box: Box) -> None:
    volume = ArrayVolume(VALUES)
    for refuse in (volume.view, volume.read):
        with pytest.raises(GeometryError, match=r"outside memory, which has 4 x 5 x 6 voxels"):
            refuse(box)
    with pytest.raises(GeometryError):
        volume.view(Box((0, 0, 0), (2, 2, 2))).read(Box((0, 0, 0), (3, 1, 1)))


@pytest.mark.parametrize("index", [4, -5, (0, 0, 0, 0), (..., ...), 1.5, None, True])
def test_impossible_indices_are_index_errors(index: object) -> None:
    with pytest.raises(IndexError):
        ArrayVolume(VALUES)[index]  # type: ignore[index]


@pytest.mark.parametrize(
    ("values", "text"),
    [
        (np.zeros((2, 3)), "has 2 dimensions"),
        (np.zeros((2, 3, 4, 5)), "has 4 dimensions"),
        (np.zeros((0, 3, 4)), "is empty"),
        (np.zeros((2, 3, 4), "S3"), "expected whole numbers or floats"),
        (np.zeros((2, 3, 4), complex), "expected whole numbers or floats"),
    ],
)
def test_what_is_no_volume_is_refused(values: np.ndarray, text: str) -> None:
    with pytest.raises(VolumeError, match=text):
        ArrayVolume(values)


def test_a_converted_view_keeps_its_place() -> None:
    box = Box((1, 1, 1), (3, 4, 5))
    labels = as_labels(ArrayVolume(VALUES).view(box))
    assert labels.bounds == box
    assert labels.dtype == np.uint64
    np.testing.assert_array_equal(labels[...], VALUES[box.slices])
    inner = Box((1, 0, 2), (2, 2, 4))
    np.testing.assert_array_equal(labels.view(inner)[...], VALUES[box.slices][inner.slices])
