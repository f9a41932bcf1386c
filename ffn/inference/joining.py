"""Which objects of a flood fill are parts of earlier ones, because they lie in them for the most part.

A voxel belongs to the object that reached it first, also where a later one, grown from its own seed, claims it too:

    segment 1   ######################
    object 2             ====================        what both reach stays with 1; how much it was is counted

Neighbours that only touch share the skin between them. Where most of an object lies in an earlier segment, the network
has followed the same neuron twice: the earlier one stopped short, as it does the more often the fewer fields of view
it may use. Then what the later one adds is given the id of the earlier one. That asks the network for nothing, and as
most of an object lies in one segment at most, it never joins two earlier segments with each other.
"""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

Overlaps = tuple[tuple[int, int], ...]
"""(id of an earlier segment, its voxels that an object reached)."""


def part_of(overlaps: Overlaps, voxels: int, share: float, given: int = 0) -> int | None:
    """The earlier segment that an object is a part of; None where there is none.

    Args:
        overlaps: What the object reached of earlier segments.
        voxels: What it reached besides.
        share: Part of all that it reached which has to lie in the segment, at least 0.5; 1 = objects stay apart.
        given: Segments up to this id were there before the flood fill; nothing is joined to these.
    """
    reached = voxels + sum(count for _, count in overlaps)
    for earlier, count in overlaps:
        if voxels and count >= share * reached and earlier > given:
            return earlier
    return None


def joined_ids(objects: Iterable[tuple[Overlaps, int]], share: float, given: int = 0) -> NDArray[np.uint64]:
    """The id under which each segment is kept.

    Args:
        objects: (overlaps, voxels) of the segments `given` + 1, `given` + 2, ...
        share, given: As for `part_of`.

    Returns uint64 [given + segments + 1], by id; 0 remains 0.
    """
    ids = list(range(given + 1))
    for overlaps, voxels in objects:
        earlier = part_of(overlaps, voxels, share, given)
        ids.append(len(ids) if earlier is None else ids[earlier])
    return np.array(ids, np.uint64)
