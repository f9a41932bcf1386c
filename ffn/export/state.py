"""The Neuroglancer state of a run: which layers, where, how large.

A state in a file cannot know the server's address. Layer sources are therefore written relative to the file,
`precomputed://image` being the folder `image` beside it, and `with_server` puts the address in.
"""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ffn.geometry import Box, xyz_from_zyx
from ffn.volumes import Volume, VoxelSize

_SCHEME = "precomputed://"
# Pixels that the box's longest side takes in each of the four panels; fits a laptop's screen.
_PANEL_PIXELS = 330
_CONTRAST_CROP = 512
MOST_POINTS = 200
"""The state travels inside a link, which browsers cut at some length."""


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


def with_candidates(state: dict[str, Any], candidates: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The state with a layer of points where pairs of segments were tried, the first `MOST_POINTS` of them.

    Args:
        state: of `viewer_state`.
        candidates: of `ffn.agglomeration.candidates.listed`; a click on a point names the pair and selects the objects.
    """
    points = [
        {
            "id": f"{entry['a']}-{entry['b']}",
            "type": "point",
            "point": [p + 0.5 for p in entry["xyz"]],
            "description": f"{entry['a']} and {entry['b']} {'joined' if entry['joined'] else 'not joined'}: "
            f"{entry['reason']} ({entry['margin']:+.2f})",
            "segments": [[str(number) for number in sorted({entry["object_a"], entry["object_b"]})]],
        }
        for entry in candidates[:MOST_POINTS]
    ]
    layer = {
        "type": "annotation",
        "name": "candidates",
        "source": {"url": "local://annotations", "transform": {"outputDimensions": state["dimensions"]}},
        "annotations": points,
        "annotationRelationships": ["objects"],
        "linkedSegmentationLayer": {"objects": "segmentation"},
        "visible": False,
    }
    return {**state, "layers": [*state["layers"], layer]}


def with_server(state: dict[str, Any], address: str) -> dict[str, Any]:
    """The state with its layers on a server, `address` being such as `http://127.0.0.1:9000`."""
    served = copy.deepcopy(state)
    for layer in served["layers"]:
        if isinstance(layer["source"], str):
            layer["source"] = f"{_SCHEME}{address}/{layer['source'].removeprefix(_SCHEME)}"
    return served


def contrast_of(image: Volume) -> tuple[float, float]:
    """Grey values below and above which half a percent lies, in the middle of the middle slice."""
    z, y, x = (n // 2 for n in image.shape)
    half = _CONTRAST_CROP // 2
    crop = image[z, max(y - half, 0) : y + half, max(x - half, 0) : x + half]
    low, high = np.percentile(crop, [0.5, 99.5])
    return float(low), float(max(high, low + 1e-6))
