"""A volume at a lower resolution, pooled as it is read."""

import numpy as np

from ffn.geometry import ZYX, Box
from ffn.volumes.base import Volume
from ffn.volumes.pooling import pool


def coarsen(volume: Volume, factors: ZYX, *, labels: bool) -> Volume:
    """The volume with `factors` (zyx) of its voxels pooled into one, counted from the corner of the view.

    Images are averaged, labels take the most frequent (see `pool`). The last voxel of an axis may cover fewer.
    Factors of one return the volume itself.
    """
    return volume if tuple(factors) == (1, 1, 1) else CoarseVolume(volume, factors, labels)


def coarse_shape(shape: ZYX, factors: ZYX) -> ZYX:
    """Shape of a volume of `shape` after `coarsen`."""
    z, y, x = (-(-n // f) for n, f in zip(shape, factors, strict=True))
    return z, y, x


def interpolate(values: np.ndarray, factors: ZYX) -> np.ndarray:
    """Values [z, y, x] of coarse voxels at the centres of the `factors` (zyx) voxels that make each up.

    Linear between the centres of the coarse voxels; constant between the outermost of them and the border.
    """
    for axis, factor in enumerate(factors):
        if factor == 1:
            continue
        last = values.shape[axis] - 1
        places = ((np.arange((last + 1) * factor) + 0.5) / factor - 0.5).clip(0, last)
        before = np.minimum(places.astype(np.int64), max(last - 1, 0))
        weight = (places - before).astype(values.dtype).reshape([-1 if a == axis else 1 for a in range(3)])
        left, right = values.take(before, axis), values.take(np.minimum(before + 1, last), axis)
        values = left + weight * (right - left)
    return values


class CoarseVolume(Volume):
    """Another volume or view, pooled block by block."""

    def __init__(self, inner: Volume, factors: ZYX, labels: bool) -> None:
        voxel_size = None
        if inner.voxel_size is not None:
            z, y, x = (v * f for v, f in zip(inner.voxel_size, factors, strict=True))
            voxel_size = (z, y, x)
        super().__init__(inner.uri, coarse_shape(inner.shape, factors), inner.dtype, voxel_size, None)
        self._inner, self._factors, self._labels = inner, factors, labels

    def _read(self, box: Box) -> np.ndarray:
        start = [a * f for a, f in zip(box.start, self._factors, strict=True)]
        stop = [b * f for b, f in zip(box.stop, self._factors, strict=True)]
        inside = [min(b, n) for b, n in zip(stop, self._inner.shape, strict=True)]
        values = self._inner.read(Box((start[0], start[1], start[2]), (inside[0], inside[1], inside[2])))
        # Repeating the last voxel weighs a missing neighbour like the one that is there.
        missing = [(0, b - i) for b, i in zip(stop, inside, strict=True)]
        return pool(np.pad(values, missing, mode="edge"), self._factors, self._labels)

    def close(self) -> None:
        self._inner.close()
