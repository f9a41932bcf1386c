"""Pieces: voxels of one label that hang together inside one block; and which pieces touch across the faces of blocks.

A piece is named by its first voxel in the order z, y, x of the whole volume, counted from 1. So its name does not
depend on which process found it, and the smallest name of the pieces of an object is the first voxel of the object,
whatever the blocks. Within its block a piece has a number, from 1 in the order of the names; that is what is stored.

All pieces of a volume are numbered densely, from 0, one block after the other. Two voxels of different blocks that
touch lie in two planes on both sides of a face, maybe shifted by one voxel along the other two axes:

    block before   |   block
           before  |  own         the planes that are read, `before` one voxel wider along the other axes
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import cc3d
import numpy as np
from numpy.typing import NDArray

from ffn.blockwise import Grid
from ffn.geometry import ZYX, Box
from ffn.volumes import Volume

Ids = NDArray[np.uint64]
_STRETCH = 1 << 22

_ASIDE = {6: 0, 18: 1, 26: 2}
"""Along how many further axes voxels on both sides of a face may be one apart and still touch."""


@dataclass(frozen=True)
class Pieces:
    """The pieces of one block, in the order of their names.

    Attributes:
        names: uint64 [n].
        labels: uint64 [n].
        voxels: int64 [n].
    """

    names: Ids
    labels: Ids
    voxels: NDArray[np.int64]


def find_pieces(labels: Ids, start: ZYX, shape: ZYX, connectivity: int) -> tuple[NDArray[np.uint32], Pieces]:
    """The pieces of one block.

    Args:
        labels: uint64 zyx of the block, 0 = nothing.
        start: Of the block in the whole volume.
        shape: Of the whole volume.
        connectivity: 6, 18 or 26.

    Returns:
        The number of each voxel's piece, uint32 zyx, 0 = none, and the pieces in the order of their numbers.
    """
    numbers, count = cc3d.connected_components(labels, connectivity=connectivity, out_dtype=np.uint32, return_N=True)
    flat = numbers.ravel()
    first, voxels = np.zeros(count + 1, np.int64), np.zeros(count + 1, np.int64)
    for begin in reversed(range(0, flat.size, _STRETCH)):
        here = flat[begin : begin + _STRETCH]
        voxels += np.bincount(here, minlength=count + 1)
        first[here[::-1]] = np.arange(begin + len(here) - 1, begin - 1, -1)  # of several for one place the last is kept
    order = np.argsort(first[1:])
    if (order[1:] < order[:-1]).any():
        renumbered = np.zeros(count + 1, np.uint32)
        renumbered[1 + order] = np.arange(1, count + 1, dtype=np.uint32)
        numbers = renumbered[numbers]
    first, voxels = first[1:][order], voxels[1:][order]
    found = labels.ravel()[first]
    z, y, x = (at + a for at, a in zip(np.unravel_index(first, labels.shape), start, strict=True))
    names = 1 + np.ravel_multi_index((z, y, x), shape).astype(np.uint64)
    return numbers, Pieces(names, found, voxels)


class DenseNumbers:
    """The dense number of each voxel's piece, read from the numbers within blocks.

    Args:
        numbers: uint32, number of each voxel's piece in its block, from 1; 0 = none.
        grid: The blocks.
        offsets: Dense number of the first piece of each block, and that of all, int64 [blocks + 1].
    """

    def __init__(self, numbers: Volume, grid: Grid, offsets: NDArray[np.int64]) -> None:
        self._numbers, self._grid, self.offsets = numbers, grid, offsets

    def read(self, box: Box) -> NDArray[np.int64]:
        """Dense numbers of voxels, int64 zyx; -1 = none."""
        values = self._numbers.read(box).astype(np.int64) - 1
        for number, part in self._grid.meeting(box):
            here = values[part.relative_to(box.start).slices]
            here[here >= 0] += self.offsets[number]
        return values

    def units_of(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """The block of each piece."""
        return np.searchsorted(self.offsets, numbers, side="right") - 1


def touching(
    numbers: DenseNumbers, grid: Grid, unit: int, connectivity: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Dense numbers of pieces of a block and of those of blocks before it that they touch, each pair once.

    Args:
        numbers: Of the whole volume.
        grid: The blocks, counted from 0,0,0.
        unit: Number of the block.
        connectivity: 6, 18 or 26.
    """
    found = [np.empty((0, 2), np.int64)]
    for axis in range(3):
        if grid[unit].start[axis] > 0:
            found += _across(numbers, axis, grid[unit], grid.box, connectivity)
    pairs = np.unique(np.concatenate(found), axis=0)
    return pairs[:, 0], pairs[:, 1]


def _across(numbers: DenseNumbers, axis: int, part: Box, whole: Box, connectivity: int) -> Iterator[NDArray[np.int64]]:
    """Touching pairs across the first face of `part` along an axis, [n, 2]; some more than once."""
    own, before = _plane(part, axis, part.start[axis]), _plane(part, axis, part.start[axis] - 1)
    aside = [0 if i == axis else 1 for i in range(3)]
    wide = before.widened(aside, whole)
    values, values_before = numbers.read(own), numbers.read(wide)
    for z, y, x in product((-1, 0, 1), repeat=3):
        shifts = abs(z) + abs(y) + abs(x)
        if (z, y, x)[axis] == 0 and shifts <= _ASIDE[connectivity]:
            yield from _overlaid(values, before, values_before, wide, (z, y, x))


def _plane(box: Box, axis: int, at: int) -> Box:
    start, stop = list(box.start), list(box.stop)
    start[axis], stop[axis] = at, at + 1
    return Box(tuple(start), tuple(stop))  # type: ignore[arg-type]


def _overlaid(
    own: NDArray[np.int64], place: Box, before: NDArray[np.int64], wide: Box, shift: ZYX
) -> Iterator[NDArray[np.int64]]:
    """Pairs of pieces of `own` and of those `shift` away in `before`."""
    common = place.shifted(shift).intersection(wide)
    if common is None:
        return
    a = own[common.shifted([-s for s in shift]).relative_to(place.start).slices].ravel()
    b = before[common.relative_to(wide.start).slices].ravel()
    changes = np.concatenate([[True], (a[1:] != a[:-1]) | (b[1:] != b[:-1])])
    pairs = np.stack([a[changes], b[changes]], axis=1)
    yield pairs[(pairs >= 0).all(axis=1)]
