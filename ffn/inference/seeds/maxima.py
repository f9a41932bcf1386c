"""Policies that look for local maxima: of the distance to edges, of empty space, or of the image itself.

Distances here count network voxels, whatever the voxel size; PolicyPeaks alone follows it. A fixed noise decides
between equal values where it says so; without noise the first in z, y, x order wins.
"""

from collections.abc import Callable

import edt
import numpy as np
from numpy.typing import NDArray
from skimage.feature import peak_local_max
from skimage.morphology import disk

from ffn.config.seeds import (
    PolicyFillEmptySpace,
    PolicyImagePeaks2DDisk,
    PolicyImagePeaks3D2D,
    PolicyMaxPeaks,
    PolicyPeaks,
    PolicyPeaks2d,
)
from ffn.inference.seeds.view import Seeds, SeedView
from ffn.prepare.edges import edge_mask
from ffn.prepare.seeds import in_coarse_voxels, peaks, with_noise

_EMPTY_SPACING = 2
_EMPTY_DISTANCE = 0.5


def far_from_edges(view: SeedView, _: PolicyPeaks) -> Seeds:
    """`ffn.prepare.seeds.peaks`, ascending; with `view.fine` found there, since thin objects have peaks only there."""
    taken = view.labels > 0
    if view.fine is None:
        return peaks(view.image, view.voxel_size, view.exclusion, taken)
    fine = view.fine
    z, y, x = (edge / factor for edge, factor in zip(view.voxel_size, fine.factors, strict=True))
    exclusion = None if view.exclusion is None else fine.spread(view.exclusion)
    found = peaks(fine.image, (z, y, x), exclusion, fine.spread(taken))
    return in_coarse_voxels(found, fine.factors, fine.phase)


def far_from_edges_2d(view: SeedView, settings: PolicyPeaks2d) -> Seeds:
    """In each section by itself, maxima of the distance to its edges (and to what is excluded), with noise."""

    def of_section(z: int) -> NDArray[np.int64]:
        is_edge = edge_mask(view.image[z])
        if view.exclusion is not None:
            is_edge |= view.exclusion[z]
        distance = _distance(~is_edge)
        return peak_local_max(
            with_noise(distance), min_distance=settings.min_distance, threshold_abs=settings.threshold_abs
        )

    found = _ascending(_each_section(len(view.image), of_section))
    return found if settings.sort_cmp == "ascending" else found[::-1]


def empty_space(view: SeedView, _: PolicyFillEmptySpace) -> Seeds:
    """Maxima of the distance to the nearest segment, with noise, ascending; none where there is no segment at all."""
    distance = _distance(view.labels == 0)
    return _ascending(peak_local_max(with_noise(distance), min_distance=_EMPTY_SPACING, threshold_abs=_EMPTY_DISTANCE))


def bright_peaks(view: SeedView, settings: PolicyMaxPeaks) -> Seeds:
    """Maxima of the image, with noise, ascending; what is taken or excluded counts as 0, the mean grey value."""
    return _ascending(
        peak_local_max(
            with_noise(np.where(view.refused, np.float32(0), view.image)),
            min_distance=settings.min_distance,
            threshold_abs=settings.threshold_abs,
            threshold_rel=settings.threshold_rel,
        )
    )


def image_peaks_3d_2d(view: SeedView, settings: PolicyImagePeaks3D2D) -> Seeds:
    """Maxima of the image, the brightest first; then those of each section by itself, z by z, the brightest first."""
    found = [np.empty((0, 3), np.int64)]
    if settings.min_distance_3d is not None:
        found.append(peak_local_max(view.image, min_distance=settings.min_distance_3d))
    if settings.min_distance_2d is not None:
        spacing = settings.min_distance_2d
        found.append(_each_section(len(view.image), lambda z: peak_local_max(view.image[z], min_distance=spacing)))
    return np.concatenate(found)


def image_peaks_disk(view: SeedView, settings: PolicyImagePeaks2DDisk) -> Seeds:
    """Maxima of each section within a disk, z by z, the brightest first."""
    footprint = disk(settings.disk_radius)
    return _each_section(
        len(view.image),
        lambda z: peak_local_max(
            view.image[z],
            min_distance=settings.min_distance_2d,
            p_norm=2,
            threshold_rel=settings.threshold_rel,
            footprint=footprint,
        ),
    )


def _distance(free: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Voxels from each free voxel to the nearest other one, 0 there, and everywhere if all are free."""
    distance = edt.edt(np.ascontiguousarray(free), black_border=False, order="C", parallel=0)
    distance[~np.isfinite(distance)] = 0
    return distance


def _each_section(sections: int, find: Callable[[int], NDArray[np.int64]]) -> Seeds:
    """Positions y, x of each section as z, y, x, section by section."""
    found = [np.empty((0, 3), np.int64)]
    found += [np.insert(find(z), 0, z, axis=1) for z in range(sections)]
    return np.concatenate(found)


def _ascending(found: NDArray[np.int64]) -> Seeds:
    return found[np.lexsort(found.T[::-1])]
