"""How large the volume is that will be segmented, and its sub-volumes."""

from dataclasses import dataclass
from math import prod

from ffn.config import Config, Region
from ffn.errors import FFNError
from ffn.geometry import ZYX, Box, overlapping_tiles
from ffn.runs import SYNTHETIC
from ffn.volumes import VoxelSize, open_volume

_CUBES: VoxelSize = (1.0, 1.0, 1.0)


@dataclass(frozen=True)
class Extent:
    """A region and how it is cut.

    Attributes:
        region: Its shape in voxels, z,y,x.
        tile: Shape of its sub-volumes; all have the same.
        overlap: Voxels that neighbours share, at least; 0 where there is one sub-volume.
        count: Number of sub-volumes.
        voxel_size: Nanometres z,y,x; cubes where unknown.
    """

    region: ZYX
    tile: ZYX
    overlap: ZYX
    count: int
    voxel_size: VoxelSize = _CUBES

    @classmethod
    def of(cls, region: ZYX, size: ZYX | None, overlap: ZYX, voxel_size: VoxelSize = _CUBES) -> "Extent":
        """A region cut into sub-volumes of `size`; None = not cut. Raises GeometryError if the overlap is larger."""
        if size is None:
            return cls(region, region, (0, 0, 0), 1, voxel_size)
        tiles = overlapping_tiles(Box.of_shape(region), size, overlap)
        return cls(region, tiles[0].shape, overlap if len(tiles) > 1 else (0, 0, 0), len(tiles), voxel_size)

    @property
    def voxels(self) -> int:
        return prod(self.region)

    @property
    def tile_voxels(self) -> int:
        return prod(self.tile)

    @property
    def filled(self) -> int:
        """Voxels of all sub-volumes: those that are shared count as often as they are filled."""
        return self.count * self.tile_voxels


def extent_of(config: Config) -> Extent | None:
    """The test region as configured; None where its size is only known once its image is there."""
    inference = config.inference
    found = _looked_at(config, config.data.test)
    if found is None:
        return None
    region, voxel_size = found
    return Extent.of(
        region, inference.subvolume_size, inference.subvolume_overlap, config.data.voxel_size or voxel_size
    )


def region_shape(config: Config, region: Region) -> ZYX | None:
    """Voxels z,y,x of a region as configured; None where they are only known once its image is there."""
    if region.bounds is not None:
        return region.bounds.shape
    found = _looked_at(config, region)
    return None if found is None else found[0]


def _looked_at(config: Config, region: Region) -> tuple[ZYX, VoxelSize] | None:
    """Shape and voxel size of a region."""
    if region.image == SYNTHETIC:
        shape, voxel_size = config.synthetic.shape, config.synthetic.voxel_size
    else:
        try:
            with open_volume(region.image) as image:
                shape, voxel_size = image.shape, image.voxel_size or _CUBES
        except FFNError:
            if region.bounds is None:
                return None
            voxel_size = _CUBES
    return (shape if region.bounds is None else region.bounds.shape), voxel_size
