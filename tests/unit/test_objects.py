"""Objects of any number of pieces and labels, compared with what takes all of them at once."""

import tracemalloc
from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ffn.assembly.objects import joined_pieces, piece_offsets, renumbered_labels
from ffn.assembly.pieces import Pieces
from ffn.assembly.unionfind import numbered, smallest_members


def object_ids(blocks, pairs, min_size):
    """The id of each piece, one block after the other, from tables of all pieces at once; 0 = of a dropped object."""
    everything = np.concatenate([np.empty(0, np.uint64), *(block.names for block in blocks)])
    names, first, places = np.unique(everything, return_index=True, return_inverse=True)
    labels = np.concatenate([np.empty(0, np.uint64), *(block.labels for block in blocks)])[first]
    voxels = np.concatenate([np.empty(0, np.int64), *(block.voxels for block in blocks)])

    def joined():
        for a, b in pairs:
            i, j = np.searchsorted(names, a), np.searchsorted(names, b)
            same = labels[i] == labels[j]
            yield i[same], j[same]

    members = smallest_members(len(names), joined())
    sizes = np.bincount(members[places], weights=voxels, minlength=len(names))
    return numbered(members, sizes >= min_size)[places]


def random_blocks(rng, labels):
    """Pieces of some blocks: names unique in all and ascending in each, in no order among blocks."""
    counts = rng.integers(0, 9, int(rng.integers(0, 7)))
    names = rng.choice(10**12, counts.sum(), replace=False).astype(np.uint64) + np.uint64(1)
    return [
        Pieces(np.sort(part), rng.integers(1, labels + 1, len(part)).astype(np.uint64), rng.integers(1, 30, len(part)))
        for part in np.split(names, np.cumsum(counts)[:-1])
        if len(counts) > 0
    ]


def streamed(blocks, column):
    return lambda: ((getattr(block, column), block.voxels) for block in blocks)


@given(st.integers(0, 2**32 - 1), st.sampled_from([0, 1, 20, 60, 10**9]), st.sampled_from([1, 3]))
def test_joined_pieces_are_the_objects_of_all_pieces_at_once(seed, min_size, labels):
    rng = np.random.default_rng(seed)
    blocks = random_blocks(rng, labels)
    names = np.concatenate([np.empty(0, np.uint64), *(block.names for block in blocks)])
    of_label = np.concatenate([np.empty(0, np.uint64), *(block.labels for block in blocks)])
    a, b = rng.integers(0, max(len(names), 1), (2, int(rng.integers(0, 2 * len(names) + 1)) if len(names) else 0))
    expected = object_ids(blocks, [(names[a], names[b])], min_size)
    one = of_label[a] == of_label[b]
    cuts = np.sort(rng.integers(0, one.sum() + 1, 2))
    pairs = zip(np.split(a[one], cuts), np.split(b[one], cuts), strict=True)
    found = joined_pieces(streamed(blocks, "names"), pairs, min_size)
    assert found.objects == expected.max(initial=0)
    offsets = piece_offsets(len(block.names) for block in blocks)
    for index, ((begin, end), ids) in enumerate(zip(pairwise(offsets), found, strict=True)):
        np.testing.assert_array_equal(ids, expected[begin:end])
        np.testing.assert_array_equal(found.ids_in(index), ids)
        assert ids.dtype == np.uint64


def test_objects_follow_their_first_voxels_not_their_blocks():
    blocks = [(np.array([5, 9], np.uint64), np.array([1, 1])), (np.array([2, 7], np.uint64), np.array([1, 1]))]
    found = joined_pieces(lambda: iter(blocks), [(np.array([1]), np.array([3]))], 1)
    assert [ids.tolist() for ids in found] == [[2, 3], [1, 3]]
    found = joined_pieces(lambda: iter(blocks), [(np.array([1]), np.array([3]))], 2)
    assert [ids.tolist() for ids in found] == [[0, 1], [0, 1]]


@given(st.integers(0, 2**32 - 1), st.sampled_from([0, 1, 20, 60, 10**9]))
def test_renumbered_labels_are_the_objects_of_all_labels_at_once(seed, min_size):
    rng = np.random.default_rng(seed)
    blocks = []
    for _ in range(int(rng.integers(0, 6))):
        labels = np.unique(rng.integers(1, 12, int(rng.integers(0, 9)))).astype(np.uint64)
        blocks.append(Pieces(labels, labels, rng.integers(1, 30, len(labels))))
    expected = object_ids(blocks, [], min_size)
    table = renumbered_labels(streamed(blocks, "labels"), 15, min_size)
    assert table.shape == (16,)
    everything = np.concatenate([np.empty(0, np.uint64), *(block.labels for block in blocks)])
    np.testing.assert_array_equal(table[everything.astype(int)], expected)
    assert np.count_nonzero(table) == expected.max(initial=0)


def test_background_is_no_object():
    blocks = [(np.array([0, 3], np.uint64), np.array([900, 5]))]
    assert renumbered_labels(lambda: iter(blocks), 3, 1).tolist() == [0, 0, 0, 1]


def test_memory_is_21_bytes_a_piece_and_9_a_label():
    size, count = 1 << 14, 1 << 9
    pieces = size * count
    voxels = np.full(size, 3)

    def blocks():
        for index in range(count):
            yield np.arange(index + 1, pieces + 1, count, dtype=np.uint64), voxels

    def pairs():
        for begin in range(0, pieces - size, 64 * size):
            a = np.arange(begin, begin + size)
            yield a, a + size

    tracemalloc.start()
    try:
        found = joined_pieces(blocks, pairs(), 2)
        joined = tracemalloc.get_traced_memory()[1]
        rows, kept = np.arange(size), count - count // 64  # of each row of names, as many objects
        assert found.objects == kept * size
        for block, place in ((0, 1), (1, 1), (2, 2), (count - 1, kept)):
            np.testing.assert_array_equal(found.ids_in(block), kept * rows + place)
        del found
        tracemalloc.reset_peak()
        renumbered_labels(blocks, pieces, 2)
        renumbered = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert joined < 21 * pieces + 32e6
    assert renumbered < 9 * pieces + 8e6
