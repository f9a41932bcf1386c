"""Where a prediction suggests to look next: the highest voxel of each face of the box `centre +- deltas`."""

from itertools import product

import numpy as np
from numpy.typing import NDArray

from ffn.geometry import ZYX


def face_moves(logits: NDArray[np.float32], deltas: ZYX, threshold: np.float32) -> list[ZYX]:
    """Offsets zyx from the centre to the best voxel of each face that reaches `threshold`, highest score first.

    `logits` is a prediction, float32 [z, y, x] of odd sizes. An axis with delta 0 has no faces. Within a face the
    first of equal voxels in z, y, x order counts; faces of equal score come in descending order of the offset; an
    edge shared by two faces is listed once. (The movement rule of Januszewski et al. 2018.)
    """
    box = logits[tuple(slice(n // 2 - d, n // 2 + d + 1) for n, d in zip(logits.shape, deltas, strict=True))]
    found: set[tuple[float, ZYX]] = set()
    for axis, end in product(range(3), (0, -1)):
        if deltas[axis] == 0:
            continue
        face = box.take(end, axis=axis)
        best = int(face.argmax())
        score = float(face.flat[best])
        if score >= threshold:
            place = [int(p) for p in np.unravel_index(best, face.shape)]
            place.insert(axis, 2 * deltas[axis] if end else 0)
            z, y, x = (p - d for p, d in zip(place, deltas, strict=True))
            found.add((score, (z, y, x)))
    return [offset for _, offset in sorted(found, reverse=True)]
