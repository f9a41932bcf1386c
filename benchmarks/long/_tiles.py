"""Sub-volumes of synthetic labels on disk, as inference leaves them, written one at a time."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ffn.geometry import Box
from ffn.inference.kept import Keeper
from ffn.inference.results import SEGMENTATION_FILE, write_labels
from ffn.stages import Stage

_PERIOD = 64


def write_tiles(infer: Path, boxes: list[Box]) -> int:
    """Write finished sub-volumes of one pass below the folder `infer`; returns the bytes of their labels."""
    size = 0
    low = tuple(min(box.start[axis] for box in boxes) for axis in range(3))
    high = tuple(max(box.stop[axis] for box in boxes) for axis in range(3))
    stage = Stage(infer / "pass-0", {"box": str(Box((low[0], low[1], low[2]), (high[0], high[1], high[2])))})
    with Keeper(stage, len(boxes), range(len(boxes))) as keeper:
        for index, box in enumerate(boxes):
            folder = infer / f"tile-{index:04d}"
            ids, flat = np.unique(cells(box), return_inverse=True)
            flat = flat.reshape(box.shape)
            labels = np.where(cells(box) == 0, 0, flat if ids[0] == 0 else flat + 1).astype(np.uint64)
            write_labels(folder / SEGMENTATION_FILE, labels, box, (10.0, 10.0, 10.0))
            Stage(folder, {"box": str(box)}).finish(segments=int(labels.max()))
            size += (folder / SEGMENTATION_FILE).stat().st_size
            keeper.keep(index, folder)
    return size


def cells(box: Box) -> NDArray[np.uint64]:
    """Labels, uint64 zyx, of any box of an endless volume: rounded, wavy cells with empty space between them."""
    z, y, x = np.ix_(*(np.arange(a, b, dtype=np.float32) for a, b in zip(box.start, box.stop, strict=True)))
    z, y, x = z + 9 * np.sin(y / 23) + 0 * x, y + 9 * np.sin(x / 29) + 0 * z, x + 9 * np.sin(z / 31) + 0 * y
    places = [np.floor(axis / _PERIOD).astype(np.int64) for axis in (z, y, x)]
    inside = sum(((axis / _PERIOD) % 1 - 0.5) ** 2 for axis in (z, y, x)) < 0.4**2 * 2
    number = 0
    for place in places:
        number = number * 4096 + place + 1
    return np.where(inside, number, 0).astype(np.uint64)
