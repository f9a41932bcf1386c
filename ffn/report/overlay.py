"""One slice of the test region: image, ground truth and segmentation, bodies coloured over the image.

A panel is some 500 pixels wide, and drawing takes 170 bytes a pixel and panel. So a large slice is read at a lower
resolution, block by block; a small one is drawn as it is.
"""

from itertools import count
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import hsv_to_rgb
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ffn.files import atomic_path
from ffn.geometry import Box, blocks
from ffn.volumes import Volume, coarsen

OPACITY = 0.45
MOST_PIXELS = 1 << 20
"""Pixels of a panel; a slice that has more is drawn at a lower resolution."""

_BLOCK = 512
"""Voxels along y and x that are read at once, about: whole chunks come with them, 170 MB of chunks of 64^3 labels."""

_TALLEST = 200.0
"""Height of a figure in inches: Matplotlib draws 65,535 pixels at most, and keeps them all."""

_GOLDEN = 0.6180339887498949


def colours(labels: NDArray[np.integer]) -> NDArray[np.float64]:
    """A colour for each voxel, the same for the same id; 0 is black.

    Args:
        labels: integer [y, x].

    Returns: float64 [y, x, 3], red, green, blue in 0..1.
    """
    ids, index = np.unique(labels, return_inverse=True)
    # Steps of the golden ratio keep the hues of neighbouring ids far apart.
    spread = ids.astype(np.uint64) % np.uint64(2**32)
    hsv = np.stack(
        [spread * _GOLDEN % 1, 0.55 + 0.45 * (spread * _GOLDEN**2 % 1), np.where(ids == 0, 0.0, 1.0)], axis=-1
    )
    return hsv_to_rgb(hsv)[index].reshape(*labels.shape, 3)


def coloured(image: NDArray[np.integer], labels: NDArray[np.integer], opacity: float = OPACITY) -> NDArray[np.float64]:
    """The grey image with bodies in colour over it; voxels without a body stay grey. All [y, x] -> [y, x, 3]."""
    grey = np.repeat(image[..., None] / 255.0, 3, axis=-1)
    mixed = (1 - opacity) * grey + opacity * colours(labels)
    return np.where((labels == 0)[..., None], grey, mixed)


def drawn_step(height: int, width: int) -> int:
    """How many voxels of a slice lie along the edge of one pixel drawn: 1 up to `MOST_PIXELS`, then as few as fit."""
    return next(step for step in count(1) if -(-height // step) * -(-width // step) <= MOST_PIXELS)


def read_slice(volume: Volume, z: int, step: int, *, labels: bool) -> NDArray[np.integer]:
    """Slice `z` with one pixel for each `step` x `step` voxels; those at the end may cover fewer.

    Memory is that of one block and of the result.

    Args:
        volume: An image or labels.
        z: Counted from the corner of the volume.
        step: Voxels along y and x in a pixel; 1 returns the slice as it is.
        labels: Take the voxel in the middle of each pixel; a few large bodies would hide thin ones in a vote. Images
            are averaged.

    Returns: [y, x] in the type of the volume.
    """
    depth, height, width = volume.shape
    pixels = coarsen(volume, (1, step, step), labels=False)
    out = np.empty(pixels.shape[1:], volume.dtype)
    edge = max(_BLOCK // step, 1)
    for block in blocks(Box((z, 0, 0), (z + 1, *pixels.shape[1:])), (depth, edge, edge)):
        _, rows, columns = block.slices
        if labels:
            voxels = Box(
                (z, rows.start * step, columns.start * step),
                (z + 1, min(rows.stop * step, height), min(columns.stop * step, width)),
            )
            found = volume.read(voxels)[0]
            out[rows, columns] = found[np.ix_(_middles(found.shape[0], step), _middles(found.shape[1], step))]
        else:
            out[rows, columns] = pixels.read(block)[0]
    return out


def _middles(voxels: int, step: int) -> NDArray[np.int64]:
    return np.minimum(np.arange(0, voxels, step) + step // 2, voxels - 1)


def slice_title(run: str, z: int, depth: int, step: int) -> str:
    """What stands above the figure: which slice it is and, where it is reduced, by how much."""
    title = f"{run}: test region, slice {z} of {depth}"
    if step == 1:
        return title
    return f"{title}\nreduced {step} times: a pixel is the mean of {step} x {step} voxels, labels those in its middle"


def draw_overlay(
    image: NDArray[np.integer],
    layers: dict[str, NDArray[np.integer]],
    title: str,
    voxel_size: tuple[float, float] | None,
    path: Path,
) -> None:
    """Write a PNG with the image [y, x] and, beside it, each layer of labels [y, x] over the image.

    `voxel_size` is nm y,x: pixels get that shape, and a bar of a round length is drawn. The title is also in the PNG's
    text.
    """
    height, width = image.shape
    y_nm, x_nm = voxel_size or (1.0, 1.0)
    panels = 1 + len(layers)
    size = 4.6
    tall = min(size * height * y_nm / (width * x_nm) + 0.7, _TALLEST)
    figure = Figure(figsize=(size * panels, tall), layout="constrained")
    figure.suptitle(title, fontsize=11)
    pictures = {"image": np.repeat(image[..., None] / 255.0, 3, axis=-1)}
    pictures |= {name: coloured(image, labels) for name, labels in layers.items()}
    for axes, (name, picture) in zip(figure.subplots(1, panels, squeeze=False)[0], pictures.items(), strict=True):
        axes.imshow(picture, interpolation="nearest", aspect=y_nm / x_nm)
        axes.set_title(name, fontsize=10)
        axes.set_axis_off()
        if voxel_size is not None:
            _bar(axes, height, width, x_nm)
    with atomic_path(path) as partial:
        figure.savefig(partial, format="png", dpi=110, metadata={"Software": None, "Title": title})


def bar_length_nm(width_nm: float) -> float:
    """A round length (1, 2 or 5 times a power of ten) of a sixth to a third of the width, about."""
    power = 10.0 ** np.floor(np.log10(width_nm / 3))
    return float(power * max(step for step in (1, 2, 5) if step * power <= width_nm / 3))


def _bar(axes: Axes, height: int, width: int, x_nm: float) -> None:
    length = bar_length_nm(width * x_nm)
    text = f"{length / 1000:g} µm" if length >= 1000 else f"{length:g} nm"
    left, y = 0.04 * width, 0.95 * height
    axes.plot([left, left + length / x_nm], [y, y], color="white", linewidth=3, solid_capstyle="butt")
    axes.text(left, y - 0.02 * height, text, color="white", fontsize=9, va="bottom")
