"""Voxels that no object took are given to the objects around them, up to a distance.

Flood filling stops short of membranes, and of whatever it was not sure of. From the finished objects a watershed on the
image goes on, bright voxels first: in EM the inside of a neuron is bright and its membrane dark, so neighbours meet on
the membrane between them. Without a bound it would also give neurons in which no seed grew to their neighbours.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import edt
import numpy as np
from numpy.typing import NDArray

from ffn.config import Config
from ffn.errors import ConfigError
from ffn.geometry import Box
from ffn.runs import image_uri
from ffn.volumes import Volume, VoxelSize, open_image

_SMOOTHING = 1.0
"""Standard deviation of the Gaussian on the image before the watershed, in shortest voxel edges."""


@dataclass(frozen=True)
class Filling:
    """What to fill.

    Attributes:
        distance_nm: Voxels with an object this near are filled.
        image: Grey values, uint8 zyx, in whose voxels the boxes are given.
        voxel_size: Nanometres, zyx.
    """

    distance_nm: float
    image: Volume
    voxel_size: VoxelSize

    def surroundings(self, part: Box, limits: Box) -> Box:
        """The voxels to look at so that `part` can be filled: twice the distance around it, inside `limits`.

        The distance would do for which voxels are filled. By which object is decided along paths that may come from
        farther away, in rare cases from beyond the surroundings.
        """
        return part.widened([math.ceil(2 * self.distance_nm / edge) for edge in self.voxel_size], limits)

    def filled(self, labels: NDArray[np.uint64], box: Box) -> NDArray[np.uint64]:
        """Labels, uint64 zyx, of the voxels `box`, with 0 only where no object is near."""
        return fill(labels, self.image.read(box), self.distance_nm, self.voxel_size)


def check_fill(distance_nm: float, voxel_size: VoxelSize | None) -> None:
    """Raise ConfigError where there is a distance but no voxel size that it could be counted in."""
    if distance_nm > 0 and voxel_size is None:
        raise ConfigError("assembly.fill_nm is in nanometres, but the voxel size is unknown: give data.voxel_size.")


@contextmanager
def open_filling(config: Config, distance_nm: float, voxel_size: VoxelSize | None) -> Iterator[Filling | None]:
    """The filling of a run's test region up to a distance; None where that is 0."""
    if distance_nm == 0 or voxel_size is None:
        yield None
        return
    with open_image(image_uri(config, config.data.test)) as image:
        yield Filling(distance_nm, image, voxel_size)


def fill(
    labels: NDArray[np.uint64], image: NDArray[np.generic], distance_nm: float, voxel_size: VoxelSize
) -> NDArray[np.uint64]:
    """Extend labels into the voxels of label 0 that are at most `distance_nm` from a labelled one.

    Args:
        labels: uint64 [z, y, x], 0 = free. Labelled voxels keep their label.
        image: Grey values of the same shape; boundaries are dark.
        distance_nm: Between the centres of voxels.
        voxel_size: Nanometres, zyx.
    """
    ids, markers = np.unique(labels, return_inverse=True)
    nothing_free, all_free = ids[0] != 0, len(ids) == 1
    if nothing_free or all_free:
        return labels
    from scipy import ndimage  # here: they take a quarter of a second to load, and most runs fill nothing
    from skimage.segmentation import watershed

    distance = edt.edt(labels == 0, anisotropy=voxel_size, black_border=False, order="C", parallel=1)
    steps = [_SMOOTHING * min(voxel_size) / edge for edge in voxel_size]
    height = -ndimage.gaussian_filter(image.astype(np.float32), steps)
    # skimage keeps labels in 32 bits: the places of the ids in a sorted list fit.
    markers = markers.reshape(labels.shape).astype(np.int32)
    return ids[watershed(height, markers, mask=distance <= distance_nm)]
