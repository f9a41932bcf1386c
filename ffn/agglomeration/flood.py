"""One object grown from one seed, with its map kept: the only place here that drives a canvas."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ffn.geometry import ZYX
from ffn.inference.canvas import Canvas, NetworkCall
from ffn.inference.options import FloodOptions


@dataclass(frozen=True)
class Filled:
    """What a flood fill left.

    Attributes:
        logits: Object map, float32 [z, y, x] of the whole image; NaN where nothing was predicted.
        fovs: Evaluations of the network; 0 where the seed has no room or lies in a taken voxel.
        deleted: Voxels that an evaluation took from the one level to below the other, added up over all evaluations.
    """

    logits: NDArray[np.float32]
    fovs: int
    deleted: int


def flood(
    image: NDArray[np.float32],
    taken: NDArray[np.bool_],
    seed: ZYX,
    options: FloodOptions,
    network: NetworkCall,
    deleted_from: np.float32,
    deleted_to: np.float32,
) -> Filled:
    """Grow one object.

    Args:
        image: float32 [z, y, x], normalised grey values.
        taken: bool [z, y, x], voxels of other objects: the field of view is not centred there.
        seed: Where it starts.
        options: Levels and sizes; the smallest size and the distance to other objects play no part.
        network: One evaluation of the network.
        deleted_from: Logit from which on a voxel can be deleted.
        deleted_to: Logit below which it then is.
    """
    deleted = 0

    def counting(grey: NDArray[np.float32], before: NDArray[np.float32]) -> NDArray[np.float32]:
        nonlocal deleted
        after = network(grey, before)
        # Holding down, which comes after, changes only voxels that were outside before.
        deleted += int(np.count_nonzero((before >= deleted_from) & (after < deleted_to)))
        return after

    canvas = Canvas(image, replace(options, min_boundary_dist=(0, 0, 0)), counting)
    canvas.labels[taken] = 1
    logits = np.full(image.shape, np.nan, np.float32)
    canvas.growth = canvas._start(seed)
    if canvas.growth is not None:
        canvas._grow(canvas.growth, lambda: None)
        box = canvas.box_around(canvas.growth.low, canvas.growth.high)
        logits[box] = canvas.object_map[box]
    return Filled(logits, canvas.counters["fovs"], deleted)
