"""What a seed policy sees of a sub-volume, when its turn comes."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ffn.geometry import ZYX, Box
from ffn.volumes import VoxelSize

Seeds = NDArray[np.int64]
"""int64 [n, 3], z, y, x in network voxels of the sub-volume, in the order in which they are tried."""


@dataclass(frozen=True)
class FineImage:
    """A sub-volume as it is stored, where `network.downsample` pools several of its voxels into one.

    Attributes:
        image: float32 [z, y, x], normalised, in image voxels.
        factors: Image voxels in one network voxel, zyx.
        phase: Image voxels by which the first network voxel begins before the sub-volume, zyx.
    """

    image: NDArray[np.float32]
    factors: ZYX
    phase: ZYX = (0, 0, 0)

    def spread(self, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """The image voxels of the network voxels that a mask [z, y, x] holds."""
        for axis, (factor, start, size) in enumerate(zip(self.factors, self.phase, self.image.shape, strict=True)):
            mask = mask.take((np.arange(size) + start) // factor, axis)
        return mask


@dataclass(frozen=True)
class SeedView:
    """A sub-volume at the moment when a stage of a policy lists its seeds.

    Attributes:
        image: float32 [z, y, x], normalised, in network voxels.
        labels: uint32 [z, y, x], above 0 what segments have taken.
        exclusion: bool [z, y, x], where no seed may be; None = nowhere.
        voxel_size: Edges of a network voxel along z, y, x, in any unit: only their ratios matter.
        fov: Field of view z, y, x in network voxels; a seed keeps fov//2 of them to every face.
        fine: The sub-volume in image voxels; None where these are the network's.
        box: Of the sub-volume in the image, in image voxels: only PolicyInvertOrigins asks for it.
    """

    image: NDArray[np.float32]
    labels: NDArray[np.uint32]
    exclusion: NDArray[np.bool_] | None
    voxel_size: VoxelSize
    fov: ZYX
    fine: FineImage | None = None
    box: Box | None = None

    @property
    def refused(self) -> NDArray[np.bool_]:
        """bool [z, y, x]: taken or excluded, so that a seed there would be refused at once."""
        taken = self.labels > 0
        return taken if self.exclusion is None else taken | self.exclusion
