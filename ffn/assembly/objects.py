"""Which object each piece or label belongs to, for any number of them: the reduces of `split` and `min_size`.

Blocks come one at a time, and again for each pass over them. What is held is an array or two over all pieces:

    offsets of the blocks -> pairs -> forest -> voxels and smallest name of each set -> order of the names -> ids

A piece is what hangs together within one block (see `pieces`). Piece k of block b, in ascending order of their names,
is number `offsets[b] + k`, whatever its name is: names count voxels of the whole volume, numbers only what there is.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from ffn.assembly.pieces import Ids
from ffn.assembly.unionfind import Nodes, smallest_members, stretches

Counts = NDArray[np.int64]
BlocksOf = Callable[[], Iterable[tuple[Ids, Counts]]]
"""Each call begins anew at the first block: names (or labels) and voxels of each, uint64 [n] and int64 [n]."""

_NO_NAME = np.iinfo(np.uint64).max


@dataclass(frozen=True)
class PieceObjects:
    """The object of each piece.

    Attributes:
        offsets: int64 [blocks + 1], the number of the first piece of each block, and that of all pieces.
        ids: int32 or int64 [pieces], object of each piece from 1, 0 = dropped.
        objects: How many there are.
    """

    offsets: Counts
    ids: Nodes
    objects: int

    def ids_in(self, block: int) -> Ids:
        """Object of each piece of a block, in ascending order of their names, uint64."""
        return self.ids[self.offsets[block] : self.offsets[block + 1]].astype(np.uint64)

    def __iter__(self) -> Iterator[Ids]:
        """`ids_in` each block."""
        return (self.ids_in(block) for block in range(len(self.offsets) - 1))


def piece_offsets(pieces: Iterable[int]) -> Counts:
    """The number of each block's first piece and, at the end, that of all pieces, int64 [blocks + 1].

    Args:
        pieces: How many each block has.
    """
    counts = np.fromiter(pieces, np.int64)
    return np.concatenate([[0], np.cumsum(counts)])


def joined_pieces(blocks_of: BlocksOf, pairs: Iterable[tuple[Nodes, Nodes]], min_size: int) -> PieceObjects:
    """Objects of pieces that touch, numbered from 1 without gaps in the order of their smallest names.

    Holds 21 bytes a piece (below 2^31 pieces), one block and one batch of pairs.

    Args:
        blocks_of: Names and voxels of the pieces of each block, names ascending; no name occurs twice.
        pairs: Numbers of pieces that are one object, in any order, equal lengths.
        min_size: Objects of fewer voxels are dropped.
    """
    offsets = piece_offsets(len(names) for names, _ in blocks_of())
    members = smallest_members(int(offsets[-1]), pairs)
    first = _first_names(blocks_of(), offsets, members, min_size)
    objects = int(np.count_nonzero(first != _NO_NAME))
    order = np.argsort(first)
    del first
    ids = np.zeros_like(members)
    ids[order[:objects]] = np.arange(1, objects + 1, dtype=ids.dtype)
    del order
    for stretch in stretches(len(members)):
        members[stretch] = ids[members[stretch]]
    return PieceObjects(offsets, members, objects)


def renumbered_labels(blocks_of: BlocksOf, largest: int, min_size: int) -> Ids | NDArray[np.uint32]:
    """New ids of labels, [largest + 1], from 1 without gaps in the order of the labels; 0 = dropped or nowhere.

    uint32 where that holds all labels, else uint64. Holds 9 bytes a label (10 with uint64), and one block.

    Args:
        blocks_of: Labels and their voxels in each block; a label may be in any number of blocks.
        largest: No label is larger.
        min_size: Labels of fewer voxels in all are dropped; 0 always is.
    """
    sizes = np.zeros(largest + 1, np.int64)
    for labels, voxels in blocks_of():
        np.add.at(sizes, labels.astype(np.intp), voxels)
    sizes[0] = 0
    kept = sizes >= max(min_size, 1)
    del sizes
    ids: Ids | NDArray[np.uint32] = kept.astype(np.uint32) if largest < 1 << 32 else kept.astype(np.uint64)
    np.cumsum(ids, out=ids)
    ids[~kept] = 0
    return ids


def _first_names(
    blocks: Iterable[tuple[Ids, Counts]], offsets: Counts, members: Nodes, min_size: int
) -> NDArray[np.uint64]:
    """The smallest name of each set, at its root, uint64 [pieces]; `_NO_NAME` elsewhere and for sets that are small."""
    first = np.full(len(members), _NO_NAME, np.uint64)
    sizes = np.zeros(len(members), np.int64)
    for (names, voxels), (begin, end) in zip(blocks, pairwise(offsets.tolist()), strict=True):
        roots = members[begin:end].astype(np.intp)
        np.minimum.at(first, roots, names)
        np.add.at(sizes, roots, voxels)
    first[sizes < min_size] = _NO_NAME
    return first
