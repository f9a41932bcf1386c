"""Writing the global label volume block by block from the sub-volumes' labels.

Where sub-volumes overlap, a voxel gets the label of the sub-volume whose centre is nearest (for equally large ones the
middle of the overlap is the border between them); where that one is empty, of the next nearest that is not. Equal
distances go to the sub-volume that comes first.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ffn.assembly.fill import Filling
from ffn.geometry import ZYX, Box, blocks
from ffn.progress import Progress
from ffn.volumes import VoxelSize, create_hdf5, open_volume

LABELS = "labels"
LARGEST_CHUNK = 64


@dataclass(frozen=True)
class LabelledTile:
    """One sub-volume's labels: where they lie in the common volume, and where they are stored."""

    box: Box
    uri: str
    ids: NDArray[np.uint64]
    """Global id of each local id, [0] = 0."""


def write_segmentation(
    path: Path,
    tiles: Sequence[LabelledTile],
    box: Box,
    block: ZYX,
    voxel_size: VoxelSize | None,
    filling: Filling | None = None,
    what: str = "assemble",
) -> NDArray[np.uint64]:
    """Write `path:labels`, uint64 with the shape of `box`; the file appears when it is complete.

    Args:
        path: HDF5 file to make.
        tiles: Sub-volumes in the order that decides ties.
        box: Voxels of the common volume to write; outside all tiles the result is 0.
        block: Voxels held in memory at once, per array; the file's chunks divide it.
        voxel_size: Nanometres z,y,x, or None.
        filling: Where given, voxels without an object are filled.
        what: Name of the progress.

    Returns:
        uint64: the ids that have voxels in the result, ascending.
    """
    chunk = tuple(_chunk(size) for size in block)
    present: NDArray[np.uint64] = np.empty(0, np.uint64)
    with (
        create_hdf5(path, LABELS, box.shape, np.uint64, voxel_size, chunk=chunk, offset=box.start) as volume,  # type: ignore[arg-type]
        Progress(what, box.voxels, "voxels") as progress,
    ):
        for part in blocks(Box.of_shape(box.shape), block):
            labels = _labels_of(tiles, part.shifted(box.start), box, filling)
            found = np.unique(labels)
            present = np.union1d(present, found[found != 0])
            volume.write(part, labels)
            progress.advance(part.voxels)
    return present


def _labels_of(tiles: Sequence[LabelledTile], part: Box, box: Box, filling: Filling | None) -> NDArray[np.uint64]:
    if filling is None:
        return merged_labels(tiles, part)
    wide = filling.surroundings(part, box)
    return filling.filled(merged_labels(tiles, wide), wide)[part.relative_to(wide.start).slices]


def merged_labels(tiles: Sequence[LabelledTile], part: Box) -> NDArray[np.uint64]:
    """Global labels, uint64 zyx, of the voxels `part` of the common volume."""
    merged = np.zeros(part.shape, np.uint64)
    nearest = np.full(part.shape, np.iinfo(np.int64).max, np.int64)
    for tile in tiles:
        shared = tile.box.intersection(part)
        if shared is None:
            continue
        with open_volume(tile.uri) as volume:
            labels = tile.ids[volume.read(shared.relative_to(tile.box.start))]
        where = shared.relative_to(part.start).slices
        distance = _distance_to_centre(shared, tile.box)
        takes = (labels != 0) & (distance < nearest[where])
        merged[where][takes] = labels[takes]
        nearest[where][takes] = distance[takes]
    return merged


def _distance_to_centre(part: Box, tile: Box) -> NDArray[np.int64]:
    """Squared distance of each voxel of `part` to the centre of `tile`, in half voxels (so that it is whole)."""
    axes = (
        (2 * np.arange(a, b, dtype=np.int64) - (first + last - 1)) ** 2
        for a, b, first, last in zip(part.start, part.stop, tile.start, tile.stop, strict=True)
    )
    z, y, x = axes
    return z[:, None, None] + y[None, :, None] + x[None, None, :]


def _chunk(size: int) -> int:
    """The largest divisor of a block's edge that makes a moderate chunk, so that no chunk is written in two parts."""
    return max(n for n in range(1, min(size, LARGEST_CHUNK) + 1) if size % n == 0)
