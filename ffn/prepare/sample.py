"""Centres of examples from a volume that has too many to list: as many of each class as training can use.

Each block of a fixed grid gives a share in proportion to what it holds of a class, drawn with a generator that is
seeded by the run's seed, the block's number, and the class. So what is drawn depends on nothing else.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ffn.geometry import ZYX, Box

PER_CLASS = 10_000_000
"""Centres of a class at most. With the 14 classes of the published network training draws 140 million examples before
one comes again; they take 1.1 GB on disk and, a class at a time, 0.25 GB of memory."""


def shares(held: NDArray[np.integer], most: int) -> NDArray[np.int64]:
    """How many each block gives, in the order of the blocks: `most` in all, or all where there are fewer.

    What any run of successive blocks gives differs by less than one from its exact proportion; no block gives more
    than it has.

    Args:
        held: int [blocks], voxels of the class.
        most: Above 0.
    """
    total = int(held.sum())
    if total <= most:
        return held.astype(np.int64)
    # Python's whole numbers: the products do not fit into 64 bits.
    before = np.cumsum(np.concatenate([[0], held]), dtype=np.int64).astype(object)
    return np.diff(before * most // total).astype(np.int64)


def drawn(
    classes: NDArray[np.uint8], box: Box, shape: ZYX, wanted: NDArray[np.integer], seed: int, block: int
) -> Iterator[tuple[int, NDArray[np.uint64]]]:
    """Each class of which some are wanted, with the voxels that a block gives: C-order indices, ascending.

    Args:
        classes: uint8 [z, y, x], of the voxels in `box`.
        box: Of the volume.
        shape: Of the volume.
        wanted: int [classes], how many of each.
        seed: Of the run.
        block: Number of the block.
    """
    flat = classes.ravel()
    for value in np.flatnonzero(wanted).tolist():
        members = np.flatnonzero(flat == value)
        chosen = np.random.default_rng([seed, block, value]).choice(
            len(members), int(wanted[value]), replace=False, shuffle=False
        )
        places = np.unravel_index(members[np.sort(chosen)], box.shape)
        z, y, x = (place.astype(np.uint64) + np.uint64(a) for place, a in zip(places, box.start, strict=True))
        yield value, (z * np.uint64(shape[1]) + y) * np.uint64(shape[2]) + x
