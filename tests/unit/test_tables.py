"""Tables of any length: written piece by piece, looked up, sorted within a bound."""

from itertools import pairwise

import numpy as np
import pytest

from ffn.blockwise.tables import (
    Sorter,
    StoredTable,
    TableWriter,
    concatenated,
    find_rows,
    group_starts,
    lower_bound,
    sorted_by,
)

TYPES = {"a": np.uint64, "b": np.int64, "c": (np.float64, (3,)), "name": "S4"}


def table(seed, rows, largest=50):
    rng = np.random.default_rng(seed)
    return {
        "a": rng.integers(2**63, 2**63 + largest, rows, dtype=np.uint64),
        "b": rng.integers(-largest, largest, rows),
        "c": rng.random((rows, 3)),
        "name": rng.choice([b"x", b"yy", b"zzzz"], rows).astype("S4"),
    }


def assert_equal(found, expected):
    assert set(found) == set(expected)
    for name, values in expected.items():
        assert found[name].dtype == values.dtype
        np.testing.assert_array_equal(found[name], values)


def test_what_is_written_piece_by_piece_is_read_in_parts(tmp_path):
    pieces = [table(0, 5), table(1, 0), table(2, 300)]
    with TableWriter(tmp_path / "table", TYPES) as writer:
        for piece in pieces:
            writer.append({**piece, "not a column": piece["a"]})
    stored, whole = StoredTable(tmp_path / "table", list(TYPES)), concatenated(pieces)
    assert len(stored) == 305
    assert_equal(stored.rows(0, 305), whole)
    assert_equal(stored.rows(3, 9), {name: values[3:9] for name, values in whole.items()})
    assert_equal({name: stored[name] for name in TYPES}, whole)
    # Anyone can read the files.
    np.testing.assert_array_equal(np.load(tmp_path / "table.c.npy"), whole["c"])
    assert stored.bytes == sum(path.stat().st_size for path in tmp_path.iterdir())


def test_a_table_without_rows(tmp_path):
    with TableWriter(tmp_path / "table", TYPES):
        pass
    stored = StoredTable(tmp_path / "table", list(TYPES))
    assert len(stored) == 0
    assert stored.rows(0, 0)["c"].shape == (0, 3)
    assert find_rows([stored["a"]], [np.array([1], np.uint64)])[1].tolist() == [False]
    assert StoredTable(tmp_path / "none", list(TYPES)).bytes == 0


def test_nothing_appears_where_writing_fails(tmp_path):
    with TableWriter(tmp_path / "table", TYPES) as writer:
        writer.append(table(0, 5))
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}

    def interrupted():
        with TableWriter(tmp_path / "table", TYPES) as writer:
            writer.append(table(1, 5))
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        interrupted()
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_rows_are_found_by_several_columns():
    known = sorted_by(table(0, 2000, 9), ["a", "b"])
    sought = table(1, 500, 12)
    rows, there = find_rows([known["a"], known["b"]], [sought["a"], sought["b"]])
    pairs = list(zip(known["a"].tolist(), known["b"].tolist(), strict=True))
    for row, found, pair in zip(rows, there, zip(sought["a"].tolist(), sought["b"].tolist(), strict=True), strict=True):
        assert row == sum(other < pair for other in pairs)
        assert found == (pair in pairs)
    assert 0 < there.sum() < len(there)
    assert lower_bound([known["a"]], [np.empty(0, np.uint64)]).tolist() == []


def test_groups_of_equal_rows():
    assert group_starts([np.array([1, 1, 2, 2, 2]), np.array([0, 0, 0, 1, 1])]).tolist() == [0, 2, 3]
    assert group_starts([np.empty(0, np.int64)]).tolist() == []


@pytest.mark.parametrize("together", [None, 1, 2])
@pytest.mark.parametrize("rows", [200, 500, 10**6])
def test_sorted_pieces_are_bounded_and_hold_together_what_belongs_together(tmp_path, rows, together):
    tables = [table(seed, 3 + 17 * (seed % 9)) for seed in range(60)]
    keys = ["a", "b", "name"]
    with Sorter(tmp_path, keys, together, rows) as sorter:
        for piece in tables:
            sorter.add(piece)
        pieces = list(sorter.pieces())
        assert next(iter(sorter.pieces()))["a"].tolist() == pieces[0]["a"].tolist()
    assert list(tmp_path.iterdir()) == []
    whole = concatenated(tables)
    found = concatenated(pieces)
    for name in keys:
        np.testing.assert_array_equal(found[name], sorted_by(whole, keys)[name])
    # Rows stay whole.
    assert sorted(map(str, zip(*(found[n].tolist() for n in found), strict=True))) == sorted(
        map(str, zip(*(whole[n].tolist() for n in found), strict=True))
    )
    held = keys[:together]
    largest = np.diff(np.append(group_starts([sorted_by(whole, held)[key] for key in held]), len(whole["a"]))).max()
    assert max(len(piece["a"]) for piece in pieces) <= rows + largest
    for before, after in pairwise(pieces):
        assert tuple(before[key][-1] for key in held) < tuple(after[key][0] for key in held)


def test_rows_that_all_belong_together_are_one_piece(tmp_path):
    with Sorter(tmp_path, ["a", "b"], together=1, rows=10) as sorter:
        for seed in range(9):
            sorter.add({**table(seed, 20), "a": np.zeros(20, np.uint64)})
        assert [len(piece["a"]) for piece in sorter.pieces()] == [180]


def test_nothing_to_sort(tmp_path):
    with Sorter(tmp_path / "not there", ["a"]) as sorter:
        assert list(sorter.pieces()) == []
        sorter.add(table(0, 0))
        assert sum(len(piece["a"]) for piece in sorter.pieces()) == 0
    assert not (tmp_path / "not there").exists()


def test_what_is_sorted_on_disk_is_removed_after_a_failure(tmp_path):
    def interrupted():
        with Sorter(tmp_path, ["a"], rows=10) as sorter:
            sorter.add(table(0, 100))
            assert len(list(tmp_path.iterdir())) == 1
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        interrupted()
    assert list(tmp_path.iterdir()) == []
