"""From the types found in files to the two the workflow computes with: uint8 images, uint64 labels."""

from collections.abc import Callable
from typing import Any

import numpy as np

from ffn.errors import VolumeError
from ffn.geometry import Box
from ffn.volumes.base import Volume


def as_uint8(image: Volume) -> Volume:
    """The image with grey values 0 to 255, converted as it is read.

    uint8 stays as it is. Wider unsigned types are cut to their highest 8 bits (uint16: value // 256), booleans
    become 0 and 255, floats must lie in 0 to 1 and are multiplied by 255 and rounded. The same voxel becomes the same
    value whichever block is read. Raises VolumeError for other types, and on reading for floats outside 0 to 1.
    """
    if image.dtype == np.uint8:
        return image
    kind = image.dtype.kind
    if kind == "b":
        return ConvertedVolume(image, np.uint8, lambda values: values.astype(np.uint8) * np.uint8(255))
    if kind == "u":
        shift = 8 * (image.dtype.itemsize - 1)
        return ConvertedVolume(image, np.uint8, lambda values: (values >> shift).astype(np.uint8))
    if kind == "f":
        return ConvertedVolume(image, np.uint8, lambda values: _from_unit(image.uri, values))
    raise VolumeError(
        f"{image.uri} holds {image.dtype}, which has negative values; an image must be an unsigned type, "
        "or floats from 0 to 1."
    )


def _from_unit(uri: str, values: np.ndarray) -> np.ndarray:
    # Written so that NaN fails too.
    if not np.all((values >= 0) & (values <= 1)):
        found = f"{float(np.min(values)):g} to {float(np.max(values)):g}"
        raise VolumeError(f"{uri} holds floats from {found}; an image of floats must lie between 0 and 1.")
    return np.rint(values * 255).astype(np.uint8)


def as_labels(labels: Volume) -> Volume:
    """The labels as uint64, converted as they are read.

    Raises VolumeError for floats, and on reading for negative labels.
    """
    if labels.dtype == np.uint64:
        return labels
    if labels.dtype.kind == "f":
        raise VolumeError(f"{labels.uri} holds {labels.dtype}; labels must be whole numbers. Is it an image?")
    return ConvertedVolume(labels, np.uint64, lambda values: _from_whole(labels.uri, values))


def _from_whole(uri: str, values: np.ndarray) -> np.ndarray:
    if values.dtype.kind == "i" and np.any(values < 0):
        raise VolumeError(f"{uri} holds the negative label {int(values.min())}; labels start at 0 (unknown).")
    return values.astype(np.uint64)


class ConvertedVolume(Volume):
    """Another volume or view, each block passed through a function of its values."""

    def __init__(self, inner: Volume, dtype: Any, convert: Callable[[np.ndarray], np.ndarray]) -> None:
        super().__init__(inner.uri, inner.shape, dtype, inner.voxel_size, inner.chunk)
        self.bounds, self.offset = inner.bounds, inner.offset
        self._inner = inner
        self._convert = convert

    def _read(self, box: Box) -> np.ndarray:
        return self._convert(self._inner.read(box.relative_to(self._inner.bounds.start)))

    def close(self) -> None:
        self._inner.close()
