"""Flips and axis swaps: the ways to turn a volume in which the network sees it alike."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations, product
from typing import Any

import numpy as np

from ffn.config import Network
from ffn.geometry import ZYX
from ffn.volumes import VoxelSize

_AXES = "zyx"
_PURPOSE = 0xA46


def equal_axes(network: Network, voxel_size: VoxelSize | None) -> list[str]:
    """The axes that may be swapped: of equal voxel size, fov and deltas; sizes are nanometres of network voxels.

    Where nothing is known of the voxels, z counts as different from y and x.
    """
    sizes = voxel_size or (0.0, 1.0, 1.0)
    kinds = [(round(size, 3), *rest) for size, *rest in zip(sizes, network.fov, network.deltas, strict=True)]
    return [axis for axis, kind in zip(_AXES, kinds, strict=True) if kinds.count(kind) > 1]


@dataclass(frozen=True)
class Orientation:
    """One of the ways to turn a volume: axes in their new order, then the new axes to mirror (numbers, 0 = z)."""

    order: ZYX
    mirrored: tuple[int, ...]

    @classmethod
    def draw(cls, seed: int, number: int, permutable: Sequence[str], reflectable: Sequence[str]) -> "Orientation":
        """The orientation of the training example with the global draw `number`.

        The permutable axes are put into a random order, then each reflectable axis is mirrored with probability 1/2.
        """
        random = np.random.default_rng([seed, _PURPOSE, number])
        swapped = sorted(_AXES.index(axis) for axis in set(permutable))
        order = [0, 1, 2]
        for place, axis in zip(swapped, random.permutation(swapped), strict=True):
            order[place] = int(axis)
        coins = random.random(3) < 0.5
        mirrored = tuple(axis for axis in range(3) if coins[axis] and _AXES[axis] in reflectable)
        return cls((order[0], order[1], order[2]), mirrored)

    @classmethod
    def listed(cls, permutable: Sequence[str]) -> "list[Orientation]":
        """All of them, 8 to 48: the volume as it is, then the others in a fixed random order."""
        fixed = [axis for axis in range(3) if _AXES[axis] not in permutable]
        orders: list[ZYX] = [(z, y, x) for z, y, x in permutations(range(3)) if all((z, y, x)[a] == a for a in fixed)]
        mirrors = [tuple(axis for axis in range(3) if coin[axis]) for coin in product((False, True), repeat=3)]
        unturned, *others = (cls(order, mirrored) for order, mirrored in product(orders, mirrors))
        return [unturned, *(others[place] for place in np.random.default_rng(_PURPOSE).permutation(len(others)))]

    def reordered(self, values: ZYX) -> ZYX:
        """What belongs to the axes, such as a shape or a size, as the turned volume has it."""
        z, y, x = (values[axis] for axis in self.order)
        return z, y, x

    def apply(self, patch: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """A view of a zyx patch, turned; the centre voxel of an odd-sized patch stays the centre."""
        turned = patch.transpose(self.order)
        return np.flip(turned, self.mirrored) if self.mirrored else turned

    def undo(self, patch: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """A view of what `apply` made, turned back."""
        unmirrored = np.flip(patch, self.mirrored) if self.mirrored else patch
        return unmirrored.transpose(np.argsort(self.order))

    def positions(self, points: np.ndarray[Any, Any], shape: ZYX) -> np.ndarray[Any, Any]:
        """Where voxels `points` (int [n, 3], zyx) of a volume of this shape lie in the turned volume."""
        turned = points[:, list(self.order)]
        for axis in self.mirrored:
            turned[:, axis] = shape[self.order[axis]] - 1 - turned[:, axis]
        return turned

    def positions_before(self, points: np.ndarray[Any, Any], shape: ZYX) -> np.ndarray[Any, Any]:
        """The inverse of `positions`: `shape` is that of the volume before it was turned."""
        turned = points.copy()
        for axis in self.mirrored:
            turned[:, axis] = shape[self.order[axis]] - 1 - turned[:, axis]
        return turned[:, np.argsort(self.order)]
