"""The part of a volume that training reads from, held in memory where it fits."""

from typing import Any

import numpy as np

from ffn.errors import GeometryError
from ffn.geometry import ZYX, Box
from ffn.volumes import Volume

CACHE_BYTES = 2**30
_SLAB = 32


class TrainingRegion:
    """Random small boxes out of a volume: from memory up to `CACHE_BYTES`, beyond that read when asked for.

    Labels below 2^32 are held as uint32, which halves the memory that ground truth takes.
    """

    def __init__(self, volume: Volume, cache_bytes: int = CACHE_BYTES) -> None:
        self.shape: ZYX = volume.shape
        self._volume = volume
        self.voxel_size = volume.voxel_size
        self._cache = _read_all(volume, cache_bytes)

    @property
    def held_bytes(self) -> int:
        """Memory that the region takes."""
        return 0 if self._cache is None else self._cache.nbytes

    def read(self, box: Box) -> np.ndarray[Any, Any]:
        """Voxels of `box`, counted from the start of the region; do not write to the result."""
        return self._volume.read(box) if self._cache is None else self._cache[box.slices]

    def read_padded(self, box: Box) -> np.ndarray[Any, Any]:
        """As `read`, with the voxels of the border again and again where `box` sticks out of the region."""
        inside = box.intersection(Box.of_shape(self.shape))
        if inside is None:
            raise GeometryError(f"Box {box} lies wholly outside a region of {self.shape} voxels (zyx).")
        if inside == box:
            return self.read(box)
        before = [a - b for a, b in zip(inside.start, box.start, strict=True)]
        after = [b - a for a, b in zip(inside.stop, box.stop, strict=True)]
        return np.pad(self.read(inside), list(zip(before, after, strict=True)), mode="edge")


def _read_all(volume: Volume, cache_bytes: int) -> np.ndarray[Any, Any] | None:
    wide = volume.dtype.kind in "iu" and volume.dtype.itemsize == 8
    dtype = np.dtype(np.uint32) if wide else volume.dtype
    depth, height, width = volume.shape
    if depth * height * width * dtype.itemsize > cache_bytes:
        return None
    cache = np.empty(volume.shape, dtype)
    for start in range(0, depth, _SLAB):
        stop = min(start + _SLAB, depth)
        slab = volume.read(Box((start, 0, 0), (stop, height, width)))
        if wide and slab.size and (slab.min() < 0 or slab.max() >= 2**32):
            return None
        cache[start:stop] = slab
    return cache
