"""Policies that look for no maxima: all voxels, all bright ones, or a grid."""

import numpy as np
from scipy import ndimage

from ffn.config.seeds import PolicyDenseSeeds, PolicyGrid2d, PolicyGrid3d, PolicyMax
from ffn.inference.seeds.view import Seeds, SeedView


def brightest_first(view: SeedView, _: PolicyMax) -> Seeds:
    """Every voxel around which a field of view fits, by descending value; equal ones in z, y, x order."""
    margin = np.array(view.fov) // 2
    inner = view.image[tuple(slice(m, n - m) for m, n in zip(margin, view.image.shape, strict=True))]
    order = np.argsort(-inner, axis=None, kind="stable")
    return np.stack(np.unravel_index(order, inner.shape), axis=1) + margin


def bright(view: SeedView, settings: PolicyDenseSeeds) -> Seeds:
    """Every voxel above (or not above) a threshold, ascending; beyond the faces nothing erodes."""
    chosen = (view.image > settings.threshold) != settings.invert
    if settings.num_erosions:
        chosen = ndimage.binary_erosion(chosen, iterations=settings.num_erosions, border_value=1)
    return np.argwhere(chosen)


def grid_3d(view: SeedView, settings: PolicyGrid3d) -> Seeds:
    """Grids of `step` that begin at each of the offsets along all axes, one after another, each ascending."""
    grids = [[range(start, n, settings.step) for n in view.image.shape] for start in settings.offsets]
    return np.concatenate([_product(z, y, x) for z, y, x in grids])


def grid_2d(view: SeedView, settings: PolicyGrid2d) -> Seeds:
    """As `grid_3d` along y and x, in all sections."""
    depth, *plane = view.image.shape
    grids = [[range(start, n, settings.step) for n in plane] for start in settings.offsets]
    return np.concatenate([_product(range(depth), y, x) for y, x in grids])


def _product(*ranges: range) -> Seeds:
    axes = np.meshgrid(*[np.array(places, np.int64) for places in ranges], indexing="ij")
    return np.stack(axes, axis=-1).reshape(-1, 3)
