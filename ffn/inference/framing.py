"""How one flood fill sees its sub-volume: with or without a mirrored rim, and turned one way or another.

    sub-volume ─> mirrored rim around it ─> turned ─> flood fill ─> turned back ─> rim cut off

A field of view has to lie within the image, so near the faces the network is asked only from inside, and it leaves
much of a rim as wide as half a field of view empty. With `inference.mirror` the image goes on beyond the faces as in a
mirror. Passes beyond the first see it turned: their mistakes fall in other places (`ffn.assembly.consensus`).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ffn.config import Config
from ffn.geometry import ZYX
from ffn.model.orientation import Orientation, equal_axes
from ffn.volumes import VoxelSize


@dataclass(frozen=True)
class Framing:
    """Arrays and positions of a sub-volume, and of what the flood fill sees of it; all in network voxels.

    Attributes:
        shape: Of the sub-volume, zyx.
        rim: Mirrored voxels at each face, zyx.
        orientation: How the whole is turned.
    """

    shape: ZYX
    rim: ZYX
    orientation: Orientation

    @classmethod
    def of(cls, config: Config, number: int, shape: ZYX, voxel_size: VoxelSize | None) -> "Framing":
        """Pass `number` of a sub-volume of this shape; `voxel_size` is that of a network voxel."""
        z, y, x = (size // 2 for size in config.network.fov) if config.inference.mirror else (0, 0, 0)
        return cls(shape, (z, y, x), Orientation.listed(equal_axes(config.network, voxel_size))[number])

    @property
    def wide(self) -> ZYX:
        """Shape with the rim, not turned."""
        z, y, x = (n + 2 * r for n, r in zip(self.shape, self.rim, strict=True))
        return z, y, x

    def image(self, grey: NDArray[np.float32]) -> NDArray[np.float32]:
        """What is seen of the grey values, float32 zyx."""
        wide = np.pad(grey, [(r, r) for r in self.rim], mode="reflect") if any(self.rim) else grey
        return np.ascontiguousarray(self.orientation.apply(wide))

    def seeds(self, seeds: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where seeds (int [n, 3]) are seen, ascending there."""
        return np.unique(self.orientation.positions(seeds + np.array(self.rim), self.wide), axis=0)

    def seeds_before(self, seen: NDArray[np.int64]) -> NDArray[np.int64]:
        """The inverse of `seeds`, in the order of `seen`."""
        return self.orientation.positions_before(seen, self.wide) - np.array(self.rim)

    def labels(self, seen: NDArray[np.uint32], factors: ZYX) -> NDArray[np.uint32]:
        """Labels of the sub-volume itself, in image voxels of which `factors` (zyx) make one network voxel.

        Args:
            seen: As the flood fill made them, in image voxels too.
            factors: As in the sub-volume.
        """
        inner = [slice(r * f, (r + n) * f) for r, n, f in zip(self.rim, self.shape, factors, strict=True)]
        return self.orientation.undo(seen)[tuple(inner)]
