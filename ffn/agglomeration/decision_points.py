"""Where segments meet: one point for each pair, at which the network is asked again whether they are one.

    111111111 . . . | . . 2222       every segment is extended into the background, each voxel going to the nearest
    111111111 . . . | . 22222        one, up to a distance; where two then touch (|), the depth of the background there
    111111 . . . 3333 . . 222        says how far apart they are. The shallowest place is the pair's decision point,
                                     of equally shallow ones the one nearest to the middle of these

"Touch" is looked for in the seven directions that lead up along one, two or all axes. That a voxel goes to the nearest
segment is what a watershed on the distance comes to, but for its ties; unlike a watershed it depends on nothing farther
away than the distance. So a volume is looked at block by block, each with a rim of that width, and the result does not
depend on the blocks: depths are compared in thousandths of a nanometre, coordinates are those of the volume. (Of
equally near segments one is taken by comparing squared distances. These are exact where voxel edges are in simple
ratios, such as 40:8:8; where they are not, another rim could turn a tie the other way and move a point by a voxel.)
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import fastremap
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ffn.blockwise.tables import Table, group_starts
from ffn.geometry import ZYX, Box
from ffn.volumes import VoxelSize

_OFFSETS = [offset for offset in product((0, 1), repeat=3) if any(offset)]
STEPS_PER_NM = 1000
"""Depths are whole numbers of these."""
_TOLERANCE = 1e-6
"""Rounding error of a computed distance, in voxel edges."""


@dataclass(frozen=True, order=True)
class DecisionPoint:
    """Where segments `a` < `b` are nearest.

    Attributes:
        a: Id.
        b: Id.
        distance_nm: Depth of the background where they meet, the mean of the two voxels: about half of what lies
            between them, 0 where they touch.
        zyx: The first of the two voxels.
    """

    a: int
    b: int
    distance_nm: float
    zyx: ZYX


@dataclass(frozen=True)
class Touching:
    """Pairs of neighbouring voxels of different segments in a block, in any order."""

    ids: NDArray[np.uint64]
    """Ids of all segments in and around the block, ascending."""
    code: NDArray[np.int64]
    """Place of a < b in `ids`, as one number that sorts like (a, b)."""
    depth: NDArray[np.int64]
    """Thousandths of a nanometre."""
    zyx: NDArray[np.int64]
    """[n, 3] in the volume."""


def with_rim(part: Box, whole: Box, max_distance_nm: float, voxel_size: VoxelSize) -> Box:
    """The voxels to look at so that `touching` finds all of a block."""
    # One more, so that the upper neighbours of the block's voxels see as far as these.
    return part.widened([math.ceil(max_distance_nm / edge) + 1 for edge in voxel_size], whole)


def touching(
    labels: NDArray[np.uint64], core: Box, corner: ZYX, max_distance_nm: float, voxel_size: VoxelSize
) -> Touching:
    """Where segments meet in a block.

    Args:
        labels: Of the block and its rim (`with_rim`), 0 = background.
        core: The block in this array.
        corner: The block's first voxel in the volume.
        max_distance_nm: How far segments are extended; two that are up to twice as far apart may meet.
        voxel_size: Nanometres, zyx.
    """
    ids, extended, depth = _extended(labels, max_distance_nm, voxel_size)
    found = [_touching_along(offset, ids, extended, depth, core) for offset in _OFFSETS]
    code, deep, zyx = (np.concatenate([part[column] for part in found]) for column in range(3))
    return Touching(ids, code, deep, zyx + np.array(corner))


def _extended(
    labels: NDArray[np.uint64], max_distance_nm: float, voxel_size: VoxelSize
) -> tuple[NDArray[np.uint64], NDArray[np.int32], NDArray[np.int32]]:
    """Ids of the segments, ascending, with 0 in front; for each voxel the place in them of the nearest segment, 0 where
    none is near enough; and the depth of each voxel."""
    compact, numbers = fastremap.renumber(labels, preserve_zero=True)
    ids = np.unique(np.append(np.fromiter(numbers, np.uint64, len(numbers)), np.uint64(0)))
    place = np.zeros(len(ids), np.int32)
    place[[numbers.get(int(number), 0) for number in ids]] = np.arange(len(ids))
    indices = place[compact]
    free = indices == 0
    if free.all():
        return ids, indices, np.zeros(labels.shape, np.int32)
    # In shortest edges, so that equal distances are equal numbers wherever edges are in simple ratios.
    unit = min(voxel_size)
    distance, nearest = ndimage.distance_transform_edt(free, [edge / unit for edge in voxel_size], return_indices=True)
    near = distance <= max_distance_nm / unit + _TOLERANCE
    depth = np.rint(np.where(near, distance, 0) * (unit * STEPS_PER_NM)).astype(np.int32)
    return ids, np.where(near, indices[tuple(nearest)], 0), depth


def _touching_along(
    offset: tuple[int, ...], ids: NDArray[np.uint64], extended: NDArray[np.int32], depth: NDArray[np.int32], core: Box
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Pair, depth and place in the block of its voxels whose neighbour at `offset` belongs to another segment."""
    stop = [min(b, n - o) for b, n, o in zip(core.stop, extended.shape, offset, strict=True)]
    here = tuple(slice(a, b) for a, b in zip(core.start, stop, strict=True))
    there = tuple(slice(a + o, b + o) for a, b, o in zip(core.start, stop, offset, strict=True))
    first, second = extended[here], extended[there]
    at = np.nonzero((first != second) & (first != 0) & (second != 0))
    one, other = first[at].astype(np.int64), second[at].astype(np.int64)
    deep = (depth[here][at].astype(np.int64) + depth[there][at]) // 2
    return np.minimum(one, other) * len(ids) + np.maximum(one, other), deep, np.stack(at, axis=1)


def shallowest(found: Touching) -> Table:
    """The shallowest places of each pair in a block.

    Returns:
        A row for each pair, sorted by (a, b): `a`, `b` (uint64), `depth` (int64), how many `places` there are, and
        `total` (int64 [n, 3]), the sum of their coordinates.
    """
    order = np.argsort(found.code, kind="stable")
    code = found.code[order]
    starts = group_starts([code])
    lowest, kept, begins = _lowest(found.depth[order], starts)
    first, second = np.divmod(code[starts], len(found.ids))
    return {
        "a": found.ids[first],
        "b": found.ids[second],
        "depth": lowest,
        "places": np.diff(begins, append=len(kept)),
        "total": _sums(found.zyx[order[kept]], begins),
    }


def merged(contacts: Table) -> Table:
    """The shallowest places of each pair in all blocks.

    Args:
        contacts: Tables of `shallowest`, one behind the other, sorted by (a, b).
    """
    starts = group_starts([contacts["a"], contacts["b"]])
    lowest, kept, begins = _lowest(contacts["depth"], starts)
    return {
        **{name: contacts[name][starts] for name in ("a", "b")},
        "depth": lowest,
        **{name: _sums(contacts[name][kept], begins) for name in ("places", "total")},
    }


def _lowest(
    depth: NDArray[np.int64], starts: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """For groups of rows that begin at `starts`: the lowest depth of each, the rows that have it, and where those of
    each group begin among these."""
    if len(starts) == 0:
        return depth, starts, starts
    lowest = np.minimum.reduceat(depth, starts)
    kept = np.flatnonzero(depth == np.repeat(lowest, np.diff(starts, append=len(depth))))
    return lowest, kept, np.searchsorted(kept, starts)


def _sums(values: NDArray[np.int64], begins: NDArray[np.int64]) -> NDArray[np.int64]:
    """The sum of each group of rows."""
    return np.add.reduceat(values, begins) if len(begins) else values


def nearest_to_middle(found: Touching, here: Table, contacts: Table, shape: ZYX) -> Table:
    """In a block, of the shallowest places of each pair the one that is nearest to the middle of all of them.

    Args:
        found: Where segments meet in the block.
        here: Its pairs (`shallowest`).
        contacts: `depth`, `places` and `total` of the same pairs in the whole volume (`merged`).
        shape: Of the volume, zyx.

    Returns:
        A row for each pair that has such a place here: its row in `here`, `distance`, the square of that to the middle
        in voxels, and `place`, the number of the voxel in the volume. Smaller rows of (`distance`, `place`) win.
    """
    first, second = (np.searchsorted(found.ids, here[name]) for name in ("a", "b"))
    pair = np.searchsorted(first * len(found.ids) + second, found.code)
    shallow = found.depth == contacts["depth"][pair]
    pair, zyx = pair[shallow], found.zyx[shallow]
    middle = contacts["total"] / np.maximum(contacts["places"], 1)[:, None]
    # Rounded, so that places on opposite sides of the middle are equally near.
    distance = ((zyx - middle[pair]) ** 2).sum(axis=1).round(6)
    place = np.ravel_multi_index(tuple(zyx.T), shape)
    order = np.lexsort((place, distance, pair))
    found_rows = {"pair": pair[order], "distance": distance[order], "place": place[order]}
    return first_of_each(found_rows, ["pair"])


def first_of_each(table: Table, keys: Sequence[str]) -> Table:
    """The first row of each group of rows of a sorted table in which these columns are equal."""
    starts = group_starts([table[key] for key in keys])
    return {name: values[starts] for name, values in table.items()}
