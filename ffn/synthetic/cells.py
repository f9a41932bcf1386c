"""The exact labels: sheets and tubes that take the volume, then swell until they touch."""

import cc3d
import edt
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ffn.config import Synthetic
from ffn.errors import DataError
from ffn.geometry import ZYX
from ffn.synthetic.fields import VoxelSize, smooth_field
from ffn.synthetic.tubes import TubePainter

_SHEET_THICKNESS_NM = (70.0, 110.0)
_SHEET_RADIUS_NM = (400.0, 800.0)
_SHEET_WAVE_NM = 60.0
_SHEET_WAVE_SCALE_NM = 350.0
_CALIBRE_SPREAD = 0.35
_PEEL_NM = 22.0
_WARP_NM = 15.0
_WARP_SCALE_NM = 110.0
_SLAB = 16
_ROUNDS = 4


def grow_cells(random: np.random.Generator, settings: Synthetic) -> tuple[NDArray[np.uint64], int]:
    """Fill a volume with cells.

    Sheets come first and tubes grow around them and each other. Then every cell swells into the gaps, each gap voxel
    going to the nearest cell, and a smooth warp makes the walls uneven.

    Returns:
        Labels uint64 [z, y, x] and the number of sheets. Ids count from 1 without gaps, sheets first; every voxel
        has one, and the voxels of each are 6-connected.

    Raises:
        DataError: The settings leave no room for any cell.
    """
    voxel_size = settings.voxel_size
    labels = np.zeros(settings.shape, np.int32)
    for sheet in range(1, settings.sheets + 1):
        _paint_sheet(random, labels, voxel_size, sheet)
    painter = TubePainter(labels, voxel_size, random)
    radii = settings.calibre_nm / 2 * np.exp(random.normal(0, _CALIBRE_SPREAD, settings.neurites))
    # Thick ones first: thin ones still find room between them.
    for tube, radius in enumerate(np.sort(radii)[::-1], start=settings.sheets + 1):
        painter.grow(tube, float(radius))
    _clear_thin_parts(labels, voxel_size, min(_PEEL_NM, settings.calibre_nm / 6))
    share = labels.size / (settings.sheets + settings.neurites)
    _clear_pieces(labels, smallest=min(settings.calibre_nm**3 / float(np.prod(voxel_size)), share / 4))
    if not labels.any():
        raise DataError(
            f"No synthetic cell of calibre_nm = {settings.calibre_nm} finds room in {settings.shape} voxels of "
            f"{voxel_size} nm. Make the shape larger or the calibre smaller, but not less than a few voxels."
        )
    labels = _warped(random, _filled(labels, voxel_size), voxel_size)
    labels = _connected(labels, voxel_size)
    ids, compact = np.unique(labels, return_inverse=True)
    return (compact.reshape(labels.shape) + 1).astype(np.uint64), int((ids <= settings.sheets).sum())


def _paint_sheet(random: np.random.Generator, labels: NDArray[np.int32], voxel_size: VoxelSize, label: int) -> None:
    """A wavy disc of even thickness, where there is room."""
    centre = random.uniform(0, 1, 3) * labels.shape * np.array(voxel_size)
    normal = random.standard_normal(3)
    normal /= np.linalg.norm(normal)
    thickness, radius = random.uniform(*_SHEET_THICKNESS_NM), random.uniform(*_SHEET_RADIUS_NM)
    waves = smooth_field(random, labels.shape, voxel_size, _SHEET_WAVE_SCALE_NM)
    offsets = [
        ((np.arange(size) + 0.5) * step - c).astype(np.float32)
        for size, step, c in zip(labels.shape, voxel_size, centre, strict=True)
    ]
    z, y, x = offsets[0][:, None, None], offsets[1][:, None], offsets[2]
    height = z * np.float32(normal[0]) + y * np.float32(normal[1]) + x * np.float32(normal[2])
    beside = z**2 + y**2 + x**2 - height**2
    height += waves * np.float32(_SHEET_WAVE_NM)
    rim = radius * (1 + 0.25 * waves)
    labels[(np.abs(height) < thickness / 2) & (beside < rim**2) & (labels == 0)] = label


def _clear_thin_parts(labels: NDArray[np.int32], voxel_size: VoxelSize, peel_nm: float) -> None:
    """Peel every cell, so that slivers where cells grazed each other vanish; what is peeled off is filled again."""
    depth = edt.edt(labels, anisotropy=voxel_size, black_border=False, order="C", parallel=1)
    labels[depth < peel_nm] = 0


def _clear_pieces(labels: NDArray[np.int32], smallest: float) -> None:
    """Set to 0 all but the largest piece of each cell, and that too where it has fewer than `smallest` voxels."""
    pieces, count = cc3d.connected_components(labels, connectivity=6, return_N=True)
    sizes = np.bincount(pieces.ravel(), minlength=count + 1)
    owners = np.zeros(count + 1, np.int64)
    owners[pieces.ravel()] = labels.ravel()
    keep = np.zeros(count + 1, bool)
    by_size = np.argsort(sizes, kind="stable")[::-1]
    _, largest = np.unique(owners[by_size], return_index=True)
    keep[by_size[largest]] = True
    keep &= (owners > 0) & (sizes >= smallest)
    labels[~keep[pieces]] = 0


def _filled(labels: NDArray[np.int32], voxel_size: VoxelSize) -> NDArray[np.int32]:
    """Give each 0 voxel to the nearest cell."""
    z, y, x = ndimage.distance_transform_edt(
        labels == 0, sampling=voxel_size, return_distances=False, return_indices=True
    )
    return labels[z, y, x]


def _warped(random: np.random.Generator, labels: NDArray[np.int32], voxel_size: VoxelSize) -> NDArray[np.int32]:
    """Labels seen through a smooth random displacement, so that walls are not the smooth unions of balls."""
    shape: ZYX = labels.shape
    moves = [smooth_field(random, shape, voxel_size, _WARP_SCALE_NM) * np.float32(_WARP_NM / s) for s in voxel_size]
    warped = np.empty_like(labels)
    for start in range(0, shape[0], _SLAB):
        slab = slice(start, start + _SLAB)
        grid = np.ogrid[start : min(start + _SLAB, shape[0]), : shape[1], : shape[2]]
        at = [
            np.clip(np.rint(axis + move[slab]).astype(np.int32), 0, size - 1)
            for axis, move, size in zip(grid, moves, shape, strict=True)
        ]
        warped[slab] = labels[at[0], at[1], at[2]]
    return warped


def _connected(labels: NDArray[np.int32], voxel_size: VoxelSize) -> NDArray[np.int32]:
    """Labels without stray pieces: they go to the nearest cell, or, after a few rounds, become cells of their own."""
    for _ in range(_ROUNDS):
        alone = labels.copy()
        _clear_pieces(alone, smallest=0)
        if alone.all():
            return labels
        labels = _filled(alone, voxel_size)
    whole = labels.copy()
    _clear_pieces(whole, smallest=0)
    pieces = cc3d.connected_components(np.where(whole == 0, labels, 0), connectivity=6)
    return np.where(pieces > 0, pieces.astype(np.int32) + labels.max(), whole)
