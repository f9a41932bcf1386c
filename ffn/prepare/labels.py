"""What the network is asked to predict for one training patch."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

INSIDE = 0.95
OUTSIDE = 0.05


def soft_labels(labels: NDArray[np.integer[Any]]) -> NDArray[np.float32]:
    """Probability that each voxel belongs to the object of the patch's centre voxel.

    Args:
        labels: Integer [z, y, x] with odd sizes, 0 = no object.

    Returns:
        float32 [z, y, x]: 0.95 inside the object, 0.05 elsewhere; all 0.05 where the centre has no object.
    """
    centre = labels[tuple(size // 2 for size in labels.shape)]
    inside = (labels == centre) & (labels > 0)
    return np.where(inside, np.float32(INSIDE), np.float32(OUTSIDE))
