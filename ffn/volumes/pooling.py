"""Several voxels into one: the mean of grey values, the most frequent of labels."""

from itertools import product

import numpy as np

from ffn.geometry import ZYX


def pool(values: np.ndarray, step: ZYX, labels: bool) -> np.ndarray:
    """Pool each `step` (zyx) of voxels into one; keeps the dtype. The shape must be a multiple of `step`.

    Images are averaged, whole numbers rounded half up. Labels take the most frequent of the pooled voxels, of
    equally frequent ones the first in zyx order.
    """
    parts = [values[z :: step[0], y :: step[1], x :: step[2]] for z, y, x in product(*(range(s) for s in step))]
    return _mode(parts) if labels else _mean(parts)


def _mean(parts: list[np.ndarray]) -> np.ndarray:
    kind = parts[0].dtype
    if kind.kind == "f":
        return np.mean(parts, axis=0, dtype=np.float64).astype(kind)
    total = np.zeros(parts[0].shape, np.uint32)
    for part in parts:
        total += part
    return ((total + len(parts) // 2) // len(parts)).astype(kind)


def _mode(parts: list[np.ndarray]) -> np.ndarray:
    result = parts[0].copy()
    best = np.zeros(result.shape, np.uint16)
    for candidate in parts:
        votes = np.zeros(result.shape, np.uint16)
        for other in parts:
            votes += candidate == other
        better = votes > best
        result[better] = candidate[better]
        best = np.maximum(best, votes)
    return result
