"""Smooth random fields over a volume."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ffn.geometry import ZYX

VoxelSize = tuple[float, float, float]


def smooth_field(
    random: np.random.Generator, shape: ZYX, voxel_size: VoxelSize, scale_nm: float
) -> NDArray[np.float32]:
    """A cubic-spline field over random values `scale_nm` apart: mean about 0, standard deviation 1, float32 zyx."""
    extents = [size * step / scale_nm for size, step in zip(shape, voxel_size, strict=True)]
    field = random.standard_normal([int(np.ceil(extent)) + 3 for extent in extents]).astype(np.float32)
    for axis, (size, step) in enumerate(zip(shape, voxel_size, strict=True)):
        positions = (np.arange(size) + 0.5) * step / scale_nm
        knots = np.arange(field.shape[axis]) - 1
        weights = _cubic_spline(positions[:, None] - knots).astype(np.float32)
        field = np.moveaxis(np.tensordot(weights, field, axes=(1, axis)), 0, axis)
    # One value of the spline mixes about 4 knots an axis; 0.4794 is the root mean square of its weights.
    return np.ascontiguousarray(field / np.float32(_SPLINE_RMS**3))


def fine_noise(random: np.random.Generator, shape: ZYX, sigma: tuple[float, float, float]) -> NDArray[np.float32]:
    """Gaussian noise blurred by `sigma` voxels (zyx): mean 0, standard deviation 1, float32 zyx."""
    noise = ndimage.gaussian_filter(random.standard_normal(shape, np.float32), sigma, mode="wrap")
    noise -= noise.mean()
    noise /= noise.std()
    return noise


def _cubic_spline(distance: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    near = np.abs(distance)
    inner = 2 / 3 - near**2 + near**3 / 2
    outer = np.clip(2 - near, 0, None) ** 3 / 6
    return np.where(near < 1, inner, outer)


def _mean_square_of_weights() -> float:
    at = np.linspace(0, 1, 1001)
    return float(np.mean([np.square(_cubic_spline(at - knot)) for knot in range(-1, 3)]) * 4)


_SPLINE_RMS = _mean_square_of_weights() ** 0.5
