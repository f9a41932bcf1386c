"""From an object map in network voxels to labels in image voxels.

Where `network.downsample` pools image voxels, a boundary crosses most network voxels that it touches. The map is
refined by linear interpolation before the threshold decides: at half the resolution that moves the boundary to where
the map says it is, by parts of a network voxel. Repeating the decision for a network voxel in all its image voxels
would cost 0.64 bits of VOI on FIB-25 even with a perfect map (docs/fib25_split.md).
"""

import numpy as np
from numpy.typing import NDArray

from ffn.geometry import ZYX
from ffn.volumes import interpolate

_SLAB = 16


class FineLabels:
    """Labels at the image's resolution, claimed by one finished object after another.

    Args:
        shape: In network voxels, zyx.
        factors: Image voxels in one network voxel, zyx.
        level: Logit from which a voxel belongs to the object.
    """

    def __init__(self, shape: ZYX, factors: ZYX, level: np.float32) -> None:
        z, y, x = (n * f for n, f in zip(shape, factors, strict=True))
        self.labels = np.zeros((z, y, x), np.uint32)
        self._factors = factors
        self._probability = _probability(level)

    def claim(self, number: int, box: tuple[slice, slice, slice], logits: NDArray[np.float32]) -> None:
        """Give the free image voxels of an object its number.

        Args:
            number: Of the object.
            box: Network voxels that it was followed through.
            logits: Its map there, float32 zyx, NaN where nothing was predicted. Beyond the box it goes on as at its
                faces.
        """
        depth, factor = logits.shape[0], self._factors[0]
        for start in range(0, depth, _SLAB):
            low, high = max(start - 1, 0), min(start + _SLAB + 1, depth)
            stop = min(start + _SLAB, depth)
            around = interpolate(_probability(logits[low:high]), self._factors)
            inside = around[(start - low) * factor : (stop - low) * factor]
            slab = (slice(box[0].start + start, box[0].start + stop), *box[1:])
            there = self.labels[tuple(slice(s.start * f, s.stop * f) for s, f in zip(slab, self._factors, strict=True))]
            there[(inside >= self._probability) & (there == 0)] = number


def _probability(logits: NDArray[np.float32] | np.float32) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):
        return np.nan_to_num(1 / (1 + np.exp(-logits)), nan=0.0).astype(np.float32)
