"""Elastic deformation of the image."""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.interpolate import make_interp_spline


def warp(
    image: NDArray[np.float32], random: np.random.Generator, spacing: float, displacement: float
) -> NDArray[np.float32]:
    """The image (float32 zyx), each section bent within its plane; the bend changes smoothly from section to section.

    Control points about `spacing` voxels apart are moved along y and x by normally distributed distances with a
    standard deviation of `displacement` voxels; between them the field is a cubic spline, and grey values are
    interpolated linearly. Voxels from beyond the border are mirrored.
    """
    weights = [_spline_weights(size, spacing) for size in image.shape]
    moves = random.normal(0, displacement, (2, *(part.shape[1] for part in weights))).astype(np.float32)
    field = np.einsum("cijk,xk->cijx", moves, weights[2])
    field = np.einsum("cijx,yj->ciyx", field, weights[1])
    field = np.einsum("ciyx,zi->czyx", field, weights[0])
    field[0] += np.arange(image.shape[1], dtype=np.float32)[:, None]
    field[1] += np.arange(image.shape[2], dtype=np.float32)
    warped = np.empty_like(image)
    for section, places, result in zip(image, field.swapaxes(0, 1), warped, strict=True):
        ndimage.map_coordinates(section, places, result, order=1, mode="reflect")
    return warped


@lru_cache(maxsize=64)
def _spline_weights(size: int, spacing: float) -> NDArray[np.float32]:
    """float32 [size, control points]: what each control point along an axis contributes to each voxel."""
    count = max(round((size - 1) / spacing), 1) + 1
    points = np.linspace(0, size - 1, count)
    spline = make_interp_spline(points, np.eye(count), k=min(3, count - 1))
    return np.asarray(spline(np.arange(size)), np.float32)
