"""Several voxels into one: the mean of grey values, the most frequent of labels."""

from collections.abc import Iterator
from itertools import combinations, product

import numpy as np

from ffn.geometry import ZYX

_VOXELS = 1 << 18
"""Pooled in one go: they stay in a core's cache."""


def pool(values: np.ndarray, step: ZYX, labels: bool) -> np.ndarray:
    """Pool each `step` (zyx) of voxels into one; keeps the dtype. The shape must be a multiple of `step`.

    Images are averaged, whole numbers rounded half up. Labels take the most frequent of the pooled voxels, of
    equally frequent ones the first in zyx order.
    """
    if step == (1, 1, 1):
        return values.copy()
    z, y, x = (n // s for n, s in zip(values.shape, step, strict=True))
    result = np.empty((z, y, x), values.dtype)
    pool_rows = _mode if labels else _mean
    for planes, rows in _rows(result.shape, step):
        source = values[planes.start * step[0] : planes.stop * step[0], rows.start * step[1] : rows.stop * step[1]]
        result[planes, rows] = pool_rows(source, step)
    return result


def _rows(shape: tuple[int, ...], step: ZYX) -> Iterator[tuple[slice, slice]]:
    """Planes and rows of the result, cut so that what they are made of is small."""
    z, y, x = shape
    at_once = max(_VOXELS // max(x * step[0] * step[1] * step[2], 1), 1)
    rows = min(at_once, max(y, 1))
    planes = max(at_once // rows, 1)
    for plane, row in product(range(0, z, planes), range(0, y, rows)):
        yield slice(plane, min(plane + planes, z)), slice(row, min(row + rows, y))


def _parts(values: np.ndarray, step: ZYX) -> list[np.ndarray]:
    """The first voxel of all cells, the second, and so on in zyx order."""
    return [values[z :: step[0], y :: step[1], x :: step[2]] for z, y, x in product(*(range(s) for s in step))]


def _mean(values: np.ndarray, step: ZYX) -> np.ndarray:
    kind, count = values.dtype, step[0] * step[1] * step[2]
    if kind.kind == "f":
        return np.mean(_parts(values, step), axis=0, dtype=np.float64).astype(kind)
    # The largest sum, with what rounding adds.
    wide = np.min_scalar_type(int(np.iinfo(kind).max) * count + count // 2)
    total = _summed(values.astype(wide), step)
    total += wide.type(count // 2)
    # Shifting is many times faster than dividing.
    total = total >> wide.type(count.bit_length() - 1) if count.bit_count() == 1 else total // wide.type(count)
    return total.astype(kind)


def _summed(values: np.ndarray, step: ZYX) -> np.ndarray:
    """Sums over each cell: along z and y first, where neighbours in memory are added to neighbours in memory."""
    for axis, size in enumerate(step):
        parts = [values[(slice(None),) * axis + (slice(first, None, size),)] for first in range(size)]
        values = parts[0] if size == 1 else parts[0] + parts[1]
        for part in parts[2:]:
            values += part
    return values


def _mode(values: np.ndarray, step: ZYX) -> np.ndarray:
    values = np.ascontiguousarray(values)
    result = values[:: step[0], :: step[1], :: step[2]].copy()
    # Most cells hold one label, and a few comparisons tell which.
    mixed = np.flatnonzero(_mixed(values, step))
    if len(mixed) > 0:
        _, y, x = values.shape
        row, column = np.divmod(mixed, result.shape[2])
        plane, row = np.divmod(row, result.shape[1])
        first = (plane * step[0] * y + row * step[1]) * x + column * step[2]
        inside = [(dz * y + dy) * x + dx for dz, dy, dx in product(*(range(s) for s in step))]
        flat = values.reshape(-1)
        result.reshape(-1)[mixed] = _most_frequent(np.stack([flat[offset:].take(first) for offset in inside]))
    return result


def _mixed(values: np.ndarray, step: ZYX) -> np.ndarray:
    """Whether a cell holds more than one value."""
    mixed = None
    for axis, size in enumerate(step):
        if size > 1:
            before = (slice(None),) * axis
            places = [(*before, slice(first, None, size)) for first in range(size)]
            differ = [values[places[0]] != values[place] for place in places[1:]]
            mixed = np.logical_or.reduce(differ if mixed is None else [*(mixed[place] for place in places), *differ])
            values = values[places[0]]
    assert mixed is not None
    return mixed


def _most_frequent(candidates: np.ndarray) -> np.ndarray:
    """Of each column of [candidates, cells] the most frequent value, of equally frequent ones the first."""
    count = len(candidates)
    kind = np.min_scalar_type(count * count + count)
    votes = np.ones(candidates.shape, kind)
    for one, other in combinations(range(count), 2):
        same = (candidates[one] == candidates[other]).view(np.uint8)
        votes[one] += same
        votes[other] += same
    # The first of the best: votes count most, then an early place.
    rank = votes * kind.type(count) + np.arange(count - 1, -1, -1, dtype=kind)[:, np.newaxis]
    winner = count - 1 - rank.max(axis=0) % kind.type(count)
    return candidates[winner, np.arange(candidates.shape[1])]
