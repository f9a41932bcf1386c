"""Whether volumes fit each other and the network, before any work is done."""

from collections.abc import Sequence

from ffn.errors import DataError, GeometryError, VolumeError
from ffn.geometry import Box, blocks
from ffn.volumes.base import Volume

_BLOCK = (64, 256, 256)


def check_pair(image: Volume, labels: Volume) -> None:
    """Raise VolumeError unless the labels have the image's shape."""
    if image.shape != labels.shape:
        raise VolumeError(
            f"Image and labels differ in shape (z,y,x): {image.uri} has {image.shape}, {labels.uri} has "
            f"{labels.shape}; each voxel of the image needs one label."
        )


def check_fov(shape: Sequence[int], fov: Sequence[int], what: str = "the volume") -> None:
    """Raise GeometryError unless a field of view `fov` fits into `shape` (both zyx voxels)."""
    for axis, size, need in zip("zyx", shape, fov, strict=True):
        if need > size:
            raise GeometryError(
                f"The field of view ({need} voxels along {axis}) is larger than {what} ({size}); "
                "use a smaller network.fov or a larger volume."
            )


def check_labels_not_empty(labels: Volume) -> None:
    """Raise DataError unless at least one voxel is labelled; reads block by block and stops at the first."""
    for block in blocks(Box.of_shape(labels.shape), _BLOCK):
        if labels.read(block).any():
            return
    raise DataError(
        f"{labels.uri} has no labelled voxel in [{labels.bounds}]: every label is 0 (unknown). "
        "Choose a box with ground truth, or another dataset."
    )
