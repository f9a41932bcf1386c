"""How the voxels of two volumes of one region relate, where one has a lower resolution."""

from fractions import Fraction

from ffn.errors import VolumeError
from ffn.geometry import ZYX
from ffn.volumes.base import Volume, VoxelSize

Scale = tuple[Fraction, Fraction, Fraction]
"""zyx: how many voxels of the one make up a voxel of the other along an axis; n or 1/n."""

_TOLERANCE = 0.01


def scale_of(volume: Volume, shape: ZYX, voxel_size: VoxelSize | None) -> Scale:
    """How many voxels of an image make up a voxel of `volume`, which covers the same region.

    Along each axis either volume may have n times the voxels of the other; what is left over at the end of the finer
    one lies in a last voxel of the coarser one.

    Args:
        volume: The one whose scale is asked for.
        shape: Of the image, zyx.
        voxel_size: Of the image. Where the volume states its own too, the two say what n is, else the shapes.

    Raises:
        VolumeError: the shapes, or the voxel sizes, do not belong to one region.
    """
    if volume.voxel_size is None or voxel_size is None:
        z, y, x = (_of_counts(own, n) for own, n in zip(volume.shape, shape, strict=True))
    else:
        z, y, x = (_nearest(own / edge) for own, edge in zip(volume.voxel_size, voxel_size, strict=True))
        for axis, factor, own, edge in zip("zyx", (z, y, x), volume.voxel_size, voxel_size, strict=True):
            if abs(float(factor) * edge - own) > _TOLERANCE * own:
                raise VolumeError(
                    f"{volume.uri} has voxels of {own:g} nm along {axis}, the image of {edge:g} nm; expected a whole "
                    "multiple or fraction of it. Resample the volume, or correct its voxel size."
                )
    require_scale(volume, shape, (z, y, x))
    return z, y, x


def require_scale(volume: Volume, shape: ZYX, scale: Scale) -> None:
    """Raise VolumeError unless a `volume` of this scale has as many voxels as the image's `shape` (zyx) asks for."""
    for own, n, factor in zip(volume.shape, shape, scale, strict=True):
        if -(-n // factor.numerator) != -(-own // factor.denominator):
            expected = tuple(-(-n * s.denominator // s.numerator) for n, s in zip(shape, scale, strict=True))
            raise VolumeError(
                f"{volume.uri} has {volume.shape} voxels (z,y,x), the image {shape}; expected a volume of the same "
                f"region, with {expected} voxels, or at a resolution that is a whole multiple or fraction."
            )


def _of_counts(own: int, image: int) -> Fraction:
    return Fraction(-(-image // own)) if own <= image else Fraction(1, -(-own // image))


def _nearest(ratio: float) -> Fraction:
    return Fraction(round(ratio)) if ratio >= 1 else Fraction(1, round(1 / ratio))
