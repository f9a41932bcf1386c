"""Writing the segmentation in which joined segments have one id, block by block."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ffn.assembly.fill import Filling
from ffn.geometry import ZYX, Box, blocks
from ffn.progress import Progress
from ffn.volumes import Volume, VoxelSize, chunk_within, create_hdf5

LABELS = "labels"
_CHUNK = (64, 64, 64)


def write_relabelled(
    path: Path,
    labels: Volume,
    objects: NDArray[np.uint64],
    box: Box,
    block: ZYX,
    voxel_size: VoxelSize,
    filling: Filling | None,
) -> int:
    """Write `path:labels`, uint64 with the shape of `labels`; the file appears when it is complete.

    Args:
        path: HDF5 file to make.
        labels: Segments, zyx.
        objects: Id of each segment, [0] = 0.
        box: Where the labels lie in the image.
        block: Voxels held in memory at once, per array.
        voxel_size: Nanometres, zyx.
        filling: Where given, voxels without an object are filled.

    Returns:
        How many ids have voxels in the result.
    """
    present = np.zeros(int(objects.max(initial=0)) + 1, np.bool_)
    chunk = chunk_within(_CHUNK, labels.shape)

    def read(place: Box) -> NDArray[np.uint64]:
        return objects[labels.read(place.relative_to(box.start))]

    with (
        create_hdf5(path, LABELS, labels.shape, np.uint64, voxel_size, chunk=chunk, offset=box.start) as volume,
        Progress("agglomerated segmentation", box.voxels, "voxels") as progress,
    ):
        for part in blocks(Box.of_shape(labels.shape), block):
            place = part.shifted(box.start)
            wide = place if filling is None else filling.surroundings(place, box)
            values = read(wide) if filling is None else filling.filled(read(wide), wide)
            values = values[place.relative_to(wide.start).slices]
            volume.write(part, values)
            present[np.unique(values)] = True
            progress.advance(part.voxels)
    return int(np.count_nonzero(present[1:]))
