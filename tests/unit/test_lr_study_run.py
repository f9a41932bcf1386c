"""The learning-rate study by real trainings: one and two workers, three rates, some steps; killed, and continued."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import forks
import pytest
import yaml
from stopping import refused_while_locked
from tiny_training import environment, settings, train

from ffn.config import parse_config
from ffn.scaling.cells import Cell, cell_config
from ffn.scaling.outcomes import cell_stage, read_outcomes
from ffn.scaling.paths import StudyPaths
from ffn.scaling.train_cells import prepare_cells, train_cell

STUDY = {
    "lr_study": {
        "workers": [1, 2],
        "rates": 3,
        "steps": 6,
        "seeds": 1,
        "log_every": 2,
        "extensions": 0,
        "score": "loss",
        "base_rate": 5e-3,
    }
}
CELLS = 6


def write_study(folder: Path) -> Path:
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump({**settings(folder, batch=1, checkpoint_every=2), "study": STUDY}))
    return path


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An undisturbed study."""
    folder = tmp_path_factory.mktemp("study")
    done = forks.ffn("study", "lr", "--config", write_study(folder))
    assert done.returncode == 0, done.stderr
    assert f"lr_study: {CELLS} cells" in done.stderr
    assert "left" in done.stderr
    return folder


def cells_of(folder: Path) -> Path:
    return StudyPaths.of(parse_config({**settings(folder), "study": STUDY})).cells


@pytest.mark.slow
def test_study_ends_in_its_result(finished: Path) -> None:
    config = parse_config({**settings(finished, batch=1, checkpoint_every=2), "study": STUDY})
    outcomes = read_outcomes(config)
    assert len(outcomes) == CELLS
    assert all("loss" in outcome.scores["training"] for outcome in outcomes.values())
    folder = StudyPaths.of(config).lr_study
    assert {path.name for path in folder.iterdir()} >= {"lr_study.png", "lr_study.csv", "lr_study.json", "lr_study.md"}
    curves = (cells_of(finished) / "w0002-p01-s0" / "train" / "curves.csv").read_text().splitlines()
    assert curves[-1].split(",")[:2] == ["6", "12"]


@pytest.mark.slow
def test_a_cell_among_others_is_what_it_is_alone(finished: Path, tmp_path: Path) -> None:
    """The last cell of the process, which had trained all others before, against `ffn train` of its configuration."""
    config = parse_config({**settings(finished, batch=1, checkpoint_every=2), "study": STUDY})
    cell = max(read_outcomes(config), key=lambda cell: (cell.seed, cell.workers))
    alone = tmp_path / "cell.yaml"
    alone.write_text(yaml.safe_dump(cell_config(config, cell).model_dump(mode="json")))
    train(alone, "--output", str(tmp_path / "out"))
    for name in ("curves.csv", "model.ckpt.data-00000-of-00001"):
        theirs = cells_of(finished) / cell.name / "train" / name
        assert (tmp_path / "out" / name).read_bytes() == theirs.read_bytes(), name


@pytest.mark.slow
def test_killed_study_goes_on(finished: Path, tmp_path: Path) -> None:
    config = write_study(tmp_path)
    command = [sys.executable, "-m", "ffn", "study", "lr", "--config", str(config)]
    with subprocess.Popen(command, env=environment(), stderr=subprocess.DEVNULL, start_new_session=True) as process:
        second = cells_of(tmp_path) / Cell(1, 0, 0).name / "train" / "curves.csv"
        try:
            while not (second.exists() and len(second.read_text().splitlines()) > 2):
                assert process.poll() is None, "the study ended before it could be killed"
                time.sleep(0.01)
        finally:
            os.killpg(process.pid, signal.SIGKILL)
    first = cells_of(tmp_path) / Cell(1, -1, 0).name / "done.json"
    before = first.stat().st_mtime_ns
    again = forks.ffn("study", "lr", "--config", config)
    assert again.returncode == 0, again.stderr
    assert first.stat().st_mtime_ns == before
    for cell in cells_of(finished).iterdir():
        for name in ("curves.csv", "model.ckpt.data-00000-of-00001"):
            ours = cells_of(tmp_path) / cell.name / "train" / name
            assert ours.read_bytes() == (cell / "train" / name).read_bytes(), f"{cell.name}: {name}"
    results = [StudyPaths(cells_of(folder).parent).lr_study / "lr_study.json" for folder in (finished, tmp_path)]
    assert json.loads(results[0].read_text()) == json.loads(results[1].read_text())


def test_one_process_trains_a_cell(tmp_path: Path) -> None:
    config, cell = parse_config({**settings(tmp_path, batch=1), "study": STUDY}), Cell(1, 1, 0)
    refused_while_locked(cell_stage(config, cell).folder, lambda: train_cell(config, cell))


def test_divergence_is_a_result(tmp_path: Path) -> None:
    values = settings(tmp_path, batch=1, optimizer="sgd", gradient_clip=None)
    config = parse_config({**values, "study": {"lr_study": {**STUDY["lr_study"], "spacing": 1e12}}})
    prepare_cells(config, [Cell(1, 1, 0)])
    outcome = train_cell(config, Cell(1, 1, 0))
    assert outcome is not None
    assert outcome.diverged
    assert outcome.scores == {}
    assert train_cell(config, Cell(1, 1, 0)) == outcome
    assert read_outcomes(config) == {Cell(1, 1, 0): outcome}
