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
    """Pairs of neighbouring voxels of different segments in a block, a < b."""

    a: NDArray[np.uint64]
    b: NDArray[np.uint64]
    depth: NDArray[np.int64]
    zyx: NDArray[np.int64]
    """[n, 3] in the volume."""


def segment_sizes(read: Reader, shape: ZYX, block: ZYX) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Ids (uint64, ascending, without 0) and voxels (int64) of all segments of a volume."""
    ids, voxels = np.empty(0, np.uint64), np.empty(0, np.int64)
    for part in blocks(Box.of_shape(shape), block):
        found, counts = np.unique(read(part), return_counts=True)
        ids, member = np.unique(np.concatenate([ids, found.astype(np.uint64)]), return_inverse=True)
        voxels = np.bincount(member, weights=np.concatenate([voxels, counts])).astype(np.int64)
    return ids[ids != 0], voxels[ids != 0]


def decision_points(
    read: Reader,
    shape: ZYX,
    max_distance_nm: float,
    voxel_size: VoxelSize,
    block: ZYX,
    candidates: NDArray[np.uint64] | None = None,
) -> list[DecisionPoint]:
    """The decision points of all pairs that meet, sorted by their ids.

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

    def touching(part: Box) -> list[_Touching]:
        labels, depth, origin = _extended(read, whole, part, max_distance_nm, voxel_size, candidates)
        return [_touching(labels, depth, origin, part, offset) for offset in _OFFSETS]

    # First how deep, and the middle of the equally deep places; then, where these are, the one nearest to it.
    contacts, seen = _merged([]), []
    with Progress("decision points", 2 * len(parts), "blocks") as progress:
        for part in parts:
            here = _merged([_shallowest(found) for found in touching(part)])
            seen.append(here)
            contacts = _merged([contacts, here])
            progress.advance(1, f"{len(contacts.a)} pairs")
        nearest = _Nearest(contacts)
        for part, here in zip(parts, seen, strict=True):
            row = nearest.rows(here.a, here.b)
            if (here.depth == contacts.depth[row]).any():
                nearest.look_at(touching(part))
            progress.advance(1)
    return [
        DecisionPoint(int(a), int(b), int(depth) / _STEPS_PER_NM, (int(z), int(y), int(x)))
        for a, b, depth, (z, y, x) in zip(contacts.a, contacts.b, contacts.depth, nearest.zyx, strict=True)
    ]


class _Nearest:
    """The place of each pair that is nearest to the middle of its places; of equally near ones the first in zyx."""

    def __init__(self, contacts: _Contacts) -> None:
        self._contacts = contacts
        self._middle = contacts.total / np.maximum(contacts.places, 1)[:, None]
        self._distance = np.full(len(contacts.a), np.inf)
        self.zyx = np.zeros((len(contacts.a), 3), np.int64)

    def rows(self, a: NDArray[np.uint64], b: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Rows of pairs that are all in the table."""
        return np.searchsorted(_keys(self._contacts.a, self._contacts.b), _keys(a, b))

    def look_at(self, found: list[_Touching]) -> None:
        a, b, depth, zyx = (np.concatenate([getattr(f, name) for f in found]) for name in ("a", "b", "depth", "zyx"))
        row = self.rows(a, b)
        shallow = depth == self._contacts.depth[row]
        row, zyx = row[shallow], zyx[shallow]
        # What was found before competes with what is found here.
        known = np.flatnonzero(np.isfinite(self._distance))
        row, zyx = np.concatenate([row, known]), np.concatenate([zyx, self.zyx[known]])
        # Rounded, so that places on opposite sides of the middle are equally near.
        distance = ((zyx - self._middle[row]) ** 2).sum(axis=1).round(6)
        order = np.lexsort((zyx[:, 2], zyx[:, 1], zyx[:, 0], distance, row))
        pairs, first = np.unique(row[order], return_index=True)
        self.zyx[pairs], self._distance[pairs] = zyx[order][first], distance[order][first]


def _extended(
    read: Reader,
    whole: Box,
    part: Box,
    max_distance_nm: float,
    voxel_size: VoxelSize,
    candidates: NDArray[np.uint64] | None,
) -> tuple[NDArray[np.uint64], NDArray[np.int64], ZYX]:
    """Labels of a block with its rim, each voxel having that of the nearest segment or 0, and the depth of each voxel;
    and where they begin."""
    # One more, so that the upper neighbours of the block's voxels see as far as these.
    rim = [math.ceil(max_distance_nm / edge) + 1 for edge in voxel_size]
    low, high = (
        [a - r for a, r in zip(part.start, rim, strict=True)],
        [b + r for b, r in zip(part.stop, rim, strict=True)],
    )
    box = whole.intersection(Box((low[0], low[1], low[2]), (high[0], high[1], high[2])))
    if box is None:
        raise AssertionError(f"{part} lies outside {whole}")
    labels = read(box).astype(np.uint64)
    if candidates is not None:
        labels[~np.isin(labels, candidates)] = 0
    free = labels == 0
    if free.all():
        return labels, np.zeros(labels.shape, np.int64), box.start
    # In shortest edges, so that equal distances are equal numbers wherever edges are in simple ratios.
    unit = min(voxel_size)
    distance, nearest = ndimage.distance_transform_edt(free, [edge / unit for edge in voxel_size], return_indices=True)
    depth = np.rint(distance * (unit * _STEPS_PER_NM)).astype(np.int64)
    labels = labels[tuple(nearest)]
    labels[depth > round(max_distance_nm * _STEPS_PER_NM)] = 0
    return labels, depth, box.start


def _touching(
    labels: NDArray[np.uint64], depth: NDArray[np.int64], origin: ZYX, part: Box, offset: tuple[int, ...]
) -> _Touching:
    """Voxels of `part` whose neighbour at `offset` belongs to another segment."""
    core = part.relative_to(origin)
    stop = [min(b, n - o) for b, n, o in zip(core.stop, labels.shape, offset, strict=True)]
    here = tuple(slice(a, b) for a, b in zip(core.start, stop, strict=True))
    there = tuple(slice(a + o, b + o) for a, b, o in zip(core.start, stop, offset, strict=True))
    first, second = labels[here], labels[there]
    at = np.nonzero((first != second) & (first != 0) & (second != 0))
    one, other = first[at], second[at]
    return _Touching(
        np.minimum(one, other),
        np.maximum(one, other),
        (depth[here][at] + depth[there][at]) // 2,
        np.stack(at, axis=1) + np.array(part.start),
    )


def _shallowest(found: _Touching) -> _Contacts:
    """The shallowest places of each pair."""
    keys, member = np.unique(_keys(found.a, found.b), return_inverse=True)
    depth = np.full(len(keys), np.iinfo(np.int64).max)
    np.minimum.at(depth, member, found.depth)
    shallow = found.depth == depth[member]
    return _summed(keys, member[shallow], np.ones(np.count_nonzero(shallow), np.int64), found.zyx[shallow], depth)


def _merged(tables: list[_Contacts]) -> _Contacts:
    """Of each pair the shallowest places of all tables."""
    if not tables:
        none = np.empty(0, np.uint64)
        return _Contacts(none, none, np.empty(0, np.int64), np.empty(0, np.int64), np.empty((0, 3), np.int64))
    a, b, depths, places, total = (
        np.concatenate([getattr(table, name) for table in tables]) for name in ("a", "b", "depth", "places", "total")
    )
    keys, member = np.unique(_keys(a, b), return_inverse=True)
    depth = np.full(len(keys), np.iinfo(np.int64).max)
    np.minimum.at(depth, member, depths)
    shallow = depths == depth[member]
    return _summed(keys, member[shallow], places[shallow], total[shallow], depth)


def _summed(
    keys: NDArray[np.void],
    member: NDArray[np.int64],
    places: NDArray[np.int64],
    total: NDArray[np.int64],
    depth: NDArray[np.int64],
) -> _Contacts:
    def sums(values: NDArray[np.int64]) -> NDArray[np.int64]:
        # Whole numbers below 2^53 are added exactly, in any order.
        return np.bincount(member, weights=values, minlength=len(keys)).astype(np.int64)

    summed = np.stack([sums(total[:, axis]) for axis in range(3)], axis=1)
    return _Contacts(keys["a"].copy(), keys["b"].copy(), depth, sums(places), summed)


def _keys(a: NDArray[np.uint64], b: NDArray[np.uint64]) -> NDArray[np.void]:
    """Pairs as sortable values."""
    keys = np.empty(len(a), [("a", np.uint64), ("b", np.uint64)])
    keys["a"], keys["b"] = a, b
    return keys
