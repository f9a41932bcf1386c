"""What the network is asked to predict for one training patch."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

INSIDE = 0.95
OUTSIDE = 0.05
UNKNOWN = -1.0


def soft_labels(labels: NDArray[np.integer[Any]], zero_is_unknown: bool) -> NDArray[np.float32]:
    """Probability that each voxel belongs to the object of the patch's centre voxel.

    Args:
        labels: Integer [z, y, x] with odd sizes.
        zero_is_unknown: Whether label 0 says nothing; else it says that there is no object.

    Returns:
        float32 [z, y, x]: 0.95 inside the object, 0.05 elsewhere, -1 where unknown; a centre of label 0 has no object.
    """
    centre = labels[tuple(size // 2 for size in labels.shape)]
    inside = (labels == centre) & (labels > 0)
    soft = np.where(inside, np.float32(INSIDE), np.float32(OUTSIDE))
    if zero_is_unknown:
        soft[labels == 0] = UNKNOWN
    return soft
