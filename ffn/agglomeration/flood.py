"""One object grown from one seed, with its map kept: the only place here that looks into a canvas."""

from collections.abc import Generator
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ffn.geometry import ZYX
from ffn.inference.canvas import Canvas, Look
from ffn.inference.options import FloodOptions

T = TypeVar("T")

Asking = Generator[Look, NDArray[np.float32], T]
"""Yields what the network shall look at, is sent the updated map for it (`ffn.inference.canvas`), returns a result."""


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
    deleted_from: np.float32,
    deleted_to: np.float32,
) -> Asking[Filled]:
    """Grow one object.

    Args:
        image: float32 [z, y, x], normalised grey values.
        taken: bool [z, y, x], voxels of other objects: the field of view is not centred there.
        seed: Where it starts.
        options: Levels and sizes; the smallest size and the distance to other objects play no part.
        deleted_from: Logit from which on a voxel can be deleted.
        deleted_to: Logit below which it then is.
    """
    canvas = Canvas(image, replace(options, min_boundary_dist=(0, 0, 0)))
    canvas.labels[taken] = 1
    deleted = 0
    steps = canvas.follow(seed)
    look = next(steps, None)
    while look is not None:
        after = yield look
        # Holding down, which comes after, changes only voxels that were outside before.
        deleted += int(np.count_nonzero((look.object_map >= deleted_from) & (after < deleted_to)))
        try:
            look = steps.send(after)
        except StopIteration:
            look = None
    return Filled(canvas.object_map, canvas.counters["fovs"], deleted)
