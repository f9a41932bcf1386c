"""Sums by key in bounded memory: the same as all at once, whatever is held."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ffn.prepare.merge import merged, summed

PARTS = st.lists(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 9)), max_size=30), max_size=12)


def arrays(part: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([key for key, _ in part], np.uint64), np.array([count for _, count in part], np.int64)


@given(PARTS, st.integers(1, 50))
@settings(deadline=None, max_examples=80)
def test_pieces_are_the_sums_one_behind_the_other(parts, most):
    expected: Counter[int] = Counter()
    for part in parts:
        for key, count in part:
            expected[key] += count
    pieces = list(merged((arrays(part) for part in parts), most=most))
    keys = [key for piece, _ in pieces for key in piece.tolist()]
    assert keys == sorted(expected)
    assert {key: n for piece in pieces for key, n in zip(*(a.tolist() for a in piece), strict=True)} == expected


def test_many_runs_are_merged_a_piece_at_a_time(tmp_path):
    random = np.random.default_rng(0)
    parts = [(np.sort(random.integers(0, 2**63, 700, np.uint64)), np.ones(700, np.int64)) for _ in range(40)]
    pieces = []
    for piece in merged(iter(parts), tmp_path, most=1000):
        assert len(piece[0]) <= 1000
        runs = list(tmp_path.rglob("*.keys"))
        assert len(runs) == 20
        pieces.append(piece)
    for one, other in zip(summed(parts), (np.concatenate(column) for column in zip(*pieces, strict=True)), strict=True):
        np.testing.assert_array_equal(one, other)
    assert list(tmp_path.iterdir()) == []


def test_keys_that_come_again_need_no_run(tmp_path):
    parts = ((np.arange(100, dtype=np.uint64), np.ones(100, np.int64)) for _ in range(1000))
    for keys, counts in merged(parts, tmp_path, most=300):
        assert not list(tmp_path.rglob("*.keys"))
        assert keys.tolist() == list(range(100))
        assert set(counts.tolist()) == {1000}


@pytest.mark.parametrize("parts", [[], [(np.empty(0, np.uint64), np.empty(0, np.int64))]])
def test_nothing(parts):
    ((keys, counts),) = merged(parts)
    assert len(keys) == len(counts) == 0
