"""Where a prediction suggests to look next: the highest voxel of each face of the box `centre +- deltas`.

The movement rule of Januszewski et al. (2018), for training by predicted moves and for inference alike.
"""

from itertools import product

import numpy as np
from numpy.typing import NDArray

from ffn.geometry import ZYX


def face_moves(logits: NDArray[np.float32], deltas: ZYX, threshold: np.float32) -> list[ZYX]:
    """Offsets z,y,x from the centre to the highest voxel of each face that reaches `threshold`, best first.

    Args:
        logits: float32 [z, y, x], odd sizes: a prediction.
        deltas: Distance of the faces from the centre; 0 = no face on that axis.
        threshold: Logit that counts as reached when equal.

    Of equal voxels in a face the first in z,y,x order is taken; of equal faces the largest offset goes first; an edge
    that two faces share is offered once.
    """
    centre = [size // 2 for size in logits.shape]
    inner = [slice(c - d, c + d + 1) for c, d in zip(centre, deltas, strict=True)]
    offers: set[tuple[float, ZYX]] = set()
    for axis, sign in product(range(3), (-1, 1)):
        delta = deltas[axis]
        if delta == 0:
            continue
        plane = centre[axis] + sign * delta
        window = [*inner[:axis], slice(plane, plane + 1), *inner[axis + 1 :]]
        face = logits[tuple(window)]
        rest, column = divmod(int(face.argmax()), face.shape[2])
        section, row = divmod(rest, face.shape[1])
        score = face[section, row, column]
        if score >= threshold:
            offset = [section - deltas[0], row - deltas[1], column - deltas[2]]
            offset[axis] = sign * delta
            offers.add((float(score), (offset[0], offset[1], offset[2])))
    return [offset for _, offset in sorted(offers, reverse=True)]
