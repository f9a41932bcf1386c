"""Where flood filling may not go or may not begin, as masks in network voxels.

    inference.masks       ─┬─> no_move: no field of view is centred there
    inference.shift_mask  ─┘
    inference.masks       ─┬─> no_seed: no object begins there
    inference.seed_masks  ─┘

Each source is read in its own voxels ("cells"): those of a volume at any resolution, or of the image. A network voxel
is forbidden if any cell is that touches one of its image voxels; for shifts, if any cell is within their reach.
Sources are read block by block, so one mask of the sub-volume and a block are in memory.
"""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ffn.config import Config
from ffn.config.masks import SHIFT_CHANNELS, Mask, ShiftMask
from ffn.geometry import ZYX, Box, blocks
from ffn.volumes import Scale, Volume, coarse_shape, open_volume, require_scale, scale_of

_BLOCK = (32, 128, 128)
_SAME: Scale = (Fraction(1), Fraction(1), Fraction(1))


@dataclass(frozen=True)
class Forbidden:
    """Masks of a sub-volume: bool [z, y, x] in network voxels, or None where nothing of the kind is configured.

    Attributes:
        no_move: Where no field of view may be centred, that of a seed included.
        no_seed: Where no object may begin, apart from the shifts: what seed policies keep away from. It may be the same
            array.
    """

    no_move: NDArray[np.bool_] | None
    no_seed: NDArray[np.bool_] | None


def forbidden(config: Config, image: Volume, box: Box, phase: ZYX = (0, 0, 0)) -> Forbidden:
    """The configured masks over one sub-volume.

    Args:
        config: Its section `inference`, and `network.downsample` and `fov`.
        image: The whole image of data.test, uint8, with its voxel size if that is known.
        box: The sub-volume in image voxels.
        phase: Image voxels by which its first network voxel begins before it, zyx.

    Raises:
        VolumeError: a mask cannot be read, or does not cover the region of the image.
    """
    inference = config.inference
    with ExitStack() as opened:
        moves = [_layer(mask, image, opened) for mask in inference.masks]
        seeds = [_layer(mask, image, opened) for mask in inference.seed_masks]
        shifts = [] if inference.shift_mask is None else _shifts(inference.shift_mask, config, image, opened)
        cells = _NetworkVoxels(box, config.network.downsample, phase)
        both = _any_of(moves, cells, image.shape)
        return Forbidden(
            no_move=_any_of(shifts, cells, image.shape, both), no_seed=_any_of(seeds, cells, image.shape, both)
        )


@dataclass(frozen=True)
class _Layer:
    """One source. `read` tells which cells of a box are forbidden; `scale` is image voxels per cell."""

    read: Callable[[Box], NDArray[np.bool_]]
    shape: ZYX
    scale: Scale
    reach: ZYX = (0, 0, 0)


@dataclass(frozen=True)
class _NetworkVoxels:
    """Which image voxels each network voxel of a sub-volume covers."""

    box: Box
    factors: ZYX
    phase: ZYX

    @property
    def shape(self) -> ZYX:
        return coarse_shape(self.box.shape, self.factors, self.phase)

    def covered(self, block: Box) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Along each axis the first image voxel and the one after the last, of each network voxel of a block."""
        intervals = []
        for axis in range(3):
            first, last = self.box.start[axis], self.box.stop[axis]
            numbers = np.arange(block.start[axis], block.stop[axis], dtype=np.int64)
            low = first + numbers * self.factors[axis] - self.phase[axis]
            intervals.append((np.maximum(low, first), np.minimum(low + self.factors[axis], last)))
        return intervals


def _any_of(
    layers: list[_Layer], voxels: _NetworkVoxels, image: ZYX, also: NDArray[np.bool_] | None = None
) -> NDArray[np.bool_] | None:
    """Where any layer forbids, or `also` does, which is left as it is."""
    if not layers:
        return also
    total = np.zeros(voxels.shape, np.bool_) if also is None else also.copy()
    for block in blocks(Box.of_shape(voxels.shape), _BLOCK):
        for layer in layers:
            total[block.slices] |= _touched(layer, voxels.covered(block), image)
    return total


def _touched(
    layer: _Layer, covered: list[tuple[NDArray[np.int64], NDArray[np.int64]]], image: ZYX
) -> NDArray[np.bool_]:
    """Whether a forbidden cell lies within reach of each interval of image voxels."""
    ranges = []
    for (low, high), scale, reach, size in zip(covered, layer.scale, layer.reach, image, strict=True):
        first, after = np.maximum(low - reach, 0), np.minimum(high + reach, size)
        up, down = scale.numerator, scale.denominator
        ranges.append((first * down // up, -(-after * down // up)))
    start = tuple(int(low[0]) for low, _ in ranges)
    # A finer volume may lack its very last cells.
    stop = tuple(min(int(high[-1]), n) for (_, high), n in zip(ranges, layer.shape, strict=True))
    found = layer.read(Box((start[0], start[1], start[2]), (stop[0], stop[1], stop[2])))
    for axis, (low, high) in enumerate(ranges):
        found = _any_between(found, low - start[axis], np.minimum(high - start[axis], found.shape[axis]), axis)
    return found


def _any_between(
    cells: NDArray[np.bool_], low: NDArray[np.int64], high: NDArray[np.int64], axis: int
) -> NDArray[np.bool_]:
    """Whether any of the cells low..high-1 along an axis is true, for each pair of bounds."""
    if (high - low == 1).all():
        return cells.take(low, axis)
    counts = np.cumsum(cells, axis=axis, dtype=np.int32)
    counts = np.concatenate([np.zeros_like(counts.take([0], axis)), counts], axis=axis)
    return counts.take(high, axis) > counts.take(low, axis)


def _layer(mask: Mask, image: Volume, opened: ExitStack) -> _Layer:
    if mask.boxes is not None:
        boxes = mask.parsed_boxes
        return _Layer(lambda box: _inside(boxes, box) != mask.invert, image.shape, _SAME)
    volume, scale = image, _SAME
    if mask.volume is not None:
        volume = opened.enter_context(open_volume(mask.volume, channel=mask.channel))
        scale = scale_of(volume, image.shape, image.voxel_size)
    return _Layer(lambda box: chosen(volume.read(box), mask), volume.shape, scale)


def _inside(boxes: list[Box], region: Box) -> NDArray[np.bool_]:
    inside = np.zeros(region.shape, np.bool_)
    for box in boxes:
        common = box.intersection(region)
        if common is not None:
            inside[common.relative_to(region.start).slices] = True
    return inside


def chosen(values: NDArray[Any], mask: Mask) -> NDArray[np.bool_]:
    """Which values (of any shape) a mask of a volume or of the image forbids."""
    if mask.values is not None:
        found = _equal_to_any(values, mask.values)
    elif mask.min is None and mask.max is None:
        found = values != 0
    else:
        found = np.ones(values.shape, np.bool_)
        if mask.min is not None:
            found &= values >= mask.min
        if mask.max is not None:
            found &= values <= mask.max
    return found != mask.invert


def _equal_to_any(values: NDArray[Any], wanted: list[int | float]) -> NDArray[np.bool_]:
    if values.dtype.kind in "ui":
        # Compared as whole numbers: a float cannot tell large labels apart.
        limits = np.iinfo(values.dtype)
        wanted = [int(value) for value in wanted if value == int(value) and limits.min <= value <= limits.max]
    return np.isin(values, np.array(wanted, values.dtype))


def _shifts(mask: ShiftMask, config: Config, image: Volume, opened: ExitStack) -> list[_Layer]:
    """A layer for the shifts along x and one for those along y: together they say what the larger one would."""
    scale = (Fraction(1), Fraction(mask.scale), Fraction(mask.scale))
    z, y, x = (size // 2 for size in config.network.fov_in_image_voxels)
    layers = []
    for channel in SHIFT_CHANNELS:
        volume = opened.enter_context(open_volume(mask.volume, channel=channel))
        require_scale(volume, image.shape, scale)
        layers.append(_Layer(_at_least(volume, mask.threshold), volume.shape, scale, mask.reach or (z, y, x)))
    return layers


def _at_least(volume: Volume, threshold: float) -> Callable[[Box], NDArray[np.bool_]]:
    return lambda box: np.abs(volume.read(box).astype(np.float32)) >= threshold
