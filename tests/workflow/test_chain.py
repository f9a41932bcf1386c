"""The whole chain through Snakemake on a tiny synthetic volume: it ends, stays ended, and survives being killed."""

import json
import os
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from calling import ROOT, Snakemake
from tiled import kept_files

from ffn.blockwise import Entry
from ffn.config import load_config
from ffn.inference.kept import archives_of, ledger_of
from ffn.planning.extent import extent_of
from ffn.planning.outputs import Cut, outputs
from ffn.runs import labels_in
from ffn.volumes import open_volume

TINY = Path(__file__).parent / "configs" / "tiny.yaml"
RUN = Path("results/tiny")
KILLER = os.pathsep.join([str(Path(__file__).parent / "killer"), os.environ.get("PYTHONPATH", "")])
pytestmark = pytest.mark.slow


def chain(caller: Snakemake, *more: str):
    return caller("--snakefile", ROOT / "Snakefile", "--cores", "2", "--configfile", TINY, "--rerun-incomplete", *more)


def labels_of(run: Path, stage: str) -> np.ndarray:
    with open_volume(labels_in(run / stage)) as volume:
        return volume[...]


def written(path: Path) -> tuple[int, int]:
    """Which file it is and when it was written."""
    return path.stat().st_ino, path.stat().st_mtime_ns


def finished_in(run: Path, name: str = "pass-0") -> dict[int, Entry]:
    """The sub-volumes of a pass, or of the consensus, that are finished."""
    ledger = ledger_of(run / "infer" / name)
    return {} if ledger is None else {entry.unit: entry for entry in ledger.entries()}


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Snakemake:
    """An undisturbed run."""
    caller = Snakemake(tmp_path_factory.mktemp("chain"))
    done = chain(caller)
    assert done.returncode == 0, done.stdout
    return caller


@pytest.fixture
def copied(finished, tmp_path) -> Snakemake:
    """The undisturbed run in another folder, to do things to."""
    shutil.copytree(finished.folder, tmp_path / "copy", symlinks=True)
    return Snakemake(tmp_path / "copy")


def test_every_stage_leaves_its_files(finished):
    run = finished.folder / RUN
    for name in (
        "synth/volume.h5", "prepare/seeds.csv", "prepare/coordinates.h5", "train/model.ckpt.index", "train/curves.csv",
        "infer/pass-0/started.json", "assemble/segmentation.zarr/0/zarr.json",
        "evaluate/scores.json", "export/image/info", "export/segmentation/info", "export/truth/info",
        "export/state.json", "report/curves.png", "report/overlay.png", "report/scores.md",
        "logs/train.log",
    ):  # fmt: skip
        assert (run / name).is_file(), name
    assert sorted(finished_in(run)) == [0, 1]
    assert not list(run.glob("infer/tile-*"))


def test_the_plan_counts_the_files_of_every_stage(finished):
    """For a run of two sub-volumes, each a job of one process."""
    run, config = finished.folder / RUN, load_config(TINY)
    planned = {output.name: output.files for output in outputs(config, extent_of(config), Cut())}
    del planned["saved states, while running"]
    with_logs = {"synth": "embedded volume", "prepare": "prepared volumes", "train": "training", "infer": "sub-volumes"}
    kinds = {**with_logs, "assemble": "assembled volume", "export": "layers for Neuroglancer"}
    there = Counter()
    for path in run.rglob("*"):
        if path.is_file():
            stage, *more = path.relative_to(run).parts
            of_log = with_logs.get(more[0].removesuffix(".log"), "") if stage == "logs" else ""
            there[of_log or kinds.get(stage, "scores, report, logs")] += 1
    assert there == planned


def test_second_run_does_nothing(finished):
    again = chain(finished)
    assert again.returncode == 0
    assert "Nothing to be done" in again.stdout


def test_report_is_one_page_with_all_results(finished):
    made = chain(finished, "--report", "report.html")
    assert made.returncode == 0, made.stdout
    page = (finished.folder / "report.html").read_text(encoding="utf-8")
    for name in ("curves.png", "overlay.png", "scores.html"):
        assert name in page


def test_changed_settings_are_refused_and_the_results_kept(copied):
    weights = copied.folder / RUN / "train/model.ckpt.data-00000-of-00001"
    before = weights.read_bytes()
    refused = chain(copied, "--config", 'training={"steps": 61}')
    assert refused.returncode != 0
    assert "holds results of another configuration (training.steps: there 60, now 61)" in refused.stdout
    assert "Traceback" not in refused.stdout
    assert weights.read_bytes() == before
    back = chain(copied)
    assert back.returncode == 0, back.stdout
    assert weights.read_bytes() == before


def test_several_passes_are_jobs_and_what_they_agree_on_is_assembled(copied):
    run = copied.folder / RUN
    for stage in ("infer", "assemble", "evaluate", "export", "report"):
        shutil.rmtree(run / stage)
    done = chain(copied, "--config", 'inference={"passes": 2, "mirror": True}')
    assert done.returncode == 0, done.stdout
    for name in ("pass-0", "pass-1", "consensus"):
        assert sorted(finished_in(run, name)) == [0, 1]
    assert labels_of(run, "assemble").shape == (40, 64, 64)
    again = chain(copied, "--config", 'inference={"passes": 2, "mirror": True}')
    assert "Nothing to be done" in again.stdout


def test_pieces_are_joined_after_assembly(copied):
    run = copied.folder / RUN
    for stage in ("evaluate", "export", "report"):
        shutil.rmtree(run / stage)
    joining = (
        'agglomeration={"enabled": True, "min_segment_size": 50, "max_pairs": 2, "max_retry_iters": 1, '
        '"radius": [10, 10, 10], "analysis_radius": [8, 8, 8]}'
    )
    done = chain(copied, "--config", joining)
    assert done.returncode == 0, done.stdout
    assert labels_of(run, "agglomerate").shape == (40, 64, 64)
    assert (run / "agglomerate/candidates.csv").is_file()
    layers = json.loads((run / "export/state.json").read_text())["layers"]
    assert layers[-1]["name"] == "candidates"
    again = chain(copied, "--config", joining)
    assert "Nothing to be done" in again.stdout


def test_batches_of_another_size_repeat_nothing(finished):
    """What is finished stays cut as it was."""
    for tiles in (1, 2, 5):
        again = chain(finished, "--config", f'inference={{"tiles_per_job": {tiles}}}')
        assert again.returncode == 0
        assert "Nothing to be done" in again.stdout


def test_processes_that_share_a_batch_leave_the_same_files(finished, copied):
    for stage in ("infer", "assemble", "evaluate", "export", "report"):
        shutil.rmtree(copied.folder / RUN / stage)
    shared = '"tiles_per_job": 2, "ranks": 2, "intra_op_threads": 1'
    done = chain(copied, "--config", f"inference={{{shared}}}")
    assert done.returncode == 0, done.stdout
    run = copied.folder / RUN
    assert len(list(run.glob("infer/jobs/0000-0001-pass-0-rank-*.json"))) == 2
    assert (run / "infer/jobs/0000-0001.done").is_file()
    _assert_same_results(finished.folder / RUN, run)


def test_a_sub_volume_that_was_deleted_is_made_again_and_its_neighbour_kept(copied):
    run = copied.folder / RUN
    entries = finished_in(run)
    lost, kept = (archives_of(entry) / entry.facts["archive"] for entry in (entries[1], entries[0]))
    lost.unlink()
    before = written(kept)
    shutil.rmtree(run / "assemble")
    for stage in ("evaluate", "export", "report"):
        shutil.rmtree(run / stage)
    done = chain(copied, "--config", 'inference={"tiles_per_job": 2}')
    assert done.returncode == 0, done.stdout
    now = finished_in(run)
    assert (now[0], now[1].redone) == (entries[0], 1)
    assert written(kept) == before


def test_changed_export_repeats_only_the_export(copied):
    shutil.rmtree(copied.folder / RUN / "export")
    done = chain(copied, "--config", 'export={"mips": 0}')
    assert done.returncode == 0, done.stdout
    assert "2 of 2 steps (100%) done" in done.stdout


@pytest.mark.parametrize("kill", ["train:7:all", "infer:4:job", "assemble:2:all"])
def test_killed_run_ends_in_the_same_files(finished, tmp_path, kill):
    caller = Snakemake(tmp_path)
    told = tmp_path / "killed"
    caller.env |= {
        "FFN_KILL": kill,
        "FFN_KILLED": str(told),
        "PYTHONPATH": KILLER,
    }
    first = chain(caller)
    assert first.returncode != 0
    assert told.exists(), first.stdout
    chain(caller, "--unlock")
    second = chain(caller)
    assert second.returncode == 0, second.stdout
    _assert_same_results(finished.folder / RUN, tmp_path / RUN)


@pytest.mark.parametrize("tiles", [1, 2, 3])
def test_killed_batch_goes_on_whatever_the_next_batches_are(finished, tmp_path, tiles):
    """Four sub-volumes in batches of three: the first batch dies in its second sub-volume."""
    cut = '"subvolume_size": [24, 40, 64], "subvolume_overlap": [8, 16, 8], "ranks": 1'
    caller = Snakemake(tmp_path)
    shutil.copytree(finished.folder, tmp_path, symlinks=True, dirs_exist_ok=True)
    run = tmp_path / RUN
    for stage in ("infer", "assemble", "evaluate", "export", "report"):
        shutil.rmtree(run / stage)
    told = tmp_path / "killed"
    caller.env |= {
        "FFN_KILL": "infer:14:job", "FFN_KILLED": str(told), "PYTHONPATH": KILLER,
    }  # fmt: skip
    first = chain(caller, "--config", f'inference={{{cut}, "tiles_per_job": 3}}')
    assert first.returncode != 0
    assert told.exists(), first.stdout
    whole = finished_in(run)
    assert whole, "something was finished before the kill"
    assert len(whole) < 4
    second = chain(caller, "--config", f'inference={{{cut}, "tiles_per_job": {tiles}}}')
    assert second.returncode == 0, second.stdout
    now = finished_in(run)
    assert {number: now[number] for number in whole} == whole
    assert len(now) == 4
    assert labels_of(run, "assemble").shape == (40, 64, 64)
    again = chain(caller, "--config", f'inference={{{cut}, "tiles_per_job": 4}}')
    assert "Nothing to be done" in again.stdout


@pytest.fixture
def armed(tmp_path) -> Snakemake:
    """A caller whose training can be told to die."""
    caller = Snakemake(tmp_path)
    caller.env |= {"FFN_KILLED": str(tmp_path / "killed"), "PYTHONPATH": KILLER}
    return caller


def test_killed_training_is_started_again_at_once(finished, armed):
    armed.env["FFN_KILL"] = "train:12:job"
    done = chain(armed)
    assert done.returncode == 0, done.stdout
    assert (armed.folder / "killed").exists()
    assert "exit code 137 and without a word. Starting again (1 of 3)." in done.stdout
    assert "Resuming after step" in done.stdout
    _assert_same_results(finished.folder / RUN, armed.folder / RUN)


def test_training_that_was_asked_to_stop_goes_on_in_the_next_attempt(finished, armed):
    """As at the end of the wall time: it saves, and Snakemake tries again where its profile says so."""
    armed.env["FFN_KILL"] = "train:9:term"
    done = chain(armed, "--retries", "1")
    assert done.returncode == 0, done.stdout
    assert "stopped by SIGTERM after step" in done.stdout
    assert "Starting again" not in done.stdout
    assert "Trying to restart" in done.stdout
    assert "Resuming after step" in done.stdout
    _assert_same_results(finished.folder / RUN, armed.folder / RUN)


def test_mistake_is_not_repeated(copied):
    failed = chain(copied, "--retries", "2", "--config", 'training={"steps": 61}')
    assert failed.returncode != 0
    assert failed.stdout.count("ffn: error: ") == 1
    assert failed.stdout.count("ffn attend: not tried again, it would fail again: ") == 2
    assert "Starting again" not in failed.stdout


def _assert_same_results(ours: Path, theirs: Path) -> None:
    for name in (
        "prepare/seeds.csv", "train/curves.csv", "train/model.ckpt.data-00000-of-00001",
        "evaluate/scores.json", "report/scores.md",
    ):  # fmt: skip
        assert (ours / name).read_bytes() == (theirs / name).read_bytes(), name
    assert kept_files(ours / "infer") == kept_files(theirs / "infer")
    np.testing.assert_array_equal(labels_of(ours, "assemble"), labels_of(theirs, "assemble"))
