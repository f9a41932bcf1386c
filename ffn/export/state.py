"""The Neuroglancer state of a run: which layers, where, how large.

A state in a file cannot know the server's address. Layer sources are therefore written relative to the file,
`precomputed://image` being the folder `image` beside it, and `with_server` puts the address in.
"""

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np

from ffn.geometry import Box, xyz_from_zyx
from ffn.volumes import Volume, VoxelSize

_SCHEME = "precomputed://"
# Pixels that the box's longest side takes in each of the four panels; fits a laptop's screen.
_PANEL_PIXELS = 330
_CONTRAST_CROP = 512


def viewer_state(
    title: str, layers: Sequence[str], box: Box, voxel_size: VoxelSize, contrast: tuple[float, float]
) -> dict[str, Any]:
    """The state as JSON-able values.

    Args:
        title: shown by the browser.
        layers: folders in order of drawing; `image` is the image, all others are labels. Of the labels only the
            first is visible at the start; a click on its name shows another.
        box: voxels (zyx) of the source volume that the layers cover; the view is centred on it and fits it.
        voxel_size: nanometres zyx.
        contrast: grey values shown as black and as white.
    """
    extent = max(n * size for n, size in zip(box.shape, voxel_size, strict=True)) / min(voxel_size)
    labels = [name for name in layers if name != "image"]
    shown: list[dict[str, Any]] = []
    for name in layers:
        source = {"name": name, "source": _SCHEME + name}
        if name == "image":
            shown.append({"type": "image", **source, "shaderControls": {"normalized": {"range": list(contrast)}}})
        else:
            shown.append({"type": "segmentation", **source, "selectedAlpha": 0.35, "visible": name == labels[0]})
    sizes = dict(zip("xyz", xyz_from_zyx(voxel_size), strict=True))
    return {
        "title": title,
        "dimensions": {axis: [nanometres * 1e-9, "m"] for axis, nanometres in sizes.items()},
        "position": [(a + b) // 2 + 0.5 for a, b in zip(*map(xyz_from_zyx, (box.start, box.stop)), strict=True)],
        "crossSectionScale": extent / _PANEL_PIXELS,
        "projectionScale": extent * 1.9,
        "projectionOrientation": [0.36, 0.28, 0.11, 0.88],
        "layers": shown,
        "selectedLayer": {"layer": labels[0] if labels else "image", "visible": False},
        "crossSectionBackgroundColor": "#000000",
        "hideCrossSectionBackground3D": True,
        "showAxisLines": False,
        "layout": "4panel",
    }


def with_server(state: dict[str, Any], address: str) -> dict[str, Any]:
    """The state with its layers on a server, `address` being such as `http://127.0.0.1:9000`."""
    served = copy.deepcopy(state)
    for layer in served["layers"]:
        layer["source"] = f"{_SCHEME}{address}/{layer['source'].removeprefix(_SCHEME)}"
    return served


def contrast_of(image: Volume) -> tuple[float, float]:
    """Grey values below and above which half a percent lies, in the middle of the middle slice."""
    z, y, x = (n // 2 for n in image.shape)
    half = _CONTRAST_CROP // 2
    crop = image[z, max(y - half, 0) : y + half, max(x - half, 0) : x + half]
    low, high = np.percentile(crop, [0.5, 99.5])
    return float(low), float(max(high, low + 1e-6))
