"""What google/ffn may do to a segmentation when it loads one: threshold, split into connected pieces, drop dust.

ids ──> voxels of low probability to 0 ──> 6-connected pieces ──> pieces below a size to 0 ──> 1..n
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import cc3d
import fastremap
import numpy as np
from numpy.typing import NDArray

from ffn.inference.probability import PROBABILITIES

_SLAB = 1 << 22


@dataclass(frozen=True)
class Cleaning:
    """How a segmentation is cleaned; by default not at all."""

    min_probability: float | None = None
    """Voxels below it are left out; those without a probability stay."""
    split: bool = False
    """Whether pieces of an object that do not touch by a face become objects of their own."""
    min_size: int = 0
    """Voxels below which an object (after splitting, a piece) is left out."""


@dataclass(frozen=True, eq=False)
class Cleaned:
    """Objects numbered 1..n.

    Attributes:
        labels: uint32 zyx.
        parents: The id that each object was (a piece of) before, [n + 1]; 0 for 0.
        voxels: int64 [n + 1].
    """

    labels: NDArray[np.uint32]
    parents: NDArray[np.unsignedinteger[Any]]
    voxels: NDArray[np.int64]


def clean(labels: NDArray[np.unsignedinteger[Any]], q: NDArray[np.uint8] | None, cleaning: Cleaning) -> Cleaned:
    """Clean a segmentation, always in the order above.

    Args:
        labels: Ids zyx, 0 = none, C-contiguous; overwritten where there is a threshold.
        q: Probabilities as bytes, of the same shape; needed where there is a threshold.
        cleaning: What to do.

    Returns:
        Objects in the order of their ids, or, split, in that of their first voxels (z, y, x).
    """
    if cleaning.min_probability is not None:
        if q is None:
            raise TypeError("a threshold without probabilities")
        low = np.less(PROBABILITIES, np.float32(cleaning.min_probability))
        for part in _slabs(labels.size):
            labels.reshape(-1)[part][low[q.reshape(-1)[part]]] = 0
    objects = _pieces(labels) if cleaning.split else _ascending(labels)
    count = int(objects.max(initial=0))
    voxels, parents = np.zeros(count + 1, np.int64), np.zeros(count + 1, labels.dtype)
    flat, old = objects.reshape(-1), labels.reshape(-1)
    for part in _slabs(flat.size):
        voxels += np.bincount(flat[part], minlength=count + 1)
        parents[flat[part]] = old[part]
    kept = voxels >= cleaning.min_size
    kept[0] = True
    if not kept.all():
        table = np.where(kept, np.cumsum(kept) - 1, 0).astype(np.uint32)
        for part in _slabs(flat.size):
            flat[part] = table[flat[part]]
        voxels[0] += voxels[~kept].sum()
    return Cleaned(objects, parents[kept], voxels[kept])


def _pieces(labels: NDArray[np.unsignedinteger[Any]]) -> NDArray[np.uint32]:
    pieces = cc3d.connected_components(labels, connectivity=6, out_dtype=np.uint32)
    # In the order in which they are met, which the components themselves do not promise.
    ordered, _ = fastremap.renumber(np.ascontiguousarray(pieces), preserve_zero=True)
    return ordered.astype(np.uint32, copy=False)


def _ascending(labels: NDArray[np.unsignedinteger[Any]]) -> NDArray[np.uint32]:
    ids = fastremap.unique(labels)
    ids = ids[ids != 0].tolist()
    table = dict(zip([0, *ids], range(len(ids) + 1), strict=True))
    return np.ascontiguousarray(fastremap.remap(labels, table), np.uint32)


def _slabs(size: int) -> Iterator[slice]:
    for start in range(0, size, _SLAB):
        yield slice(start, start + _SLAB)
