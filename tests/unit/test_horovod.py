"""Several training ranks, by real Horovod processes over Gloo where Horovod is installed."""

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import forks
import numpy as np
import pytest
import yaml
from forks import ROOT
from tiny_training import (
    BIN,
    environment,
    horovodrun,
    needs_horovod,
    run,
    settings,
    train,
    train_command,
    train_ranks,
    write_config,
    write_volume,
)

from ffn.config import parse_config
from ffn.errors import DataError, RankError
from ffn.model.checkpoint import read_tensors
from ffn.prepare.run import prepare_training
from ffn.training.ranks import Ranks


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("horovod")
    prepare_training(parse_config(settings(folder)))
    return folder


def weights(output: Path) -> dict[str, np.ndarray]:
    return read_tensors(output / "model.ckpt")


@needs_horovod
@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["adam", "momentum"])
def test_two_ranks_equal_one_rank_with_both_shards(folder: Path, optimizer: str) -> None:
    rate = {"adam": 5e-3, "momentum": 0.1}[optimizer]
    common = {"steps": 20, "optimizer": optimizer, "learning_rate": rate, "gradient_clip": 0.01}
    one = write_config(folder, "one.yaml", batch=2, ranks=1, **common)
    two = write_config(folder, "two.yaml", batch=1, ranks=2, **common)
    alone, together = folder / f"{optimizer}-1", folder / f"{optimizer}-2"
    train(one, "--output", str(alone))
    status, told = train_ranks(two, together)
    assert status == [0, 0], told
    expected, actual = weights(alone), weights(together)
    assert expected.keys() == actual.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(actual[name], value, rtol=0, atol=2e-6, err_msg=name)
    start = np.concatenate([w.ravel() for w in initial_weights()])
    moved = np.concatenate([expected[name].ravel() for name in expected])
    assert abs(np.linalg.norm(moved) - np.linalg.norm(start)) > 1e-3  # the twenty steps did something
    rows = [[line.split(",") for line in (o / "curves.csv").read_text().splitlines()[1:]] for o in (alone, together)]
    assert [row[:2] for row in rows[0]] == [row[:2] for row in rows[1]]
    np.testing.assert_allclose(np.array(rows[0], float), np.array(rows[1], float), rtol=1e-4, atol=1e-5)
    assert ["final F1" in text for text in told] == [True, False]


@needs_horovod
@pytest.mark.slow
@pytest.mark.parametrize(
    ("workers", "training", "augmentation"),
    [
        (2, {"accumulate": 2, "rate_scaling": "sqrt", "ema": 0.9, "warmup_steps": 3}, {}),
        (
            3,
            {"optimizer": "lamb", "gradient_clip": None, "gradient_clip_norm": 0.01, "rate_scaling": "auto"},
            {"brightness": 0.5, "missing_section": 0.3, "elastic": 0.3},
        ),
    ],
)
def test_virtual_workers_equal_real_ones(
    folder: Path, workers: int, training: dict[str, Any], augmentation: dict[str, float]
) -> None:
    """Also what they judge on held-out examples, of which each rank takes a share."""
    common = {"steps": 12, "batch": 1, "validation_examples": 7, **training}
    real = held_out(folder, f"real{workers}", augmentation, ranks=workers, **common)
    virtual = held_out(folder, f"virtual{workers}", augmentation, virtual_workers=workers, microbatch=2, **common)
    alone, together = folder / f"virtual{workers}", folder / f"real{workers}"
    train(virtual, "--output", str(alone))
    status, told = train_ranks(real, together, workers)
    assert status == [0] * workers, told
    expected = weights(together)
    for name, value in weights(alone).items():
        np.testing.assert_allclose(value, expected[name], rtol=0, atol=2e-6, err_msg=name)
    for table in ("curves.csv", "validation.csv"):
        one, several = (np.loadtxt(output / table, delimiter=",", skiprows=1) for output in (alone, together))
        np.testing.assert_allclose(one, several, rtol=1e-4, atol=1e-5, err_msg=table)
    assert several[-1][0] == 12


def held_out(folder: Path, name: str, augmentation: dict[str, float], **training: Any) -> Path:
    """A configuration that judges itself on another volume, twice, and may augment its examples."""
    volume = folder / "held_out.h5"
    if not volume.exists():
        write_volume(volume)
    values = settings(folder, validate_every=6, **training)
    values["data"]["validation"] = {"image": f"{volume}:image", "labels": f"{volume}:labels"}
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump({**values, "run": "held-out", "augmentation": augmentation}))
    return path


@pytest.mark.slow
@needs_horovod
@pytest.mark.parametrize("allreduce", [{"compression": "fp16"}, {"message": "per_weight"}])
def test_other_messages_bring_about_the_same_weights(folder: Path, allreduce: dict[str, str]) -> None:
    values = settings(folder, steps=12, batch=1, ranks=2, optimizer="momentum", learning_rate=0.1)
    (name,) = allreduce.values()
    found = []
    for sort, given in (("plain", {}), (name, allreduce)):
        path, output = folder / f"message-{sort}.yaml", folder / f"message-{name}-{sort}"
        path.write_text(yaml.safe_dump({**values, "allreduce": given}))
        status, told = train_ranks(path, output)
        assert status == [0, 0], told
        found.append(np.concatenate([value.ravel() for value in weights(output).values()]))
    difference = np.linalg.norm(found[0] - found[1]) / np.linalg.norm(found[0])
    assert difference < (5e-3 if name == "fp16" else 1e-5)
    assert (difference > 1e-7) == (name == "fp16")  # half precision really travelled


@pytest.mark.slow
@needs_horovod
def test_two_ranks_take_up_the_training_of_one(folder: Path) -> None:
    one = write_config(folder, "grown.yaml", batch=1, steps=12, checkpoint_every=4, log_every=4)
    two = write_config(folder, "grown-2.yaml", batch=1, steps=12, checkpoint_every=4, log_every=4, ranks=2)
    output = folder / "grown"
    dying, calm, words = "dying_process:main", folder / "calm-1", ("train", "--config", one, "--output")
    touches = int(forks.run(dying, "0", calm, "", *words, calm).stdout.split()[-1])
    forks.run(dying, str(touches * 2 // 3), output, "", *words, output)
    assert sorted(path.name for path in (output / "checkpoints").iterdir())[0] == "step-00000004"
    status, told = train_ranks(two, output)
    assert status == [0, 0], told
    step = int(re.search(r"The run changes after step (\d+): 1 -> 2 ranks", told[0])[1])
    assert "1 lanes go on with their examples, 1 begin with examples not seen yet" in told[0]
    rows = np.loadtxt(output / "curves.csv", delimiter=",", skiprows=1)
    assert rows[-1][:2].tolist() == [12, step + 2 * (12 - step)]


@pytest.mark.slow
@needs_horovod
def test_ranks_with_different_settings_are_told_so(folder: Path) -> None:
    for rank, features in enumerate((4, 6)):
        values = settings(folder, batch=1, ranks=2)
        values["network"]["features"] = features
        (folder / f"differ-{rank}.yaml").write_text(yaml.safe_dump(values))
    train_any = f"exec {sys.executable} -m ffn train --config {folder}/differ-$HOROVOD_RANK.yaml"
    refused = run(horovodrun(["bash", "-c", f"{train_any} --output {folder}/differ"]))
    assert refused.returncode != 0
    assert "The training ranks do not do the same (Mismatched" in refused.stderr
    assert "the network may have failed" not in refused.stderr
    assert "<stderr>:Traceback" not in refused.stderr  # horovodrun has one of its own


@pytest.mark.slow
@needs_horovod
def test_a_diverged_cell_of_real_ranks_is_a_result(folder: Path) -> None:
    values = settings(folder, batch=1, gradient_clip=None, optimizer="sgd", learning_rate=1e30)
    study = {"real": True, "lr_study": {"workers": [1, 2], "steps": 12, "log_every": 4}}
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump({**values, "run": "study", "study": study}))
    command = [sys.executable, "-m", "ffn", "study", "cell", "--config", str(path), "--cell", "w0002-p00-s0"]
    done = run(horovodrun(command))
    assert done.returncode == 0, done.stderr
    facts = json.loads((folder / "results/study/scaling/cells/w0002-p00-s0/done.json").read_text())["facts"]
    assert facts["diverged"]
    assert "Traceback" not in done.stderr


def initial_weights() -> list[np.ndarray]:
    from ffn.model.network import build_network

    return build_network(2, 4, seed=5).get_weights()


@pytest.mark.slow
@needs_horovod
def test_a_killed_rank_ends_the_run_and_the_same_command_continues(folder: Path) -> None:
    config = write_config(folder, "killed.yaml", batch=1, ranks=2, steps=12, checkpoint_every=3, log_every=4)
    calm, killed = folder / "calm", folder / "killed"
    dying = [sys.executable, str(ROOT / "tests/unit/dying_process.py")]
    arguments = ["train", "--config", str(config), "--output"]
    done = run(horovodrun([*dying, "0", str(calm), "1", *arguments, str(calm)]))
    assert done.returncode == 0, done.stderr
    touches = min(int(line.split()[-1]) for line in done.stdout.splitlines() if "run 0 " in line)
    died = run(horovodrun([*dying, str(touches // 2 + 1), str(killed), "1", *arguments, str(killed)]))
    assert died.returncode != 0
    assert not (killed / "done.json").exists()
    assert (killed / "checkpoints/step-00000003").is_dir()
    again = run(horovodrun(train_command(config, "--output", str(killed))))
    assert again.returncode == 0, again.stderr
    for name in ("model.ckpt.index", "model.ckpt.data-00000-of-00001", "curves.csv", "model.json"):
        assert (killed / name).read_bytes() == (calm / name).read_bytes(), name


@pytest.mark.slow
@needs_horovod
def test_attended_ranks_save_when_asked_to_stop(folder: Path) -> None:
    """Past horovodrun, which would give its ranks five seconds, and makes 1 of every exit code."""
    config, output = write_config(folder, "asked.yaml", batch=1, ranks=2, steps=600), folder / "asked"
    attend = [str(BIN / "ffn"), "attend", "--notes", str(folder / "notes"), "--progress", str(output / "checkpoints")]
    command = [*attend, "--", *horovodrun(train_command(config, "--output", str(output)))]
    attending = subprocess.Popen(command, env=environment(), stderr=subprocess.PIPE, text=True)
    while not (output / "checkpoints/step-00000005").exists():
        assert attending.poll() is None
        time.sleep(0.02)
    attending.send_signal(signal.SIGTERM)
    _, text = attending.communicate()
    assert attending.returncode == 75, text
    assert "stopped by SIGTERM after step" in text
    again = run(command)
    assert again.returncode == 0, again.stderr
    assert "Resuming after step" in again.stderr


@needs_horovod
@pytest.mark.slow
def test_another_number_of_ranks_does_not_change_a_finished_run(folder: Path) -> None:
    config = write_config(folder, "more.yaml", batch=1, steps=5)
    output = folder / "more"
    train(config, "--output", str(output))
    status, told = train_ranks(config, output)
    assert status == [2, 2]
    assert "training.ranks: there 1, now 2" in told[0]
    assert "Rank 1 stops because rank 0 could not go on" in told[1]
    assert json.loads((output / "done.json").read_text())["facts"]["layouts"][-1]["ranks"] == 1


@needs_horovod
def test_ranks_that_cannot_meet_are_refused(folder: Path) -> None:
    config = write_config(folder, "alone.yaml", batch=1, steps=5)
    alone = {"PMI_RANK": "0", "PMI_SIZE": "2"}
    refused = forks.ffn("train", "--config", config, "--output", folder / "alone", variables=alone)
    assert refused.returncode == 2
    assert "ffn attend --notes FOLDER" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert not (folder / "alone").exists()


def test_several_ranks_without_horovod_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "horovod", None)
    monkeypatch.setitem(sys.modules, "horovod.tensorflow", None)
    with pytest.raises(RankError, match=r"4 training processes were started.*each would train a model of its own"):
        Ranks.start(environment={"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "0"})


def test_one_rank_needs_no_horovod(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "horovod", None)
    assert Ranks.start(environment={}) == Ranks(0, 1)
    assert Ranks.start(environment={"HOROVOD_SIZE": "1", "HOROVOD_RANK": "0"}) == Ranks(0, 1)


class ThreeRanks(Ranks):
    """Rank `rank` of three whose rank 0 has failed."""

    def sum(self, values: np.ndarray) -> np.ndarray:
        return values + (0 if self.first else 2)


def test_all_ranks_stop_when_the_first_cannot_go_on() -> None:
    def fail() -> None:
        raise DataError("empty")

    with pytest.raises(DataError, match="empty"):
        ThreeRanks(0, 3).first_does(fail)
    with pytest.raises(RankError, match="Rank 2 stops because rank 0"):
        ThreeRanks(2, 3).first_does(fail)
