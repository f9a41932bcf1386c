"""Killing training at any moment and giving the same command again ends in the same files."""

import json
import random
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import forks
import pytest
import yaml
from tiny_training import environment, run, settings, train, try_training, write_config, write_volume

from ffn.config import parse_config
from ffn.prepare.run import prepare_training

BEST = ("validation.csv", "best.json", "best.ckpt.index", "best.ckpt.data-00000-of-00001")
RESULTS = ("model.ckpt.index", "model.ckpt.data-00000-of-00001", "model.json", "curves.csv")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("resume")
    prepare_training(parse_config(settings(folder)))
    return folder


@pytest.fixture(scope="module")
def config(folder: Path) -> Path:
    return write_config(folder, steps=23, log_every=4, checkpoint_every=5, keep_checkpoints=2)


@pytest.fixture(scope="module")
def undisturbed(folder: Path, config: Path) -> tuple[dict[str, bytes], int]:
    """The files of an undisturbed run, and how often it touched files."""
    [(status, touches)] = runs(folder / "undisturbed", config, [0])
    assert status == 0
    return contents(folder / "undisturbed"), touches


def contents(output: Path) -> dict[str, bytes]:
    return {name: (output / name).read_bytes() for name in RESULTS}


def runs(output: Path, config: Path, moments: list[int]) -> list[tuple[int, int]]:
    """Status and touched files of one run after the other, each killed at its moment; 0 = not."""
    text = ",".join(str(moment) for moment in moments)
    done = forks.run("dying_process:main", text, output, "", "train", "--config", config, "--output", output)
    lines = [line.split() for line in done.stdout.splitlines() if line.startswith("run ")]
    assert len(lines) == len(moments), done.stderr
    assert all(int(status) in (0, -signal.SIGKILL) for _, status, _ in lines), done.stderr
    return [(int(status), int(touches)) for _, status, touches in lines]


def kill_until_done(output: Path, config: Path, moments: list[int]) -> int:
    """How often the run was killed before it could end."""
    statuses = [status for status, _ in runs(output, config, [*moments, 0])]
    assert statuses[-1] == 0
    return sum(status != 0 for status in statuses)


@pytest.mark.slow
def test_killed_at_random_moments(folder: Path, config: Path, undisturbed: tuple[dict[str, bytes], int]) -> None:
    files, touches = undisturbed
    moments = [random.randrange(touches // 4, touches * 3 // 4), random.randrange(touches // 4, touches)]
    assert kill_until_done(folder / "random", config, moments) >= 1, moments
    assert contents(folder / "random") == files, moments


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "training", "augmentation"),
    [
        (
            "lamb",
            {"optimizer": "lamb", "ema": 0.9, "accumulate": 2, "validate_every": 4, "validation_examples": 5},
            {"brightness": 0.5, "misalignment": 0.5, "elastic": 0.5},
        ),
        ("float16", {"optimizer": "momentum", "precision": "float16", "on_nonfinite": "skip"}, {}),
        ("lars", {"optimizer": "lars", "virtual_workers": 2, "microbatch": 1, "schedule": "cosine"}, {}),
        (
            "adamw",
            {"optimizer": "adamw", "gradient_clip": None, "gradient_clip_norm": 0.1, "moves": "max_pred_moves"},
            {},
        ),
    ],
)
def test_whatever_is_in_play_is_restored(
    folder: Path, name: str, training: dict[str, Any], augmentation: dict[str, float]
) -> None:
    """Slots of every optimizer, averages, the scale of losses, augmentation, queues of moves, the best weights."""
    values = settings(folder, steps=23, log_every=4, checkpoint_every=5, **training)
    if "validate_every" in training:
        other = folder / "held_out.h5"
        write_volume(other)
        values["data"]["validation"] = {"image": f"{other}:image", "labels": f"{other}:labels"}
    config = folder / f"{name}.yaml"
    config.write_text(yaml.safe_dump({**values, "run": name, "augmentation": augmentation}))
    calm, disturbed = folder / f"{name}-calm", folder / f"{name}-disturbed"
    [(status, touches)] = runs(calm, config, [0])
    assert status == 0
    assert kill_until_done(disturbed, config, [touches // 2, touches // 3]) >= 1
    names = [*RESULTS, *(n for n in BEST if "validate_every" in training)]
    for file in names:
        assert (disturbed / file).read_bytes() == (calm / file).read_bytes(), file


@pytest.mark.slow
def test_killed_at_moments_all_over_the_run(
    folder: Path, config: Path, undisturbed: tuple[dict[str, bytes], int]
) -> None:
    files, touches = undisturbed
    for number in range(12):
        moment = 1 + (touches - 1) * number // 11
        output = folder / f"moment-{moment}"
        assert kill_until_done(output, config, [moment, random.randrange(1, touches)]) >= 1, moment
        assert contents(output) == files, moment
        shutil.rmtree(output)


def test_kept_checkpoints_and_finished_run(
    folder: Path, config: Path, undisturbed: tuple[dict[str, bytes], int]
) -> None:
    output = folder / "undisturbed"
    assert sorted(path.name for path in (output / "checkpoints").iterdir()) == ["step-00000015", "step-00000020"]
    before = {path: path.stat().st_mtime_ns for path in output.rglob("*")}
    again = train(config, "--output", str(output))
    assert "already complete" in again.stdout
    assert {path: path.stat().st_mtime_ns for path in output.rglob("*")} == before
    assert json.loads((output / "model.json").read_text())["fov"] == [9, 9, 9]


def test_a_finished_folder_is_not_overwritten_by_other_settings(
    folder: Path, undisturbed: tuple[dict[str, bytes], int]
) -> None:
    output = folder / "undisturbed"
    other = write_config(folder, "other.yaml", steps=23, log_every=4, learning_rate=1e-3)
    refused = try_training(other, "--output", str(output))
    assert refused.returncode == 2
    assert "training.learning_rate: there 0.005, now 0.001" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert contents(output) == undisturbed[0]


def test_microbatch_and_checkpoint_interval_are_not_part_of_the_settings(
    folder: Path, undisturbed: tuple[dict[str, bytes], int]
) -> None:
    other = {"checkpoint_every": 9, "keep_checkpoints": 1, "microbatch": 2}
    same = write_config(folder, "same.yaml", steps=23, log_every=4, **other)
    assert "already complete" in train(same, "--output", str(folder / "undisturbed")).stdout


def test_resume_needs_something_to_resume(folder: Path, config: Path) -> None:
    refused = try_training(config, "--output", str(folder / "nothing"), "--resume")
    assert refused.returncode == 2
    assert "no checkpoint to resume from" in refused.stderr
    assert not (folder / "nothing").exists()


@pytest.mark.slow
def test_a_damaged_checkpoint_is_named(folder: Path, config: Path) -> None:
    output = folder / "damaged"
    shutil.copytree(folder / "undisturbed", output)
    (output / "done.json").unlink()
    for file in (output / "checkpoints/step-00000020").glob("rank-*.npz"):
        file.write_bytes(file.read_bytes()[:500])
    refused = try_training(config, "--output", str(output), "--resume")
    assert refused.returncode == 2
    assert "step-00000020 cannot be used" in refused.stderr
    assert "Traceback" not in refused.stderr
    shutil.rmtree(output / "checkpoints/step-00000020")
    train(config, "--output", str(output), "--resume")
    assert contents(output) == contents(folder / "undisturbed")


TERMINATED = """
import os, signal, sys
from ffn.cli import main
from ffn.training.lanes import Lanes
batches, count = Lanes.batches, [0]
def watched(self, tally):
    count[0] += 1
    if count[0] == 8:
        os.kill(os.getpid(), signal.SIGTERM)
    return batches(self, tally)
Lanes.batches = watched
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_sigterm_saves_and_asks_to_be_started_again(
    folder: Path, config: Path, undisturbed: tuple[dict[str, bytes], int]
) -> None:
    output = folder / "terminated"
    command = [sys.executable, "-c", TERMINATED, "train", "--config", str(config), "--output", str(output)]
    stopped = run(command, env=environment())
    assert stopped.returncode == 75, stopped.stderr
    assert "stopped by SIGTERM after step 9 of 23" in stopped.stderr
    assert (output / "checkpoints/step-00000009").is_dir()
    resumed = train(config, "--output", str(output), "--resume")
    assert "Resuming after step 9 of 23" in resumed.stderr
    assert contents(output) == undisturbed[0]
