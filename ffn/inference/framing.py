"""How one flood fill sees its sub-volume: pooled from one voxel or another, with or without a mirrored rim, and turned.

    sub-volume ─> pooled ─> mirrored rim around it ─> turned ─> flood fill ─> turned back ─> rim cut off

A field of view has to lie within the image, so near the faces the network is asked only from inside, and it leaves
much of a rim as wide as half a field of view empty. With `inference.mirror` the image goes on beyond the faces as in a
mirror. Passes beyond the first see it turned: their mistakes fall in other places (`ffn.assembly.consensus`). Where
`network.downsample` pools voxels, each pass also begins to count at another one, so that together they know a boundary
better than to a network voxel.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ffn.config import Config
from ffn.geometry import ZYX
from ffn.model.orientation import Orientation, equal_axes
from ffn.volumes import Volume, VoxelSize, coarse_shape, coarse_voxel_size, coarsen, phases


@dataclass(frozen=True)
class Framing:
    """Arrays and positions of a sub-volume, and of what the flood fill sees of it.

    Attributes:
        size: Of the sub-volume in image voxels, zyx.
        factors: Image voxels in one network voxel, zyx.
        phase: Image voxels by which the first network voxel begins before the sub-volume, zyx.
        rim: Mirrored network voxels at each face, zyx.
        orientation: How the whole is turned.
    """

    size: ZYX
    factors: ZYX
    phase: ZYX
    rim: ZYX
    orientation: Orientation

    @classmethod
    def of(cls, config: Config, turn: int, size: ZYX, voxel_size: VoxelSize | None) -> "Framing":
        """A sub-volume of this size, turned one of the ways; `voxel_size` is that of an image voxel."""
        network, factors = config.network, config.network.downsample
        z, y, x = (n // 2 for n in network.fov) if config.inference.mirror else (0, 0, 0)
        starts = phases(factors)
        ways = Orientation.listed(equal_axes(network, coarse_voxel_size(voxel_size, factors)))
        return cls(size, factors, starts[turn % len(starts)], (z, y, x), ways[turn % len(ways)])

    @property
    def shape(self) -> ZYX:
        """Of the sub-volume in network voxels, zyx."""
        return coarse_shape(self.size, self.factors, self.phase)

    @property
    def wide(self) -> ZYX:
        """Shape with the rim, not turned."""
        z, y, x = (n + 2 * r for n, r in zip(self.shape, self.rim, strict=True))
        return z, y, x

    def pooled(self, volume: Volume) -> Volume:
        """The sub-volume's image in network voxels."""
        return coarsen(volume, self.factors, labels=False, phase=self.phase)

    def turned(self, plain: NDArray[Any]) -> NDArray[Any]:
        """What is seen of an array of the sub-volume, zyx in network voxels: grey values, labels or a mask."""
        wide = np.pad(plain, [(r, r) for r in self.rim], mode="reflect") if any(self.rim) else plain
        return np.ascontiguousarray(self.orientation.apply(wide))

    def turned_fine(self, labels: NDArray[np.uint32]) -> NDArray[np.uint32]:
        """The same for labels in image voxels; 0 in the rim."""
        wide = np.zeros([n * f for n, f in zip(self.wide, self.factors, strict=True)], np.uint32)
        wide[self._inside] = labels
        return np.ascontiguousarray(self.orientation.apply(wide))

    def plain(self, seen: NDArray[Any]) -> NDArray[Any]:
        """A view of an array in network voxels as the flood fill sees it: turned back and without the rim."""
        return self.orientation.undo(seen)[tuple(slice(r, r + n) for r, n in zip(self.rim, self.shape, strict=True))]

    def seen(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where positions (int [..., 3], network voxels of the sub-volume) are seen."""
        flat = positions.reshape(-1, 3) + np.array(self.rim)
        return self.orientation.positions(flat, self.wide).reshape(positions.shape)

    def seeds(self, listed: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where seeds (int [n, 3]) are seen. Ascending or descending ones are so there, others keep their order."""
        seen = self.seen(listed)
        for direction in (1, -1):
            if np.array_equal(_ascending(listed[::direction]), listed[::direction]):
                return _ascending(seen)[::direction]
        return seen

    def seeds_before(self, seen: NDArray[np.int64]) -> NDArray[np.int64]:
        """The inverse of `seeds`, in the order of `seen`."""
        return self.orientation.positions_before(seen, self.wide) - np.array(self.rim)

    def labels(self, seen: NDArray[np.uint32]) -> NDArray[np.uint32]:
        """Labels of the sub-volume itself, from those that the flood fill made; both in image voxels."""
        return self.orientation.undo(seen)[self._inside]

    def in_image_voxels(self, seen: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The same for values in network voxels, each repeated in all its image voxels."""
        values = self.orientation.undo(seen)
        for axis, factor in enumerate(self.factors):
            values = values.repeat(factor, axis) if factor > 1 else values
        return values[self._inside]

    @property
    def _inside(self) -> tuple[slice, ...]:
        """The sub-volume among the image voxels of all network voxels, the rim's included."""
        starts = (r * f + p for r, f, p in zip(self.rim, self.factors, self.phase, strict=True))
        return tuple(slice(a, a + n) for a, n in zip(starts, self.size, strict=True))

    def in_image(self, position: Sequence[int]) -> ZYX:
        """The image voxel, counted in the sub-volume, in the middle of a network voxel of it."""
        z, y, x = (
            min(max(p * f + f // 2 - start, 0), n - 1)
            for p, f, start, n in zip(position, self.factors, self.phase, self.size, strict=True)
        )
        return z, y, x


def _ascending(positions: NDArray[np.int64]) -> NDArray[np.int64]:
    return positions[np.lexsort(positions.T[::-1])]
