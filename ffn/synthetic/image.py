"""From labels to a grey image that looks like a FIB-SEM volume."""

import edt
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ffn.config import Synthetic
from ffn.geometry import ZYX
from ffn.synthetic.fields import VoxelSize, fine_noise, smooth_field
from ffn.synthetic.organelles import draw_organelles

MEAN = 128.0
STDDEV = 33.0
_MEMBRANE_GREY = 0.22
_CYTOPLASM_GREY = (0.54, 0.92)
_SHEET_GREY = (0.45, 0.62)
_TEXTURES = ((0.04, 9.0), (0.035, 25.0))
_MEMBRANE_FADING = 0.22
_MEMBRANE_SCALE_NM = 160.0
_BLUR_VOXELS = 0.55
_UNEVEN_SCALE_NM = 700.0
_SLICE_FLICKER = 0.015


def render(
    random: np.random.Generator, labels: NDArray[np.uint64], sheets: int, settings: Synthetic
) -> NDArray[np.uint8]:
    """The image of cells with dark membranes, textured cytoplasm, organelles, uneven contrast and noise.

    Args:
        random: Decides everything random.
        labels: uint64 [z, y, x], ids from 1 without gaps.
        sheets: Number of sheet-like cells, which have the lowest ids.
        settings: Voxel size, membrane thickness, noise and unevenness.

    Returns:
        uint8 [z, y, x] with mean 128 and standard deviation 33, up to clipping.
    """
    voxel_size = settings.voxel_size
    shape: ZYX = labels.shape
    wall = edt.edt(labels, anisotropy=voxel_size, black_border=False, order="C", parallel=1)
    # Distances are to the centre of the nearest voxel of another cell; the wall is about half a voxel nearer.
    wall -= np.float32(np.mean(voxel_size) / 2)
    grey = _cytoplasm(random, labels, sheets, voxel_size)
    draw_organelles(random, grey, labels, wall, voxel_size, sheets + 1)
    _draw_membranes(random, grey, wall, settings.membrane_nm, voxel_size)
    grey = ndimage.gaussian_filter(grey, _BLUR_VOXELS, output=grey)
    _make_uneven(random, grey, settings.unevenness, voxel_size)
    noise = 0.6 * random.standard_normal(shape, np.float32) + 0.8 * fine_noise(random, shape, (0.7, 0.7, 0.7))
    grey += np.float32(settings.noise) * noise
    grey -= grey.mean()
    grey *= np.float32(STDDEV / grey.std())
    grey += np.float32(MEAN)
    return np.clip(np.rint(grey), 0, 255).astype(np.uint8)


def _cytoplasm(
    random: np.random.Generator, labels: NDArray[np.uint64], sheets: int, voxel_size: VoxelSize
) -> NDArray[np.float32]:
    count = int(labels.max())
    levels = np.zeros(count + 1, np.float32)
    levels[1 : sheets + 1] = random.uniform(*_SHEET_GREY, sheets)
    levels[sheets + 1 :] = random.uniform(*_CYTOPLASM_GREY, count - sheets)
    grey = levels[labels]
    for strength, scale_nm in _TEXTURES:
        z, y, x = (scale_nm / step for step in voxel_size)
        grey += np.float32(strength) * fine_noise(random, labels.shape, (z, y, x))
    return grey


def _draw_membranes(
    random: np.random.Generator,
    grey: NDArray[np.float32],
    wall: NDArray[np.float32],
    thickness: float,
    voxel_size: VoxelSize,
) -> None:
    """Darken the voxels within half a thickness of the wall; here and there the stain is weaker."""
    shape: ZYX = grey.shape
    stain = 1 - np.float32(_MEMBRANE_FADING) * np.abs(smooth_field(random, shape, voxel_size, _MEMBRANE_SCALE_NM))
    softness = np.float32(max(thickness / 8, min(voxel_size) / 4))
    cover = 1 / (1 + np.exp(np.clip((wall - np.float32(thickness / 2)) / softness, -20, 20)))
    cover *= np.clip(stain, 0.35, 1)
    grey += cover * (np.float32(_MEMBRANE_GREY) - grey)


def _make_uneven(
    random: np.random.Generator, grey: NDArray[np.float32], strength: float, voxel_size: VoxelSize
) -> None:
    """Contrast and brightness that drift over the volume, and slices a little brighter or darker than the next."""
    shape: ZYX = grey.shape
    middle = np.float32(grey.mean())
    contrast = 1 + np.float32(strength) * smooth_field(random, shape, voxel_size, _UNEVEN_SCALE_NM)
    grey -= middle
    grey *= np.clip(contrast, 0.5, 1.5)
    grey += np.float32(strength / 3) * smooth_field(random, shape, voxel_size, _UNEVEN_SCALE_NM)
    grey += random.normal(0, _SLICE_FLICKER, (shape[0], 1, 1)).astype(np.float32)
