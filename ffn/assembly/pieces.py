"""Pieces: voxels of one label that hang together inside one block; and which pieces touch across the faces of blocks.

A piece is named by its first voxel in the order z, y, x of the whole volume, counted from 1. So its name does not
depend on which process found it, and the smallest name of the pieces of an object is the first voxel of the object,
whatever the blocks.

To match blocks without reading them again, their outermost planes are kept beside the pieces: along each axis the first
plane of block i is plane 2i of `planes_<axis>`, its last one plane 2i + 1. Two voxels in different blocks that touch
lie in two planes 2i - 1 and 2i of some axis, maybe shifted by one voxel along the other two:

         block i - 1        |        block i
    2i - 2    ...    2i - 1 | 2i    ...    2i + 1
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import cc3d
import numpy as np
from numpy.typing import NDArray

from ffn.geometry import ZYX, Box
from ffn.volumes import Volume

Ids = NDArray[np.uint64]
AXES = "zyx"

_ASIDE = {6: 0, 18: 1, 26: 2}
"""Along how many further axes voxels on both sides of a face may be one apart and still touch."""


@dataclass(frozen=True)
class Pieces:
    """The pieces of one block, in any order.

    Attributes:
        names: uint64 [n].
        labels: uint64 [n].
        voxels: int64 [n].
    """

    names: Ids
    labels: Ids
    voxels: NDArray[np.int64]


def find_pieces(labels: Ids, start: ZYX, shape: ZYX, connectivity: int) -> tuple[Ids, Pieces]:
    """The pieces of one block.

    Args:
        labels: uint64 zyx of the block, 0 = nothing.
        start: Of the block in the whole volume.
        shape: Of the whole volume.
        connectivity: 6, 18 or 26.

    Returns:
        The name of each voxel's piece, uint64 zyx, and the pieces.
    """
    numbers, count = cc3d.connected_components(labels, connectivity=connectivity, return_N=True)
    flat = numbers.ravel()
    first = np.empty(count + 1, np.int64)
    first[flat[::-1]] = np.arange(flat.size - 1, -1, -1)  # of several values for one place NumPy keeps the last
    found = labels.ravel()[first[1:]]
    z, y, x = (at + a for at, a in zip(np.unravel_index(first[1:], labels.shape), start, strict=True))
    names = np.zeros(count + 1, np.uint64)
    names[1:] = 1 + np.ravel_multi_index((z, y, x), shape)
    voxels = np.bincount(flat, minlength=count + 1)[1:]
    return names[numbers], Pieces(names[1:], found, voxels)


def planes_shape(axis: int, shape: ZYX, block: ZYX) -> ZYX:
    """Shape of `planes_<axis>` of a volume."""
    sizes = list(shape)
    sizes[axis] = 2 * -(-shape[axis] // block[axis])
    return sizes[0], sizes[1], sizes[2]


def outer_planes(names: Ids, axis: int) -> Ids:
    """The first and the last plane of a block along an axis, as its share of `planes_<axis>`."""
    return np.take(names, [0, names.shape[axis] - 1], axis=axis)


def planes_start(axis: int, start: ZYX, block: ZYX) -> ZYX:
    """Where the block at `start` has its share of `planes_<axis>`."""
    at = list(start)
    at[axis] = 2 * (start[axis] // block[axis])
    return at[0], at[1], at[2]


def touching(planes: tuple[Volume, Volume, Volume], part: Box, block: ZYX, connectivity: int) -> tuple[Ids, Ids]:
    """Names of pieces of the block `part` and of those of blocks before it that they touch, each pair once.

    Args:
        planes: `planes_<axis>` of the three axes.
        part: A block.
        block: Size of all blocks.
        connectivity: 6, 18 or 26.
    """
    found = [np.empty((0, 2), np.uint64)]
    for axis in range(3):
        if part.start[axis] > 0:
            found += _across(planes[axis], axis, part, block, connectivity)
    pairs = np.unique(np.concatenate(found), axis=0)
    return pairs[:, 0], pairs[:, 1]


def _across(planes: Volume, axis: int, part: Box, block: ZYX, connectivity: int) -> Iterator[Ids]:
    """Touching pairs across the first face of `part` along an axis, [n, 2]; some more than once."""
    at = planes_start(axis, part.start, block)[axis]
    own = planes.read(_plane(part, axis, at))
    whole = [part.stop[i] if i == axis else n for i, n in enumerate(planes.shape)]
    # One voxel more around the plane before it, as far as the volume goes.
    low, high = (max(a - 1, 0) for a in part.start), (min(b + 1, n) for b, n in zip(part.stop, whole, strict=True))
    wide = _plane(Box(tuple(low), tuple(high)), axis, at - 1)  # type: ignore[arg-type]
    before = planes.read(wide)
    for z, y, x in product((-1, 0, 1), repeat=3):
        aside = abs(z) + abs(y) + abs(x)
        if (z, y, x)[axis] == 0 and aside <= _ASIDE[connectivity]:
            yield from _overlaid(own, _plane(part, axis, at - 1), before, wide, (z, y, x))


def _plane(box: Box, axis: int, at: int) -> Box:
    start, stop = list(box.start), list(box.stop)
    start[axis], stop[axis] = at, at + 1
    return Box(tuple(start), tuple(stop))  # type: ignore[arg-type]


def _overlaid(own: Ids, place: Box, before: Ids, wide: Box, shift: ZYX) -> Iterator[Ids]:
    """Pairs of pieces of `own` and of those `shift` away in `before`."""
    common = place.shifted(shift).intersection(wide)
    if common is None:
        return
    a = own[common.shifted([-s for s in shift]).relative_to(place.start).slices].ravel()
    b = before[common.relative_to(wide.start).slices].ravel()
    changes = np.concatenate([[True], (a[1:] != a[:-1]) | (b[1:] != b[:-1])])
    pairs = np.stack([a[changes], b[changes]], axis=1)
    yield pairs[(pairs != 0).all(axis=1)]
