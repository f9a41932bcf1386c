"""Writing the segmentation in which joined segments have one id, block by block."""

from pathlib import Path

import fastremap
import numpy as np
from numpy.typing import NDArray

from ffn.assembly.fill import Filling
from ffn.config import Assembly
from ffn.geometry import Box, blocks
from ffn.inference.results import LABELS
from ffn.progress import Progress
from ffn.volumes import Volume, VoxelSize, chunk_dividing, chunk_within, create_hdf5


def write_relabelled(
    path: Path,
    labels: Volume,
    objects: NDArray[np.uint64],
    box: Box,
    rule: Assembly,
    voxel_size: VoxelSize,
    filling: Filling | None,
) -> int:
    """Write `path:labels` with the shape of `labels`; the file appears when it is complete.

    Args:
        path: HDF5 file to make.
        labels: Segments, zyx.
        objects: Id of each segment, [0] = 0; those beyond it keep their ids.
        box: Where the labels lie in the image.
        rule: Its `block`, voxels held in memory at once, per array, and its `dtype`.
        voxel_size: Nanometres, zyx.
        filling: Where given, voxels without an object are filled.

    Returns:
        How many ids have voxels in the result.
    """
    chunk = chunk_within(chunk_dividing(rule.block), labels.shape)
    present = np.zeros(len(objects), np.bool_)
    with (
        create_hdf5(path, LABELS, labels.shape, rule.dtype, voxel_size, chunk=chunk, offset=box.start) as volume,
        Progress("agglomerated segmentation", box.voxels, "voxels") as progress,
    ):
        for part in blocks(Box.of_shape(labels.shape), rule.block):
            place = part.shifted(box.start)
            wide = place if filling is None else filling.surroundings(place, box)
            values = _joined(labels.read(wide.relative_to(box.start)), objects)
            values = values if filling is None else filling.filled(values, wide)
            values = values[place.relative_to(wide.start).slices]
            volume.write(part, values.astype(rule.dtype))
            ids = fastremap.unique(values)
            present = _with_room(present, int(ids[-1]))
            present[ids] = True
            progress.advance(part.voxels)
    return int(np.count_nonzero(present[1:]))


def _joined(labels: NDArray[np.uint64], objects: NDArray[np.uint64]) -> NDArray[np.uint64]:
    known = labels < len(objects)
    return np.where(known, objects[np.where(known, labels, 0)], labels)


def _with_room(present: NDArray[np.bool_], largest: int) -> NDArray[np.bool_]:
    if largest < len(present):
        return present
    return np.append(present, np.zeros(largest + 1, np.bool_))
