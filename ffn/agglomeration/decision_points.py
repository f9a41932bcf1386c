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
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import fastremap
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ffn.geometry import ZYX, Box, blocks
from ffn.progress import Progress
from ffn.volumes import VoxelSize

Reader = Callable[[Box], NDArray[np.unsignedinteger]]
"""Labels, zyx, of a box of the volume."""

_OFFSETS = [offset for offset in product((0, 1), repeat=3) if any(offset)]
_STEPS_PER_NM = 1000
_TOLERANCE = 1e-6
"""Of a distance that is computed, in voxel edges."""
_LEAST_ROWS = 1 << 16


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


@dataclass(frozen=True, eq=False)
class DecisionPoints:
    """Those of many pairs, as columns; sorted by (a, b).

    Attributes:
        a, b: uint64 [n].
        distance_nm: float64 [n].
        zyx: int64 [n, 3].
    """

    a: NDArray[np.uint64]
    b: NDArray[np.uint64]
    distance_nm: NDArray[np.float64]
    zyx: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.a)

    def __getitem__(self, row: int) -> DecisionPoint:
        z, y, x = self.zyx[row].tolist()
        return DecisionPoint(int(self.a[row]), int(self.b[row]), float(self.distance_nm[row]), (z, y, x))


@dataclass(frozen=True)
class _Contacts:
    """Equally shallow places of each pair; one row a pair, sorted by (a, b)."""

    a: NDArray[np.uint64]
    b: NDArray[np.uint64]
    depth: NDArray[np.int64]
    """Thousandths of a nanometre."""
    places: NDArray[np.int64]
    total: NDArray[np.int64]
    """[n, 3]: sum of their coordinates."""


@dataclass(frozen=True)
class _Touching:
    """Pairs of neighbouring voxels of different segments in a block."""

    ids: NDArray[np.uint64]
    """Of all segments in and around the block, ascending."""
    code: NDArray[np.int64]
    """Place of a < b in `ids`, as one number that sorts like (a, b)."""
    depth: NDArray[np.int64]
    zyx: NDArray[np.int64]
    """[n, 3] in the volume."""

    def pairs(self, code: NDArray[np.int64]) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
        """Ids a, b of such numbers."""
        first, second = np.divmod(code, len(self.ids))
        return self.ids[first], self.ids[second]


def segment_sizes(read: Reader, shape: ZYX, block: ZYX) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Ids (uint64, ascending, without 0) and voxels (int64) of all segments of a volume."""
    ids, voxels = np.empty(0, np.uint64), np.empty(0, np.int64)
    waiting, rows = list[tuple[NDArray[np.uint64], NDArray[np.int64]]](), 0
    for part in blocks(Box.of_shape(shape), block):
        found, counts = fastremap.unique(read(part), return_counts=True)
        waiting.append((found.astype(np.uint64), counts.astype(np.int64)))
        rows += len(found)
        # Only when there is as much to add as there is: else each block would cost as much as all ids.
        if rows >= max(len(ids), _LEAST_ROWS):
            ids, voxels = _summed([(ids, voxels), *waiting])
            waiting, rows = [], 0
    ids, voxels = _summed([(ids, voxels), *waiting])
    return ids[ids != 0], voxels[ids != 0]


def _summed(
    tables: list[tuple[NDArray[np.uint64], NDArray[np.int64]]],
) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    ids, member = np.unique(np.concatenate([ids for ids, _ in tables]), return_inverse=True)
    # Whole numbers below 2^53 are added exactly.
    voxels = np.bincount(member, weights=np.concatenate([voxels for _, voxels in tables]), minlength=len(ids))
    return ids, voxels.astype(np.int64)


def decision_points(
    read: Reader,
    shape: ZYX,
    max_distance_nm: float,
    voxel_size: VoxelSize,
    block: ZYX,
    candidates: NDArray[np.uint64] | None = None,
) -> DecisionPoints:
    """The decision points of all pairs that meet.

    Args:
        read: The segmentation, 0 = background.
        shape: Of the volume, zyx.
        max_distance_nm: How far segments are extended; two that are up to twice as far apart may meet.
        voxel_size: Nanometres, zyx.
        block: Voxels looked at together, besides a rim.
        candidates: Ids that count, ascending; what has another id is background. None = all.
    """
    whole = Box.of_shape(shape)
    parts = list(blocks(whole, block))

    def touching(part: Box) -> _Touching:
        box = _with_rim(part, whole, max_distance_nm, voxel_size)
        labels = read(box).astype(np.uint64)
        if candidates is not None:
            # Those that are here: all candidates of a large volume would be looked up anew for each block.
            here = fastremap.unique(labels)
            labels = fastremap.mask_except(labels, here[np.isin(here, candidates)].tolist())
        return _touching(labels, part.relative_to(box.start), part.start, max_distance_nm, voxel_size)

    # First how deep, and the middle of the equally deep places; then, where these are, the one nearest to it.
    with Progress("decision points", 2 * len(parts), "blocks") as progress:
        seen = []
        for part in parts:
            seen.append(_shallowest(touching(part)))
            progress.advance(1)
        contacts = _merged(seen)
        nearest = _Nearest(contacts, shape)
        for part, here in zip(parts, seen, strict=True):
            if (here.depth == contacts.depth[nearest.rows(here.a, here.b)]).any():
                nearest.look_at(touching(part))
            progress.advance(1, f"{len(contacts.a)} pairs")
    return DecisionPoints(contacts.a, contacts.b, contacts.depth / _STEPS_PER_NM, nearest.zyx())


class _Nearest:
    """The place of each pair that is nearest to the middle of its places; of equally near ones the first in zyx."""

    def __init__(self, contacts: _Contacts, shape: ZYX) -> None:
        self._contacts, self._shape = contacts, shape
        self._keys = _keys(contacts.a, contacts.b)
        self._middle = contacts.total / np.maximum(contacts.places, 1)[:, None]
        self._distance = np.full(len(contacts.a), np.inf)
        self._place = np.zeros(len(contacts.a), np.int64)

    def rows(self, a: NDArray[np.uint64], b: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Rows of pairs that are all in the table."""
        return np.searchsorted(self._keys, _keys(a, b))

    def look_at(self, found: _Touching) -> None:
        codes, member = np.unique(found.code, return_inverse=True)
        row = self.rows(*found.pairs(codes))[member]
        shallow = found.depth == self._contacts.depth[row]
        row, zyx = row[shallow], found.zyx[shallow]
        # Rounded, so that places on opposite sides of the middle are equally near.
        distance = ((zyx - self._middle[row]) ** 2).sum(axis=1).round(6)
        place = np.ravel_multi_index(tuple(zyx.T), self._shape)
        order = np.lexsort((place, distance, row))
        pairs, first = np.unique(row[order], return_index=True)
        distance, place = distance[order][first], place[order][first]
        closer = (distance < self._distance[pairs]) | (
            (distance == self._distance[pairs]) & (place < self._place[pairs])
        )
        self._distance[pairs[closer]], self._place[pairs[closer]] = distance[closer], place[closer]

    def zyx(self) -> NDArray[np.int64]:
        """int64 [n, 3]."""
        return np.stack(np.unravel_index(self._place, self._shape), axis=1)


def _with_rim(part: Box, whole: Box, max_distance_nm: float, voxel_size: VoxelSize) -> Box:
    # One more, so that the upper neighbours of the block's voxels see as far as these.
    return part.widened([math.ceil(max_distance_nm / edge) + 1 for edge in voxel_size], whole)


def _touching(
    labels: NDArray[np.uint64], core: Box, corner: ZYX, max_distance_nm: float, voxel_size: VoxelSize
) -> _Touching:
    """Where segments meet in a block.

    Args:
        labels: Of the block and its rim.
        core: The block in this array.
        corner: The block's first voxel in the volume.
        max_distance_nm: How far segments are extended.
        voxel_size: Nanometres, zyx.
    """
    ids, extended, depth = _extended(labels, max_distance_nm, voxel_size)
    found = [_touching_along(offset, ids, extended, depth, core) for offset in _OFFSETS]
    code, deep, zyx = (np.concatenate([part[column] for part in found]) for column in range(3))
    return _Touching(ids, code, deep, zyx + np.array(corner))


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
    depth = np.rint(np.where(near, distance, 0) * (unit * _STEPS_PER_NM)).astype(np.int32)
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


def _shallowest(found: _Touching) -> _Contacts:
    """The shallowest places of each pair."""
    codes, member = np.unique(found.code, return_inverse=True)
    a, b = found.pairs(codes)
    return _at_lowest(a, b, member, found.depth, np.ones(len(member), np.int64), found.zyx)


def _merged(tables: list[_Contacts]) -> _Contacts:
    """Of each pair the shallowest places of all tables."""
    a, b, depth, places, total = (
        np.concatenate([getattr(table, name) for table in tables]) for name in ("a", "b", "depth", "places", "total")
    )
    keys, member = np.unique(_keys(a, b), return_inverse=True)
    return _at_lowest(keys["a"].copy(), keys["b"].copy(), member, depth, places, total)


def _at_lowest(
    a: NDArray[np.uint64],
    b: NDArray[np.uint64],
    member: NDArray[np.int64],
    depths: NDArray[np.int64],
    places: NDArray[np.int64],
    total: NDArray[np.int64],
) -> _Contacts:
    """Rows that belong to the pairs `member`, summed over those of the lowest depth of their pair."""
    depth = np.full(len(a), np.iinfo(np.int64).max)
    np.minimum.at(depth, member, depths)
    shallow = depths == depth[member]
    member = member[shallow]

    def sums(values: NDArray[np.int64]) -> NDArray[np.int64]:
        # Whole numbers below 2^53 are added exactly, in any order.
        return np.bincount(member, weights=values[shallow], minlength=len(a)).astype(np.int64)

    return _Contacts(a, b, depth, sums(places), np.stack([sums(total[:, axis]) for axis in range(3)], axis=1))


def _keys(a: NDArray[np.uint64], b: NDArray[np.uint64]) -> NDArray[np.void]:
    """Pairs as sortable values."""
    keys = np.empty(len(a), [("a", np.uint64), ("b", np.uint64)])
    keys["a"], keys["b"] = a, b
    return keys
