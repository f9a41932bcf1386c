"""One label for each voxel where sub-volumes overlap.

A voxel gets the label of the sub-volume whose centre is nearest (for equally large ones the middle of the overlap is
the border between them); where that one is empty, of the next nearest that is not. Equal distances go to the sub-volume
that comes first.
"""

import numpy as np
from numpy.typing import NDArray

from ffn.assembly.labelled import OpenLabels
from ffn.geometry import Box


def merged_labels(labels: OpenLabels, part: Box) -> NDArray[np.uint64]:
    """Global labels, uint64 zyx, of the voxels `part` of the common volume; 0 outside all sub-volumes."""
    boxes = labels.tiles.boxes
    near = labels.tiles.index.meeting(part).tolist()
    if len(near) == 1 and boxes[near[0]].contains(part):
        return labels.assembled(near[0], part)
    merged = np.zeros(part.shape, np.uint64)
    nearest = np.full(part.shape, np.iinfo(np.int64).max, np.int64)
    for number in near:
        shared = boxes[number].intersection(part)
        if shared is None:
            continue
        found = labels.assembled(number, shared)
        where = shared.relative_to(part.start).slices
        distance = _distance_to_centre(shared, boxes[number])
        takes = (found != 0) & (distance < nearest[where])
        np.copyto(merged[where], found, where=takes)
        np.copyto(nearest[where], distance, where=takes)
    return merged


def _distance_to_centre(part: Box, tile: Box) -> NDArray[np.int64]:
    """Squared distance of each voxel of `part` to the centre of `tile`, in half voxels (so that it is whole)."""
    axes = (
        (2 * np.arange(a, b, dtype=np.int64) - (first + last - 1)) ** 2
        for a, b, first, last in zip(part.start, part.stop, tile.start, tile.stop, strict=True)
    )
    z, y, x = axes
    return z[:, None, None] + y[None, :, None] + x[None, None, :]
