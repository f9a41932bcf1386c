"""Levels of lower resolution: their geometry, and the pooling that makes one from the level before."""

from dataclasses import dataclass

import numpy as np

from ffn.geometry import ZYX, Box
from ffn.volumes import VoxelSize, pool

_PLANES = 8
"""Planes of the result that are made at once: at a border their sources are copied."""


@dataclass(frozen=True)
class Level:
    """One resolution of a layer, zyx.

    Attributes:
        box: its voxels, counted on the level's own grid from the origin of the source volume.
        voxel_size: nanometres.
        step: voxels of the level before that make one voxel; 1,1,1 for the full resolution.
    """

    box: Box
    voxel_size: VoxelSize
    step: ZYX


def levels(box: Box, voxel_size: VoxelSize, mips: int) -> list[Level]:
    """Full resolution and `mips` lower ones.

    Each halves the resolution along the axes whose voxels are less than twice as long as the shortest, so that
    anisotropic voxels become cubes first. All grids share the origin of the source volume: a voxel of a lower level
    covers exactly the voxels of the level before that it lies on, also when the box starts at an odd voxel.
    """
    found = [Level(box, voxel_size, (1, 1, 1))]
    for _ in range(mips):
        last = found[-1]
        shortest = min(last.voxel_size)
        z, y, x = (2 if size < 2 * shortest else 1 for size in last.voxel_size)
        step = (z, y, x)
        start = tuple(a // s for a, s in zip(last.box.start, step, strict=True))
        stop = tuple(-(-b // s) for b, s in zip(last.box.stop, step, strict=True))
        size = tuple(v * s for v, s in zip(last.voxel_size, step, strict=True))
        found.append(Level(Box(start, stop), size, step))  # type: ignore[arg-type]
    return found


def source_box(block: Box, step: ZYX, before: Box) -> Box:
    """Voxels of the level before (`before` is all it has) from which `block` of the next level is made."""
    start = tuple(a * s for a, s in zip(block.start, step, strict=True))
    stop = tuple(b * s for b, s in zip(block.stop, step, strict=True))
    found = before.intersection(Box(start, stop))  # type: ignore[arg-type]
    assert found is not None
    return found


def downsample(values: np.ndarray, source: Box, block: Box, step: ZYX, labels: bool) -> np.ndarray:
    """Pool `values`, the voxels of `source`, into the voxels of `block` (see `source_box`); keeps the dtype.

    At the border only the voxels that exist count; see `ffn.volumes.pool` for the rest.
    """
    result = np.empty(block.shape, values.dtype)
    for start in range(block.start[0], block.stop[0], _PLANES):
        planes = Box((start, *block.start[1:]), (min(start + _PLANES, block.stop[0]), *block.stop[1:]))
        inside = source_box(planes, step, source)
        before = [s - b * f for s, b, f in zip(inside.start, planes.start, step, strict=True)]
        after = [b * f - s for s, b, f in zip(inside.stop, planes.stop, step, strict=True)]
        part = values[inside.relative_to(source.start).slices]
        if any(before) or any(after):
            # Repeating the edge voxel weighs a missing neighbour like the present one, which leaves averages and modes
            # as they are among the voxels that exist.
            part = np.pad(part, list(zip(before, after, strict=True)), mode="edge")
        result[planes.relative_to(block.start).slices] = pool(part, step, labels)
    return result
