"""Sets of nodes from pairs that come in pieces."""

import numpy as np
import pytest

from ffn.assembly import unionfind
from ffn.assembly.unionfind import numbered, smallest_members


def literal_members(nodes, a, b):
    """By flooding labels until nothing changes."""
    members = np.arange(nodes)
    while True:
        before = members.copy()
        for i, j in zip(a, b, strict=True):
            members[i] = members[j] = min(members[i], members[j])
        if (members == before).all():
            return members


@pytest.mark.parametrize("stretch", [3, 1000])
@pytest.mark.parametrize("seed", range(6))
def test_smallest_members_of_random_graphs(seed, stretch, monkeypatch):
    monkeypatch.setattr(unionfind, "STRETCH", stretch)
    rng = np.random.default_rng(seed)
    nodes = int(rng.integers(1, 80))
    a, b = rng.integers(0, nodes, (2, int(rng.integers(0, 2 * nodes))))
    expected = literal_members(nodes, a, b)
    for batch in (1, 2, 7, 1000):
        order = rng.permutation(len(a))
        cuts = np.sort(rng.integers(0, len(a) + 1, 3))
        pieces = zip(np.split(a[order], cuts), np.split(b[order], cuts), strict=True)
        np.testing.assert_array_equal(smallest_members(nodes, pieces, batch), expected)


def test_a_long_chain_from_its_end_in_single_pairs():
    nodes = 500
    pairs = ((np.array([i]), np.array([i + 1])) for i in reversed(range(nodes - 1)))
    assert not smallest_members(nodes, pairs, batch=1).any()


def test_no_nodes_and_no_pairs():
    assert smallest_members(0, []).tolist() == []
    assert smallest_members(3, [(np.empty(0, np.int64), np.empty(0, np.int64))]).tolist() == [0, 1, 2]


@pytest.mark.parametrize("stretch", [1, 2, 1000])
def test_sets_are_numbered_by_their_smallest_nodes(stretch, monkeypatch):
    monkeypatch.setattr(unionfind, "STRETCH", stretch)
    members = np.array([0, 1, 0, 3, 1])
    assert numbered(members).tolist() == [1, 2, 1, 3, 2]
    assert numbered(members, np.array([True, False, True, True, True])).tolist() == [1, 0, 1, 2, 0]
    assert numbered(members).dtype == np.uint64
