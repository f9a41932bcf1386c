"""What two segmentations do not separate stays together: every disagreement becomes a split.

    A   11111111111   and   B   55555577777   give   1111118888      (1,5) is the larger part of 1 and keeps its id
        222222                  666                  222222           (2,6) and (2,0) are parts of 2 as well:
                                                                      a part that is too small becomes 0

A flood fill that leaks joins two neurons; another one, from other seeds, leaks elsewhere. Their common refinement has
the mistakes of neither, and more pieces, which agglomeration joins again (Januszewski et al. 2018). Voxels of A that B
left empty are a part like any other; voxels that A left empty stay empty, so A is the one to trust more.

Everything follows from a table of how many voxels each pair of labels shares; the result is a lookup in it.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ffn.errors import VolumeError


@dataclass(frozen=True)
class Overlaps:
    """Voxels that label `a` (never 0) of one segmentation shares with label `b` (may be 0) of another.

    Attributes:
        a: uint64 [n]; rows are sorted by (a, b) and each pair occurs once.
        b: uint64 [n].
        voxels: int64 [n].
    """

    a: NDArray[np.uint64]
    b: NDArray[np.uint64]
    voxels: NDArray[np.int64]


def ids_of(table: Overlaps, split_min_size: int) -> NDArray[np.uint64]:
    """The id of each pair, uint64 [n].

    Of the parts of an `a` the largest (of equally large ones that of the smallest `b`) keeps the id `a`; the others get
    ids above all of A, in the order of the table. Parts of fewer than `split_min_size` voxels get 0.
    """
    # By a, then the largest first, then by b: the first row of each a is its largest part.
    order = np.lexsort((table.b, -table.voxels, table.a))
    largest = np.zeros(len(order), np.bool_)
    largest[order[np.unique(table.a[order], return_index=True)[1]]] = True
    kept = table.voxels >= split_min_size
    ids = np.where(largest & kept, table.a, np.uint64(0))
    new = kept & ~largest
    ids[new] = table.a.max(initial=0) + np.arange(1, np.count_nonzero(new) + 1, dtype=np.uint64)
    return ids


def split_consensus(segmentations: Iterable[NDArray[np.unsignedinteger]], split_min_size: int) -> NDArray[np.uint64]:
    """The split consensus of several segmentations, the first with the second, that with the third, and so on.

    Args:
        segmentations: Labels of one shape, 0 = nothing; at least one. One besides the result is held at a time.
        split_min_size: Voxels below which a part becomes 0.

    Raises VolumeError for different shapes.
    """
    each = iter(segmentations)
    result = next(each).astype(np.uint64)
    for other in each:
        _require_shape(result.shape, other.shape)
        there = result != 0
        table, member = overlaps_of(result[there], other[there])
        result[there] = ids_of(table, split_min_size)[member]
    return result


def overlaps_of(
    first: NDArray[np.unsignedinteger], second: NDArray[np.unsignedinteger]
) -> tuple[Overlaps, NDArray[np.int64]]:
    """The label pairs of the same voxels [n], none of which has the first label 0; and for each voxel the row."""
    a, of_a = np.unique(first, return_inverse=True)
    b, of_b = np.unique(second, return_inverse=True)
    codes, member, voxels = np.unique(of_a * max(len(b), 1) + of_b, return_inverse=True, return_counts=True)
    row, column = np.divmod(codes, max(len(b), 1))
    return Overlaps(a[row].astype(np.uint64), b[column].astype(np.uint64), voxels), member


def _require_shape(expected: tuple[int, ...], found: tuple[int, ...]) -> None:
    if expected != found:
        raise VolumeError(f"A segmentation has shape {found}, the first one {expected} (z,y,x); they must be equal.")
