"""What a person wants to know of a volume before using it."""

import numpy as np

from ffn.geometry import ZYX, Box
from ffn.volumes.base import Volume

_SAMPLE: ZYX = (32, 256, 256)


def describe(volume: Volume) -> dict[str, str]:
    """Facts in words: shape, type, voxel size, storage, and values of a sample from the middle."""
    box = middle_box(volume.shape, _SAMPLE)
    sample = volume.read(box)
    facts = {
        "volume": volume.uri,
        "shape": " x ".join(map(str, volume.shape)) + " voxels (z,y,x)",
        "type": str(volume.dtype),
        "voxel size": "unknown: give data.voxel_size in the configuration",
        "stored in": "one piece" if volume.chunk is None else " x ".join(map(str, volume.chunk)) + " chunks",
        "sample": f"[{box}]" + (" = everything" if box.shape == volume.shape else ""),
        "values": f"{sample.min()} to {sample.max()}",
    }
    if volume.voxel_size is not None:
        facts["voxel size"] = " x ".join(f"{size:g}" for size in volume.voxel_size) + " nm"
    if volume.dtype.itemsize > 1 and volume.dtype.kind in "ui":
        facts["labels"] = f"{np.count_nonzero(np.unique(sample))} different, {(sample == 0).mean():.1%} unlabelled"
    else:
        facts["mean"] = f"{sample.mean(dtype=np.float64):.2f}, standard deviation {sample.std(dtype=np.float64):.2f}"
    return facts


def middle_box(shape: ZYX, size: ZYX) -> Box:
    """A box of at most `size` in the middle of `shape`, both zyx."""
    extents = [min(n, s) for n, s in zip(shape, size, strict=True)]
    start = tuple((n - e) // 2 for n, e in zip(shape, extents, strict=True))
    return Box(start, tuple(a + e for a, e in zip(start, extents, strict=True)))  # type: ignore[arg-type]
