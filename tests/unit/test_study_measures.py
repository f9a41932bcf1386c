"""Measurements of the scaling study by real ranks: throughput over ranks, and the calibration of the cost model."""

import json
import sys
from pathlib import Path

import forks
import pytest
import yaml
from tiny_training import horovodrun, needs_horovod, run, settings

from ffn.config import Config, parse_config
from ffn.prepare.run import prepare_training
from ffn.scaling.calibration import read_calibration
from ffn.scaling.efficiency import step_seconds
from ffn.scaling.paths import StudyPaths
from ffn.scaling.probe import join_ranks

pytestmark = [pytest.mark.slow, needs_horovod]
STUDY = {
    "scaling": {"ranks": [1, 2], "steps": 4, "warmup_steps": 1, "repeats": 1},
    "lr_study": {"workers": [1, 3], "log_every": 5},
    "cost": {"ranks": [1, 2], "rounds": 2, "steps": 3, "message_kb": [4, 64], "workers": [1, 2, 1024]},
}


@pytest.fixture(scope="module")
def config_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("measures")
    path = folder / "config.yaml"
    values = {**settings(folder, batch=1), "study": STUDY, "allreduce": {"compression": "fp16", "cycle_ms": 2}}
    path.write_text(yaml.safe_dump(values))
    prepare_training(configured(path))
    return path


def configured(config_file: Path) -> Config:
    return parse_config(yaml.safe_load(config_file.read_text()))


def study(config_file: Path, *part: str, ranks: int = 1) -> str:
    """What `ffn study` says."""
    words = ["study", *part, "--config", str(config_file)]
    done = forks.ffn(*words) if ranks == 1 else run(horovodrun([sys.executable, "-m", "ffn", *words], ranks))
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_cost_model_is_calibrated_by_ranks(config_file: Path) -> None:
    said = study(config_file, "cost")
    assert "measuring 1 rank(s)" in said
    assert "measuring 2 rank(s)" in said
    config = configured(config_file)
    folder = StudyPaths.of(config).cost
    found = read_calibration(folder / "ranks-0002", 2)
    assert found.alone.shape == found.work.shape == (2, 2, 3)
    assert (found.work > 0).all()
    assert found.gradients.shape == (2, 10)
    assert sorted(found.allreduce) == [4000, 64000]
    facts = json.loads((folder / "cost.json").read_text())
    assert [row["ranks"] for row in facts["calibration"]] == [1, 2]
    assert all(row["measured_fovs_per_s"] > 0 and row["predicted_fovs_per_s"] > 0 for row in facts["calibration"])
    assert step_seconds(config, 3, None)[1] == "cost model"  # of the learning-rate study, not of study.cost.workers
    assert "| 1024 |" in (folder / "cost.md").read_text()
    assert "measuring" not in study(config_file, "cost")


def test_what_is_measured_sends_its_messages_as_training_does(config_file: Path) -> None:
    config = configured(config_file)
    assert join_ranks(config, 1).allreduce == config.allreduce


def test_throughput_of_the_ranks_that_were_started(config_file: Path) -> None:
    for ranks in (1, 2):
        study(config_file, "rate", "--ranks", str(ranks), ranks=ranks)
    study(config_file, "scaling")
    rows = json.loads((StudyPaths.of(configured(config_file)).strong / "scaling.json").read_text())["rows"]
    assert [row["ranks"] for row in rows] == [1, 2]
    assert all(row["fovs_per_s"] > 0 for row in rows)
    refused = forks.ffn("study", "rate", "--ranks", "2", "--config", config_file)
    assert refused.returncode != 0
    assert "--ranks 2, but nothing in the environment says which of them this process is" in refused.stderr
    assert "Traceback" not in refused.stderr
