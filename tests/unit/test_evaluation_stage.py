"""Evaluation of a run, block by block: the same scores whoever does the blocks, and however often they are killed."""

import json
import os
import shutil
import signal
from pathlib import Path

import forks
import numpy as np
import pytest
import yaml

from ffn.blockwise import Grid, JobPart, Ledger, Share
from ffn.cli import main
from ffn.config import load_config
from ffn.errors import DataError, StageError, VolumeError
from ffn.evaluation import evaluate, evaluate_run
from ffn.evaluation.run import Scoring
from ffn.evaluation.tables import Pair, Tables, blocks_of
from ffn.files import write_json
from ffn.geometry import Box
from ffn.runs import SEGMENTATION_STORE, RunPaths
from ffn.stages import Stage
from ffn.volumes import create_hdf5
from ffn.volumes.hdf5 import Hdf5Volume
from ffn.volumes.store import Store, StoreLayout

SHAPE = (1100, 6, 6)
UNITS = 9
"""Blocks of 128 sections."""


def write_labels(path: Path, labels: np.ndarray) -> str:
    with create_hdf5(path, "labels", labels.shape, labels.dtype, (10.0, 10.0, 10.0)) as volume:
        volume.write(Box.of_shape(labels.shape), labels)
    return f"{path}:labels"


def store_of(paths: RunPaths) -> Path:
    return paths.segmented / SEGMENTATION_STORE


def write_segmentation(paths: RunPaths, labels: np.ndarray) -> None:
    """The result of `ffn assemble`: a store in shards."""
    layout = StoreLayout.of_blocks(labels.shape, "uint64", (64, 64, 64), (10.0, 10.0, 10.0))
    store = Store(store_of(paths), layout).created()
    for box in Grid(Box.of_shape(labels.shape), layout.shard):
        store.write_shard(box, labels[box.slices])


@pytest.fixture
def run(tmp_path) -> Path:
    """The configuration of a run that is assembled; the first 40 of the sections with ground truth have none."""
    rng = np.random.default_rng(4)
    truth = (np.arange(np.prod(SHAPE)) // 900 + 1).reshape(SHAPE).astype(np.uint64)
    truth[:40] = 0
    found = np.where(rng.random(SHAPE) < 0.8, truth // 2, rng.integers(0, 9, SHAPE)).astype(np.uint64)
    values = {
        "run": "scored",
        "results": str(tmp_path / "results"),
        "data": {
            "test": {
                "image": "none.h5:image",
                "labels": write_labels(tmp_path / "truth.h5", np.concatenate([np.zeros_like(truth[:5]), truth])),
                "box": f"5:{5 + SHAPE[0]},0:6,0:6",
            }
        },
        "network": {"fov": [5, 5, 5], "deltas": [1, 1, 1]},
        "inference": {"checkpoint": "none"},
    }
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(values))
    paths = paths_of(path)
    paths.segmented.mkdir(parents=True)
    write_segmentation(paths, found)
    write_json(paths.segmented / "done.json", {"facts": 1})
    return path


def paths_of(run: Path) -> RunPaths:
    return RunPaths.of(load_config(run))


def expected(run: Path) -> dict[str, object]:
    config = load_config(run)
    return evaluate(config.data.test.labels, paths_of(run).segmentation, config.data.test.bounds)


def assert_scored(run: Path) -> None:
    """The right scores are there, the stage is complete, and nothing that only an unfinished one needs."""
    paths, scores = paths_of(run), expected(run)
    assert scores["voxels"] == (SHAPE[0] - 40) * 36
    assert json.loads(paths.scores.read_text()) == scores
    assert json.loads((paths.evaluate / "done.json").read_text())["facts"] == {"coverage": scores["coverage"]}
    assert {path.name for path in paths.evaluate.iterdir()} == {"started.json", "done.json", "scores.json", "scores.md"}


def started(run: Path, *arguments: str, rank: int | None = None, size: int = 1, die: tuple[int, str] | None = None):
    """A process of `ffn evaluate`, maybe one of several that a launcher started, or one that dies at a unit."""
    words = [] if die is None else [*map(str, die)]
    ranks = {} if rank is None else {"OMPI_COMM_WORLD_RANK": str(rank), "OMPI_COMM_WORLD_SIZE": str(size)}
    command = ["evaluate", "--config", str(run), *arguments]
    function = forks.FFN if die is None else "killed_evaluation:main"
    return forks.call(function, *words, command, loaded=["ffn.evaluation"], variables=ranks)


def ended(processes) -> list[str]:
    """What the processes print, all at once, to their good end."""
    done = forks.together(*processes)
    assert [one.returncode for one in done] == [0] * len(processes), [one.stderr for one in done]
    return [one.stdout for one in done]


def noted(run: Path) -> list[int]:
    """Units in the ledger of the tables, once for each whole line."""
    lines = []
    for path in sorted(paths_of(run).evaluate.glob("steps/tables/*/*.jsonl")):
        lines += [line for line in path.read_text().splitlines(keepends=True)[1:] if line.endswith("\n")]
    return [json.loads(line)["unit"] for line in lines]


def only(run: Path, kind: str) -> Path:
    (path,) = paths_of(run).evaluate.glob(f"steps/tables/*/*.{kind}")
    return path


def test_all_in_one_process(run, capsys):
    assert main(["evaluate", "--config", str(run)]) == 0
    assert_scored(run)
    table = capsys.readouterr().out
    assert table == paths_of(run).scores.with_suffix(".md").read_text()
    assert main(["evaluate", "--config", str(run)]) == 0
    assert capsys.readouterr().out == table


@pytest.mark.slow
def test_three_jobs_of_two_processes(run):
    parts = [("--step", "tables", "--part", f"{k}/3") for k in (1, 2, 3)]
    told = ended([started(run, *part, rank=rank, size=2) for part in parts for rank in (0, 1)])
    assert told == [""] * 6
    assert sorted(set(noted(run))) == list(range(UNITS))
    first, second = ended([started(run, "--step", "scores", rank=rank, size=2) for rank in (0, 1)])
    assert first == paths_of(run).scores.with_suffix(".md").read_text()
    assert second == ""
    assert_scored(run)


@pytest.mark.slow
def test_two_processes_that_do_not_know_of_each_other(run):
    first, second = ended([started(run) for _ in range(2)])
    assert first == second == paths_of(run).scores.with_suffix(".md").read_text()
    assert_scored(run)


@pytest.mark.slow
def test_worker_processes_make_the_same_tables(run):
    config = load_config(run)
    uris = config.data.test.labels, paths_of(run).segmentation
    assert evaluate(*uris, config.data.test.bounds, workers=2) == expected(run)


@pytest.mark.slow
@pytest.mark.parametrize("when", ["before", "within"])
def test_a_kill_loses_one_unit_of_each_process(run, when):
    last = np.random.default_rng(list(when.encode())).integers(1, UNITS // 2, 2)
    dying = [started(run, "--step", "tables", rank=k, size=2, die=(int(last[k]), when)) for k in (0, 1)]
    assert [one.returncode for one in forks.together(*dying)] == [-signal.SIGKILL] * 2
    assert len(noted(run)) == sum(last - 1)
    ended([started(run, "--step", "tables")])
    # What was noted is kept: the two units at which they died were begun twice, all others once.
    assert sorted(noted(run)) == list(range(UNITS))
    ended([started(run)])
    assert_scored(run)


def test_killed_between_the_scores_and_the_marker(run, monkeypatch):
    class Killed(BaseException):
        pass

    def killed(*_, **__):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Stage, "finish", killed)
        with pytest.raises(Killed):
            evaluate_run(load_config(run))
    paths_of(run).scores.unlink()  # a file that is gone is made again
    evaluate_run(load_config(run))
    assert_scored(run)


def overtaken(run, monkeypatch, owner, name) -> list[str | None]:
    """When `name` is called first, another evaluation ends the whole stage before; returns what that one printed."""
    real, others = getattr(owner, name), []

    def call(*arguments, **more):
        if not others:
            others.append(None)
            others[0] = evaluate_run(load_config(run))
        return real(*arguments, **more)

    monkeypatch.setattr(owner, name, call)
    return others


@pytest.mark.parametrize(
    ("owner", "name"),
    [(Stage, "begin"), (Tables, "run"), (Scoring, "run"), (Ledger, "columns"), (Ledger, "refresh"), (Stage, "finish")],
)
def test_another_process_ends_the_stage_meanwhile(run, monkeypatch, owner, name):
    others = overtaken(run, monkeypatch, owner, name)
    assert [evaluate_run(load_config(run))] == others
    assert_scored(run)


def test_a_process_that_comes_late_does_nothing_again(run, monkeypatch):
    units, work = [], Tables.run
    monkeypatch.setattr(Tables, "run", lambda self, unit: units.append(unit) or work(self, unit))
    overtaken(run, monkeypatch, Ledger, "refresh")
    evaluate_run(load_config(run))
    assert units == list(range(UNITS))
    assert_scored(run)


def test_scores_wait_for_all_tables(run, capsys):
    evaluate_run(load_config(run), Share("tables", JobPart(1, 3)))
    assert main(["evaluate", "--config", str(run), "--step", "scores"]) == 2
    assert "6 of the 9 units of the step tables are not done" in capsys.readouterr().err
    assert main(["evaluate", "--config", str(run), "--step", "labels"]) == 2
    assert "no step labels; there are tables, scores" in capsys.readouterr().err
    assert evaluate_run(load_config(run)) is not None
    assert_scored(run)


def test_torn_line_is_done_again(run):
    evaluate_run(load_config(run), Share("tables"))
    path = only(run, "jsonl")
    path.write_bytes(path.read_bytes()[:-15])
    assert len(noted(run)) == UNITS - 1
    evaluate_run(load_config(run), Share("tables"))
    assert sorted(noted(run)) == list(range(UNITS))
    evaluate_run(load_config(run))
    assert_scored(run)


def test_damaged_tables_are_named_and_made_again(run, capsys):
    evaluate_run(load_config(run), Share("tables"))
    path = only(run, "arrays")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert main(["evaluate", "--config", str(run)]) == 2
    assert f"{path} is damaged" in capsys.readouterr().err
    path.unlink()
    assert main(["evaluate", "--config", str(run)]) == 0
    assert_scored(run)


def test_cut_tables_are_made_again(run):
    evaluate_run(load_config(run), Share("tables"))
    path = only(run, "arrays")
    os.truncate(path, path.stat().st_size - 1)
    evaluate_run(load_config(run))
    assert_scored(run)


def test_ledger_of_other_settings(run, capsys):
    evaluate_run(load_config(run), Share("tables"))
    ledger, other = only(run, "jsonl"), run.with_name("other.jsonl")
    shutil.move(ledger, other)
    head, *lines = other.read_text().splitlines()
    ledger.write_text("\n".join([json.dumps({**json.loads(head), "fingerprint": "other"}), *lines]) + "\n")
    before = ledger.read_bytes()
    assert main(["evaluate", "--config", str(run)]) == 2
    assert f"{ledger} is the ledger of 9 units made with other settings" in capsys.readouterr().err
    assert ledger.read_bytes() == before
    shutil.move(other, ledger)
    evaluate_run(load_config(run))
    assert_scored(run)


def claimed_with(stage: Stage, **settings) -> Stage:
    return Stage(stage.folder, {**stage.settings, **settings})


def stage_of(run: Path) -> Stage:
    """The stage with the settings that are in its marker."""
    folder = paths_of(run).evaluate
    return Stage(folder, json.loads((folder / "started.json").read_text())["settings"])


def test_an_unfinished_evaluation_must_be_cut_in_the_same_way(run):
    evaluate_run(load_config(run), Share("tables", JobPart(0, 3)))
    stage = stage_of(run)
    assert stage.settings["block"] == [128, 256, 256]
    stage.started_marker.unlink()
    claimed_with(stage, block=[64, 256, 256]).begin()
    with pytest.raises(StageError, match=r"block: there \[64, 256, 256\], now \[128, 256, 256\]"):
        evaluate_run(load_config(run))


@pytest.mark.parametrize("block", [[64, 256, 256], None])
def test_a_finished_evaluation_counts_however_it_was_cut(run, block):
    table = evaluate_run(load_config(run))
    stage = stage_of(run)
    stage.started_marker.unlink()
    stage.done_marker.unlink()
    settings = {key: value for key, value in stage.settings.items() if key != "block"}
    old = Stage(stage.folder, settings if block is None else {**settings, "block": block})  # None: earlier versions
    old.begin()
    old.finish(coverage=0.5)
    shutil.rmtree(store_of(paths_of(run)))  # it is not read again
    assert evaluate_run(load_config(run)) == table
    write_json(paths_of(run).segmented / "done.json", {"facts": 2})
    with pytest.raises(StageError, match="segmentation: there"):
        evaluate_run(load_config(run))


def changed(run: Path, **test: str):
    values = yaml.safe_load(run.read_text())
    values["data"]["test"] |= test
    run.write_text(yaml.safe_dump(values))
    return load_config(run)


@pytest.mark.parametrize(
    ("wrong", "error"), [("5:2000,0:6,0:6", VolumeError), ("5:25,0:6,0:6", DataError)], ids=["outside", "unknown"]
)
def test_a_wrong_box_that_is_put_right_meets_no_claim(run, wrong, error):
    right, paths = load_config(run).data.test.box, paths_of(run)
    whole = store_of(paths).rename(paths.root / "whole.zarr")
    write_segmentation(paths, np.ones((20, 6, 6), np.uint64))
    with pytest.raises(error):
        evaluate_run(changed(run, box=wrong))
    shutil.rmtree(store_of(paths))
    whole.rename(store_of(paths))
    evaluate_run(changed(run, box=right))
    assert_scored(run)


def test_steps_belong_to_runs(run, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["evaluate", "--truth", "t", "--segmentation", "s", "--output", "o.json", "--step", "tables"])
    assert "--step goes with --config" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main(["evaluate", "--config", str(run), "--part", "1/2"])
    assert "--part goes with --step" in capsys.readouterr().err


def test_a_unit_is_read_in_parts(run, monkeypatch):
    sections, read = [], Hdf5Volume.read
    monkeypatch.setattr(Hdf5Volume, "read", lambda self, box: sections.append(box.shape[0]) or read(self, box))
    evaluate_run(load_config(run))
    assert max(sections) == 64
    assert sum(sections) == SHAPE[0]


def test_blocks_and_processes_follow_the_volume():
    def tables(edge: int) -> Tables:
        return Tables(Pair("truth", "segmentation"), blocks_of((edge, edge, edge)))

    assert [len(tables(edge)) for edge in (80, 250, 1_000, 10_000)] == [1, 2, 64, 8_000]
    assert [tables(edge).workers for edge in (80, 250)] == [1, 1]
    assert tables(1_000).workers >= min(len(os.sched_getaffinity(0)), 2)
