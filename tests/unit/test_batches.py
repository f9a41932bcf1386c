"""How sub-volumes are cut into batches around those that are finished."""

import numpy as np
import pytest

from ffn.batches import Batch, cut


def test_names_are_read_back():
    assert str(Batch(3, 12)) == "0003-0012"
    assert Batch.parse("0003-0012") == Batch(3, 12)
    assert Batch.parse("10000-10007") == Batch(10000, 10007)
    for text in ("0003", "0012-0003", "0003-0012-pass-1", "a-b", ""):
        assert Batch.parse(text) is None


def test_cut_from_the_beginning():
    assert list(map(str, cut(7, 3))) == ["0000-0002", "0003-0005", "0006-0006"]
    assert cut(3, 8) == [Batch(0, 2)]
    assert cut(0, 4) == []


def test_finished_batches_are_kept():
    assert cut(10, 3, [Batch(4, 6)]) == [Batch(0, 2), Batch(3, 3), Batch(4, 6), Batch(7, 9)]


@pytest.mark.parametrize(
    ("finished", "kept"),
    [
        ([Batch(0, 3), Batch(2, 5)], [Batch(0, 3)]),
        ([Batch(0, 1), Batch(0, 3)], [Batch(0, 3)]),
        ([Batch(4, 9)], []),  # of a volume that had more of them
    ],
)
def test_batches_that_do_not_go_together_are_left_out(finished, kept):
    found = cut(8, 2, finished)
    assert [batch for batch in finished if batch in found] == kept
    assert [index for batch in found for index in batch.indices] == list(range(8))


def test_any_sequence_of_sizes_holds_each_once_and_forgets_nothing_finished():
    rng = np.random.default_rng(4)
    for _ in range(200):
        count, finished = int(rng.integers(1, 40)), []
        for _ in range(4):
            found = cut(count, int(rng.integers(1, 12)), finished)
            assert [index for batch in found for index in batch.indices] == list(range(count))
            assert set(finished) <= set(found)
            finished = [batch for batch in found if batch in finished or rng.random() < 0.3]
