"""One slice of the test region: image, ground truth and segmentation, bodies coloured over the image."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import hsv_to_rgb
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ffn.files import atomic_path

OPACITY = 0.45
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


def draw_overlay(
    image: NDArray[np.integer],
    layers: dict[str, NDArray[np.integer]],
    title: str,
    voxel_size: tuple[float, float] | None,
    path: Path,
) -> None:
    """Write a PNG with the image [y, x] and, beside it, each layer of labels [y, x] over the image.

    `voxel_size` is nm y,x: pixels get that shape, and a bar of a round length is drawn.
    """
    height, width = image.shape
    y_nm, x_nm = voxel_size or (1.0, 1.0)
    panels = 1 + len(layers)
    size = 4.6
    figure = Figure(figsize=(size * panels, size * height * y_nm / (width * x_nm) + 0.7), layout="constrained")
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
        figure.savefig(partial, format="png", dpi=110, metadata={"Software": None})


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
