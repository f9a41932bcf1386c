"""A volume at a lower resolution, pooled as it is read."""

from itertools import product

import numpy as np

from ffn.geometry import ZYX, Box
from ffn.volumes.base import Volume, VoxelSize
from ffn.volumes.pooling import pool


def coarsen(volume: Volume, factors: ZYX, *, labels: bool, phase: ZYX = (0, 0, 0)) -> Volume:
    """The volume with `factors` (zyx) of its voxels pooled into one, counted from the corner of the view.

    Images are averaged, labels take the most frequent (see `pool`). With a `phase` (zyx, below the factors) the first
    voxel begins that many voxels before the corner. The first and the last voxel of an axis may cover fewer. Factors of
    one return the volume itself.
    """
    return volume if tuple(factors) == (1, 1, 1) else CoarseVolume(volume, factors, labels, phase)


def coarse_shape(shape: ZYX, factors: ZYX, phase: ZYX = (0, 0, 0)) -> ZYX:
    """Shape of a volume of `shape` after `coarsen`."""
    z, y, x = (-(-(n + p) // f) for n, f, p in zip(shape, factors, phase, strict=True))
    return z, y, x


def coarse_voxel_size(voxel_size: VoxelSize | None, factors: ZYX) -> VoxelSize | None:
    """Voxel size of a volume of this one after `coarsen`; None = unknown, as before."""
    if voxel_size is None:
        return None
    z, y, x = (v * f for v, f in zip(voxel_size, factors, strict=True))
    return z, y, x


def phases(factors: ZYX) -> list[ZYX]:
    """All phases of `coarsen`: none at all, the one opposite to it, and so on in pairs."""
    listed = product(*map(range, factors))
    pairs = [(phase, tuple(f - 1 - p for f, p in zip(factors, phase, strict=True))) for phase in listed]
    return [(z, y, x) for z, y, x in dict.fromkeys(phase for pair in pairs for phase in pair)]


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

    def __init__(self, inner: Volume, factors: ZYX, labels: bool, phase: ZYX = (0, 0, 0)) -> None:
        voxel_size = coarse_voxel_size(inner.voxel_size, factors)
        super().__init__(inner.uri, coarse_shape(inner.shape, factors, phase), inner.dtype, voxel_size, None)
        self._inner, self._factors, self._labels, self._phase = inner, factors, labels, phase

    def _read(self, box: Box) -> np.ndarray:
        start = [a * f - p for a, f, p in zip(box.start, self._factors, self._phase, strict=True)]
        stop = [b * f - p for b, f, p in zip(box.stop, self._factors, self._phase, strict=True)]
        first = [max(a, 0) for a in start]
        last = [min(b, n) for b, n in zip(stop, self._inner.shape, strict=True)]
        values = self._inner.read(Box((first[0], first[1], first[2]), (last[0], last[1], last[2])))
        # Repeating the outermost voxel weighs a missing neighbour like the one that is there.
        missing = [(a - s, e - b) for s, a, b, e in zip(start, first, last, stop, strict=True)]
        return pool(np.pad(values, missing, mode="edge"), self._factors, self._labels)

    def close(self) -> None:
        self._inner.close()
