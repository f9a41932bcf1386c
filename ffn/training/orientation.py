"""Flips and axis swaps of a training example: a pure function of the seed and of the example's number."""

from collections.abc import Sequence
from dataclasses import dataclass
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
    """One of the ways to turn a patch: axes in their new order, then the axes to mirror (numbers, 0 = z)."""

    order: ZYX
    mirrored: tuple[int, ...]

    @classmethod
    def draw(cls, seed: int, number: int, permutable: Sequence[str], reflectable: Sequence[str]) -> "Orientation":
        """The orientation of the example with the global draw `number`.

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

    def apply(self, patch: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """A view of a zyx patch, turned; the centre voxel of an odd-sized patch stays the centre."""
        turned = patch.transpose(self.order)
        return np.flip(turned, self.mirrored) if self.mirrored else turned
