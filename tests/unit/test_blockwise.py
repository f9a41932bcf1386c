"""The blockwise engine: grids, ledgers, pools, stages of steps."""

import json
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from ffn.blockwise import (
    BlockTask,
    BlockwiseStage,
    Grid,
    JobPart,
    Ledger,
    Pool,
    Reduce,
    Result,
    Share,
    Step,
    Task,
    part_of,
)
from ffn.blockwise.ledger import LedgerWriter
from ffn.blockwise.stage import Numbered
from ffn.errors import StageError, WorkerError
from ffn.geometry import Box
from ffn.peers import Peer
from ffn.stages import Stage

BOX = Box((2, 0, 5), (12, 9, 21))


# --- grids


def test_blocks_cover_the_box_once():
    grid = Grid(BOX, (4, 5, 6))
    assert grid.counts == (3, 2, 3)
    seen = np.zeros(BOX.stop, np.int64)
    for block in grid:
        assert BOX.contains(block)
        seen[block.slices] += 1
    np.testing.assert_array_equal(seen[BOX.slices], 1)
    assert seen.sum() == BOX.voxels
    assert grid[0] == Box((2, 0, 5), (6, 5, 11))
    assert grid[len(grid) - 1] == Box((10, 5, 17), (12, 9, 21))
    with pytest.raises(IndexError):
        grid[len(grid)]


def test_blocks_are_found_by_place():
    grid, rng = Grid(BOX, (4, 5, 6)), np.random.default_rng(0)
    for _ in range(50):
        corners = np.sort(rng.integers(0, 25, (2, 3)), axis=0)
        box = Box(tuple(corners[0].tolist()), tuple((corners[1] + 1).tolist()))
        expected = [(number, shared) for number, block in enumerate(grid) if (shared := block.intersection(box))]
        assert list(grid.meeting(box)) == expected


def test_parts_hold_each_unit_once():
    for count in (0, 1, 7, 100):
        for parts in (1, 2, 3, 9):
            listed = [unit for part in range(parts) for unit in part_of(count, part, parts)]
            assert listed == list(range(count))
    assert JobPart.parse("2/5") == JobPart(1, 5)
    assert [JobPart.parse(text) for text in ("0/5", "6/5", "2", "a/b", "")] == [None] * 5


# --- ledgers


def columns(unit: int) -> dict[str, np.ndarray]:
    return {"a": np.arange(unit + 1), "b": np.full((2, unit), 0.5)}


def written(folder: Path, units, job="1-of-1", fingerprint="f", count=9) -> None:
    with LedgerWriter(folder / job, fingerprint, count) as writer:
        for unit in units:
            writer.add(unit, columns(unit), {"k": unit})


def test_what_is_done_is_the_union_of_all_processes(tmp_path):
    written(tmp_path, [3, 0], "1-of-2")
    written(tmp_path, [5], "2-of-2")
    ledger = Ledger(tmp_path, "f", 9)
    assert ledger.missing(range(9)) == [1, 2, 4, 6, 7, 8]
    assert [entry.unit for entry in ledger.entries()] == [0, 3, 5]
    for entry, found in zip(ledger.entries(), ledger.columns(), strict=True):
        assert entry.facts == {"k": entry.unit}
        assert found.keys() == {"a", "b"}
        np.testing.assert_array_equal(found["a"], np.arange(entry.unit + 1))
    written(tmp_path, [1], "2-of-2")
    assert 1 not in ledger
    ledger.refresh("1-of-2")
    assert 1 not in ledger
    ledger.refresh("2-of-2")
    assert 1 in ledger


def test_of_thousands_of_jobs_only_those_are_read_that_share_units(tmp_path):
    for job, unit in (("0000-0003", 1), ("0004-0007", 5), ("0002-0005", 4), ("another", 0)):
        written(tmp_path, [unit], job)
    part = Numbered((4, 5, 7))
    assert (str(part), part.units(7)) == ("0004-0007", [4, 5])
    ledger = Ledger(tmp_path, "f", 9, part.shares_units)
    assert [entry.unit for entry in ledger.entries()] == [0, 4, 5]
    assert ledger.processes == 3


def test_no_file_for_arrays_where_there_are_none(tmp_path):
    with LedgerWriter(tmp_path / "1-of-1", "f", 9) as writer:
        writer.add(0, {}, {})
        assert not list(tmp_path.rglob("*.arrays"))
        writer.add(1, columns(1), {})
    ledger = Ledger(tmp_path, "f", 9)
    assert ledger[0].columns() == {}
    np.testing.assert_array_equal(ledger[1].columns()["a"], [0, 1])


def test_a_ledger_is_found_without_its_settings(tmp_path):
    assert Ledger.found(tmp_path) is None
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / "a.jsonl").write_text("{")
    assert Ledger.found(tmp_path) is None
    written(tmp_path, [3])
    (tmp_path / "0" / "a.jsonl").unlink()
    assert [entry.unit for entry in Ledger.found(tmp_path).entries()] == [3]


def test_a_line_or_an_array_that_was_cut_is_passed_over(tmp_path):
    written(tmp_path, range(3))
    (lines,) = tmp_path.rglob("*.jsonl")
    (arrays,) = tmp_path.rglob("*.arrays")
    whole = lines.read_bytes()
    for cut in range(len(whole)):
        lines.write_bytes(whole[:cut])
        assert len(Ledger(tmp_path, "f", 9)) == max(whole[:cut].count(b"\n") - 1, 0)
    lines.write_bytes(whole)
    os.truncate(arrays, arrays.stat().st_size - 1)
    assert Ledger(tmp_path, "f", 9).missing(range(3)) == [2]
    arrays.unlink()
    assert Ledger(tmp_path, "f", 9).missing(range(3)) == [0, 1, 2]


def test_a_line_of_rubbish_is_passed_over(tmp_path):
    written(tmp_path, range(2))
    (lines,) = tmp_path.rglob("*.jsonl")
    first, *others = lines.read_bytes().splitlines()
    lines.write_bytes(b"\n".join([first, b"{}", b"[1]", b'{"unit": "x"}', b"\x00\xff", *others]) + b"\n")
    assert Ledger(tmp_path, "f", 9).missing(range(3)) == [2]


def test_arrays_that_changed_are_told(tmp_path):
    written(tmp_path, range(3))
    (arrays,) = tmp_path.rglob("*.arrays")
    entry = Ledger(tmp_path, "f", 9)[1]
    with arrays.open("r+b") as file:
        file.seek(entry.begin + 3)
        file.write(b"\x00\x00\x00")
    with pytest.raises(StageError, match=r"is damaged: the arrays of unit 1 .*Delete that file"):
        Ledger(tmp_path, "f", 9)[1].columns()


@pytest.mark.parametrize(("fingerprint", "count"), [("g", 9), ("f", 8)])
def test_a_ledger_of_other_settings_is_refused(tmp_path, fingerprint, count):
    written(tmp_path, [0], fingerprint=fingerprint, count=count)
    with pytest.raises(StageError, match=f"is the ledger of {count} units made with other settings, now there are 9"):
        Ledger(tmp_path, "f", 9)
    (lines,) = tmp_path.rglob("*.jsonl")
    lines.write_text("[]\n")
    with pytest.raises(StageError, match="is no ledger of this workflow"):
        Ledger(tmp_path, "f", 9)


def test_the_last_of_several_entries_of_a_unit_counts(tmp_path):
    """A unit that was found damaged is done again; its first entry does not come back."""
    written(tmp_path, [1])
    ledger = Ledger(tmp_path, "f", 9)
    assert ledger.forget(lambda entry: entry.facts["k"] == 1) == 1
    ledger.refresh()
    assert 1 not in ledger
    with LedgerWriter(tmp_path / "0", "f", 9) as writer:
        ledger.take(writer.add(1, {}, {"k": "new"}, ledger.redone(1)))
    assert ledger[1].facts == Ledger(tmp_path, "f", 9)[1].facts == {"k": "new"}


# --- tasks


class Squares(BlockTask):
    """Writes a file for each block, and says how large it is."""

    name = "squares"

    def __init__(self, folder: Path, fails: str = "") -> None:
        self.folder, self.grid, self.fails = folder, Grid(BOX, (4, 5, 6)), fails

    def path(self, unit: int) -> Path:
        return self.folder / f"{unit}.txt"

    def run(self, unit: int) -> Result:
        if unit == 7 and self.fails == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if unit == 7 and self.fails == "memory":
            raise MemoryError("Unable to allocate 1 EiB")
        self.path(unit).write_text(str(unit**2))
        return Result({"square": np.array([unit**2])}, {"bytes": len(str(unit**2))})

    def is_intact(self, entry) -> bool:
        return self.path(entry.unit).exists() and self.path(entry.unit).stat().st_size == entry.facts["bytes"]


class Total(Reduce):
    name = "total"

    def __init__(self, squares: Step) -> None:
        self.squares = squares

    def run(self, unit: int) -> Result:
        return Result(facts={"total": sum(int(found["square"][0]) for found in self.squares.ledger().columns())})


def stage_in(folder: Path, **settings) -> BlockwiseStage:
    stage = Stage(folder / "stage", {"a": 1, **settings})
    squares = Squares(folder)
    return BlockwiseStage(stage, [squares, Total(BlockwiseStage.step_of(stage, squares))], "ffn example")


def facts(folder: Path) -> dict[str, object]:
    return json.loads((folder / "stage" / "done.json").read_text())["facts"]


TOTAL = sum(unit**2 for unit in range(18))


@pytest.mark.parametrize("workers", [1, 3])
def test_units_are_done_once_and_the_stage_is_complete(tmp_path, workers):
    steps = stage_in(tmp_path)
    assert steps.run(workers)
    assert facts(tmp_path) == {"total": TOTAL}
    assert sorted(path.name for path in (tmp_path / "stage").iterdir()) == ["done.json", "started.json"]
    assert len(list(tmp_path.glob("*.txt"))) == 18
    assert not stage_in(tmp_path).run(workers)
    with pytest.raises(StageError, match="a: there 1, now 2"):
        stage_in(tmp_path, a=2).run(workers)


def test_parts_of_a_step_and_processes_that_share_them(tmp_path):
    for part in range(3):
        for rank in range(2):
            stage_in(tmp_path).run(1, Share("squares", JobPart(part, 3), Peer(rank, 2)))
    written = sorted((tmp_path / "stage" / "steps" / "squares").iterdir())
    assert [path.name for path in written] == ["1-of-3", "2-of-3", "3-of-3"]
    # The first process of each part did what the other had left.
    assert [len(list(path.glob("*.jsonl"))) for path in written] == [1, 1, 1]
    assert not (tmp_path / "stage" / "done.json").exists()
    stage_in(tmp_path).run(1, Share("total"))
    assert facts(tmp_path) == {"total": TOTAL}


def test_what_another_process_does_meanwhile_is_left_to_it(tmp_path, monkeypatch):
    monkeypatch.setattr("ffn.blockwise.stage._REFRESH_S", -1.0)
    steps, run, done = stage_in(tmp_path), Squares.run, []

    def shared(task: Squares, unit: int) -> Result:
        done.append(unit)
        if len(done) == 3:
            written_by_another = [unit for unit in range(18) if unit % 2 and unit not in done]
            step = BlockwiseStage.step_of(steps.stage, task)
            with LedgerWriter(step.folder / "1-of-1", step.fingerprint, step.units) as writer:
                for other in written_by_another:
                    result = run(task, other)
                    writer.add(other, result.columns, result.facts)
            done.extend(written_by_another)
        return run(task, unit)

    monkeypatch.setattr(Squares, "run", shared)
    steps.run(1)
    assert sorted(done) == list(range(18))
    assert facts(tmp_path) == {"total": TOTAL}


def test_a_unit_whose_file_is_damaged_is_done_again(tmp_path):
    stage_in(tmp_path).run(1, Share("squares"))
    (tmp_path / "4.txt").unlink()
    (tmp_path / "11.txt").write_text("1")
    with pytest.raises(StageError, match=r"2 of the 18 units of the step squares are not done.*--step squares"):
        stage_in(tmp_path).run(1, Share("total"))
    stage_in(tmp_path).run(1)
    assert (tmp_path / "4.txt").read_text() == "16"
    assert (tmp_path / "11.txt").read_text() == "121"
    assert facts(tmp_path) == {"total": TOTAL}


def test_two_processes_begin_at_different_units(tmp_path):
    order = []

    class Told(Squares):
        def run(self, unit: int) -> Result:
            order.append(unit)
            return super().run(unit)

    stage = Stage(tmp_path / "stage", {"a": 1})
    step = BlockwiseStage.step_of(stage, Squares(tmp_path))
    with LedgerWriter(step.folder / "1-of-1", step.fingerprint, step.units) as writer:
        writer.add(0, {}, {"bytes": 1})
    (tmp_path / "0.txt").write_text("0")
    BlockwiseStage(stage, [Told(tmp_path)], "ffn example").run(1)
    assert order[0] == 11
    assert sorted(order) == list(range(1, 18))


def test_several_end_a_stage_at_once(tmp_path):
    """Each finds the stage complete and removes the ledgers, which the others are removing too."""
    stages = [stage_in(tmp_path) for _ in range(4)]
    stages[0].run(1, Share("squares"))
    stages[0].run(1, Share("total"))
    ledgers = stages[0].stage.folder / "steps"
    for job in range(300):
        (ledgers / "squares" / f"job-{job}").mkdir(parents=True)
    with ThreadPoolExecutor(len(stages)) as threads:
        assert list(threads.map(lambda stage: stage.run(1), stages)) == [False] * len(stages)
    assert not ledgers.exists()


# --- pools


class Doubles(Task):
    name = "doubles"

    def __len__(self) -> int:
        return 20

    def run(self, unit: int) -> Result:
        return Result(facts={"double": 2 * unit, "process": os.getpid()})


def test_one_pool_does_one_task_after_the_other(tmp_path):
    with Pool(2) as pool:
        found = dict(pool.results(Doubles(), range(20)))
        assert {unit: result.facts["double"] for unit, result in found.items()} == {n: 2 * n for n in range(20)}
        processes = {result.facts["process"] for result in found.values()}
        assert os.getpid() not in processes
        again = {result.facts["process"] for _, result in pool.results(Doubles(), [3])}
        squares = dict(pool.results(Squares(tmp_path), range(18)))
        assert again <= processes
        assert int(squares[5].columns["square"][0]) == 25


def test_no_more_is_under_way_than_there_are_processes():
    taken = []

    def units():
        for unit in range(20):
            taken.append(unit)
            yield unit

    with Pool(2) as pool:
        for count, _ in enumerate(pool.results(Doubles(), units()), start=1):
            assert len(taken) <= count + 1


def test_a_worker_that_is_killed_is_told(tmp_path):
    with Pool(2) as pool, pytest.raises(WorkerError, match=r"2 worker processes was killed.*Use fewer processes"):
        list(pool.results(Squares(tmp_path, "killed"), range(18)))


@pytest.mark.parametrize("workers", [1, 2])
def test_too_little_memory_is_told(tmp_path, workers):
    with Pool(workers) as pool, pytest.raises(WorkerError, match=r"Memory ran out .*Use fewer processes"):
        list(pool.results(Squares(tmp_path, "memory"), range(18)))
