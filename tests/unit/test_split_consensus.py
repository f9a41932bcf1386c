"""Split consensus: literal examples, and the definition pair by pair."""

import numpy as np
import pytest

from ffn.assembly.split_consensus import split_consensus
from ffn.errors import VolumeError

BIG = 2**60


def line(*runs):
    """uint64 [1, 1, n] of (label, length) runs."""
    return np.concatenate([np.full(length, label, np.uint64) for label, length in runs]).reshape(1, 1, -1)


def test_the_largest_part_keeps_the_id_and_others_get_new_ones():
    first = line((1, 10), (2, 6), (0, 4))
    second = line((5, 6), (7, 4), (6, 3), (0, 3), (9, 4))
    # 2 is halved: the part with the smaller b, (2, 0), keeps the id.
    expected = line((1, 6), (3, 4), (4, 3), (2, 3), (0, 4))
    np.testing.assert_array_equal(split_consensus([first, second], 1), expected)


def test_small_parts_vanish_even_where_they_are_the_largest():
    first, second = line((1, 10), (2, 3)), line((5, 6), (7, 4), (8, 3))
    np.testing.assert_array_equal(split_consensus([first, second], 5), line((1, 6), (0, 7)))
    np.testing.assert_array_equal(split_consensus([first, second], 4), line((1, 6), (3, 4), (0, 3)))


def test_a_merger_of_either_is_undone():
    merged, other = line((1, 8)), line((3, 4), (4, 4))
    for pair in ((merged, other), (other, merged)):
        labels = split_consensus(pair, 1).ravel()
        assert labels[0] != labels[-1]
        assert len(np.unique(labels)) == 2


def test_ids_may_be_as_large_as_uint64_allows():
    labels = split_consensus([line((BIG, 3), (BIG + 1, 3)), line((2**63, 4), (1, 2))], 1)
    np.testing.assert_array_equal(labels, line((BIG, 3), (BIG + 2, 1), (BIG + 1, 2)))


def test_several_are_reduced_in_order():
    segmentations = [line((1, 12)), line((1, 7), (2, 5)), line((1, 3), (2, 9))]
    np.testing.assert_array_equal(split_consensus(segmentations, 1), line((3, 3), (1, 4), (2, 5)))
    assert split_consensus(segmentations[:1], 1).tolist() == segmentations[0].tolist()


def test_nothing_stays_nothing():
    nothing = np.zeros((2, 3, 4), np.uint64)
    np.testing.assert_array_equal(split_consensus([nothing, nothing + 1], 1), nothing)
    np.testing.assert_array_equal(split_consensus([nothing + 1, nothing], 1), nothing + 1)


def random_labels(seed, shape=(9, 10, 11)):
    coarse = np.random.default_rng(seed).integers(0, 5, (3, 4, 4))
    return coarse.repeat(3, 0).repeat(3, 1).repeat(3, 2)[: shape[0], : shape[1], : shape[2]].astype(np.uint64)


def literal(first, second, smallest):
    """The definition, pair by pair."""
    result, fresh = np.zeros_like(first), int(first.max())
    for a in np.unique(first[first != 0]):
        sizes = {int(b): int(((first == a) & (second == b)).sum()) for b in np.unique(second[first == a])}
        largest = max(sizes, key=lambda b: (sizes[b], -b))
        for b, size in sizes.items():
            if size < smallest:
                continue
            if b != largest:
                fresh += 1
            result[(first == a) & (second == b)] = a if b == largest else fresh
    return result


@pytest.mark.parametrize("smallest", [1, 20])
def test_equal_to_the_definition(smallest):
    for seed in range(5):
        first, second = random_labels(seed), random_labels(seed + 100)
        np.testing.assert_array_equal(split_consensus([first, second], smallest), literal(first, second, smallest))


def test_shapes_must_agree(tmp_path):
    with pytest.raises(VolumeError, match=r"shape \(1, 1, 3\), the first one \(1, 1, 2\)"):
        split_consensus([line((1, 2)), line((1, 3))], 1)
