"""Tables that are too large for memory: the same scores to the last bit, and nothing left behind."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ffn.evaluation import TREATMENTS, Contingency, coverage, evaluate, score
from ffn.evaluation.contingency import partial_sums
from ffn.evaluation.summed import StoredContingency, summed
from ffn.evaluation.worst import worst_merges, worst_splits
from ffn.geometry import Box
from ffn.volumes import create_hdf5

FIELDS = ("bodies", "body_voxels", "body_segmented", "segments", "segment_voxels", "pairs", "segmented_pairs")
HUGE = 2**63


@pytest.fixture
def few_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also small sums are ended."""
    monkeypatch.setattr("ffn.evaluation.contingency._ROWS_KEPT_APART", 50)


def blocks_of_pairs(seed: int, pairs: int, blocks: int = 9) -> list[Contingency]:
    """Tables of blocks that share pairs; with background, a body of very many segments, and one segment of many bodies.

    Ids have no order, and some differ by less than what a double can tell.
    """
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, pairs // 20 + 2, (blocks, pairs)).astype(np.uint64)
    truth[rng.random(truth.shape) < 0.2] = 3
    segments = rng.integers(0, pairs // 2 + 2, (blocks, pairs)).astype(np.uint64)
    segments = np.where(segments % 2 == 0, segments * np.uint64(0x9E3779B97F4A7C15), segments + np.uint64(HUGE))
    segments[rng.random(truth.shape) < 0.1] = 0
    segments[rng.random(truth.shape) < 0.1] = 7
    return [Contingency.of_arrays(t, s) for t, s in zip(truth, segments, strict=True)]


def everything(table: Contingency | StoredContingency) -> list[object]:
    scores = [score(table, treatment) for treatment in TREATMENTS]
    worst = [found(table, number) for found in (worst_splits, worst_merges) for number in (0, 1, 10, 10_000)]
    return [scores, coverage(table), worst]


@pytest.mark.usefixtures("few_rows")
@pytest.mark.parametrize(("pairs", "rows"), [(40, 7), (3000, 100), (3000, 1999), (30_000, 5000)])
def test_scores_from_files_are_those_from_memory_to_the_last_bit(tmp_path: Path, pairs: int, rows: int) -> None:
    tables = blocks_of_pairs(pairs, pairs)
    whole = Contingency.sum(tables)
    with summed(iter(tables), tmp_path, rows) as table:
        assert isinstance(table, StoredContingency)
        assert table.totals.pairs == whole.count.size
        for field in FIELDS:
            np.testing.assert_array_equal(getattr(table.totals, field), getattr(whole.totals, field))
        parts = list(table.parts())
        for column, values in whole.columns.items():
            np.testing.assert_array_equal(np.concatenate([part.columns[column] for part in parts]), values)
        assert max(part.count.size for part in parts) <= rows
        assert everything(table) == everything(whole)
    assert list(tmp_path.iterdir()) == []


def test_sums_over_all_pairs_are_those_of_one_array(tmp_path: Path) -> None:
    """As they were made before tables could be in files."""
    table = Contingency.sum(blocks_of_pairs(5, 40_000))
    known, index = np.unique(table.truth, return_inverse=True)
    sizes = np.bincount(index, weights=table.count)
    shared = table.count.astype(np.float64)
    found = score(table, "object")
    assert found.voi_split == float(shared @ np.log2(sizes[index] / shared)) / table.voxels
    assert found.recall == float(shared @ shared) / float(sizes @ sizes)
    assert known.size == table.totals.bodies.size


def test_small_sums_stay_in_memory(tmp_path: Path) -> None:
    tables = blocks_of_pairs(1, 500)
    with summed(tables, tmp_path / "not made") as table:
        assert isinstance(table, Contingency)
        assert everything(table) == everything(Contingency.sum(tables))
    with summed([], tmp_path / "not made") as table:
        assert table.totals.voxels == 0
    assert not (tmp_path / "not made").exists()


@pytest.mark.usefixtures("few_rows")
def test_partial_sums_end_when_they_are_large(tmp_path: Path) -> None:
    tables = blocks_of_pairs(2, 1000)
    sums = list(partial_sums(tables, 2500))
    assert [part.count.size > 2500 for part in sums] == [True] * (len(sums) - 1) + [False]
    assert len(sums) > 2
    total = Contingency.sum(sums)
    np.testing.assert_array_equal(total.count, Contingency.sum(tables).count)


@pytest.mark.usefixtures("few_rows")
def test_a_failure_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), summed(blocks_of_pairs(3, 1000), tmp_path, 300):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("few_rows")
def test_volumes_of_many_pairs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through the function that the command calls."""
    rng = np.random.default_rng(8)
    uris = []
    for name, most in (("truth", 50), ("segmentation", 90)):
        labels = rng.integers(0, most, (24, 24, 24)).astype(np.uint64)
        with create_hdf5(tmp_path / f"{name}.h5", "labels", labels.shape, np.uint64, None) as volume:
            volume.write(Box.of_shape(labels.shape), labels)
        uris.append(f"{tmp_path / name}.h5:labels")
    expected = evaluate(*uris)
    stored = []

    def in_files(tables, folder):
        stored.append(folder)
        return summed(tables, folder, 100)

    monkeypatch.setattr("ffn.evaluation.run.summed", in_files)
    assert json.dumps(evaluate(*uris, folder=tmp_path / "scratch")) == json.dumps(expected)
    assert stored == [tmp_path / "scratch"]
    assert list((tmp_path / "scratch").iterdir()) == []


_PEAK = """
import re, sys
from pathlib import Path
import numpy as np
from ffn.evaluation import TREATMENTS, Contingency, score
from ffn.evaluation import contingency, worst
from ffn.evaluation.summed import summed

pairs, rows = int(sys.argv[1]), 1 << 16
contingency._ROWS_KEPT_APART = worst.ROWS = rows
def tables():
    for begin in range(0, pairs, rows):
        k = np.arange(begin, min(begin + rows, pairs), dtype=np.uint64)
        yield Contingency(k // 40 + 1, k, np.ones(k.size, np.int64))
with summed(tables(), Path(sys.argv[2]), rows) as table:
    for treatment in TREATMENTS:
        score(table, treatment)
    worst.worst_merges(table, 10)
print(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
"""


@pytest.mark.slow
def test_memory_is_two_numbers_for_each_pair_and_each_segment(tmp_path: Path) -> None:
    """All segments are different: the most that there can be."""

    def peak(pairs: int) -> int:
        command = [sys.executable, "-c", _PEAK, str(pairs), str(tmp_path)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        return int(re.findall(r"\d+", done.stdout)[-1]) * 1024

    few, many = 500_000, 4_000_000
    assert peak(many) - peak(few) < 40 * (many - few)
