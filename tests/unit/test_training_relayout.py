"""Checkpoints that another layout, optimizer or network takes up; and a folder that only one training works in."""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_training import settings, train, try_training, write_config

from ffn.config import Config, parse_config
from ffn.errors import CheckpointError, ConfigError, StageError
from ffn.locks import lock
from ffn.model.checkpoint import read_tensors
from ffn.model.network import build_network
from ffn.prepare.run import prepare_training
from ffn.stages import Stage
from ffn.training.admission import admit
from ffn.training.examples import Example, ExampleSource, LaneStream
from ffn.training.lanes import Lane, Lanes
from ffn.training.layout import Layout
from ffn.training.loop import TrainingLoop
from ffn.training.optimizer import Updater
from ffn.training.ranks import Ranks
from ffn.training.state import TrainingState


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("relayout")
    prepare_training(parse_config(settings(folder)))
    return folder


def config_of(folder: Path, **training: Any) -> Config:
    return parse_config(settings(folder, **training))


def advance(config: Config, output: Path) -> tuple[TrainingLoop, list[int]]:
    """A training of one rank to its last step, and the numbers of the examples that its lanes began."""
    begun: list[int] = []
    take = Lane._take

    def watched(lane: Any, example: Example) -> None:
        begun.append(lane._number)
        take(lane, example)

    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(1) as reader:
        patch.setattr(Lane, "_take", watched)
        loop = TrainingLoop(config, output, Ranks(), reader)
        created = len(begun)
        loop.run()
    return loop, begun[created:]


def stop_at(config: Config, output: Path, step: int) -> list[int]:
    """The beginning of a run; the numbers of the examples that its lanes work on at the checkpoint of `step`."""
    part = config.training.model_copy(update={"steps": step + 1, "checkpoint_every": step})
    advance(config.model_copy(update={"training": part}), output)
    with np.load(output / f"checkpoints/step-{step:08d}/rank-00000.npz") as saved:
        return sorted(int(saved[name]) for name in saved.files if name.endswith("/number"))


def test_the_same_lanes_go_on_exactly_on_other_ranks(folder: Path, capsys: pytest.CaptureFixture) -> None:
    """Two virtual workers of one lane each, then one worker of two lanes: the same numbers, bit for bit."""
    output = folder / "dealt"
    stop_at(config_of(folder, steps=20, virtual_workers=2, batch=1), output, 12)
    advance(config_of(folder, steps=20, virtual_workers=1, batch=2), output)
    assert "1 ranks x 2 -> 1 virtual workers x batch 1 -> 2" in capsys.readouterr().err
    advance(config_of(folder, steps=20, virtual_workers=2, batch=1), folder / "undealt")
    ours, theirs = (read_tensors(path / "model.ckpt") for path in (output, folder / "undealt"))
    for name, value in theirs.items():
        np.testing.assert_array_equal(ours[name], value, err_msg=name)
    rows = [(path / "curves.csv").read_text().splitlines()[-1] for path in (output, folder / "undealt")]
    assert rows[0] == rows[1]


@pytest.mark.parametrize(("before", "after"), [(4, 2), (2, 5)])
def test_other_lanes_go_on_with_examples_that_nobody_had(
    folder: Path, capsys: pytest.CaptureFixture, before: int, after: int
) -> None:
    output = folder / f"{before}-{after}"
    first = stop_at(config_of(folder, steps=60, batch=before), output, 30)
    loop, second = advance(config_of(folder, steps=60, batch=after), output)
    assert f"fields of view per update {before} -> {after}" in capsys.readouterr().err
    taken_up, fresh = second[: min(before, after)], second[min(before, after) :]
    assert set(taken_up) <= set(first)
    assert len(fresh) > after
    assert min(fresh) > max(first)
    assert len(set(fresh)) == len(fresh)
    assert loop.history.as_json() == [
        {"step": 0, "ranks": 1, "virtual_workers": 1, "batch": before},
        {"step": 30, "ranks": 1, "virtual_workers": 1, "batch": after},
    ]
    last = (output / "curves.csv").read_text().splitlines()[-1].split(",")
    assert last[:2] == ["60", str(30 * before + 30 * after)]


def test_a_second_change_begins_beyond_both(folder: Path) -> None:
    output = folder / "twice"
    first = stop_at(config_of(folder, steps=90, batch=3), output, 30)
    second = stop_at(config_of(folder, steps=90, batch=2), output, 60)
    _, third = advance(config_of(folder, steps=90, batch=4), output)
    assert min(third[2:]) > max(first + second)


def state(config: Config, output: Path) -> TrainingState:
    network = config.network
    model = build_network(network.depth, network.features)
    with ThreadPoolExecutor(1) as reader:
        lanes = Lanes.of(config, ExampleSource(config), 0, 1, reader)
    return TrainingState(config, output, Ranks(), model, Updater(config.training, model), lanes)


@pytest.mark.parametrize(
    ("other", "found"),
    [
        ({"optimizer": "sgd"}, "written by adam with 22 variables, and training.optimizer sgd has 2"),
        ({"ema": 0.9}, "written by adam with 22 variables, and training.optimizer adam has 32 "),
    ],
)
def test_a_checkpoint_of_another_optimizer_is_refused(folder: Path, other: dict[str, Any], found: str) -> None:
    output = folder / f"optimizer-{next(iter(other))}"
    saved = state(config_of(folder, optimizer="adam"), output)
    saved.step = 5
    saved.save(keep=3)
    with pytest.raises(CheckpointError, match=found):
        state(config_of(folder, **{"optimizer": "adam", **other}), output).restore()


def test_a_checkpoint_of_another_network_is_refused(folder: Path) -> None:
    saved = state(config_of(folder), folder / "network")
    saved.step = 5
    saved.save(keep=3)
    values = settings(folder)
    values["network"]["features"] = 5
    with pytest.raises(CheckpointError, match=r"another architecture: layer conv0_a, .*4\].* in the checkpoint"):
        state(parse_config(values), folder / "network").restore()


@pytest.mark.slow
def test_a_finished_run_stays_what_it_is(folder: Path) -> None:
    output = str(folder / "finished")
    train(write_config(folder, "two.yaml", steps=5, batch=2), "--output", output)
    same = train(write_config(folder, "virtual.yaml", steps=5, batch=1, virtual_workers=2), "--output", output)
    assert "already complete" in same.stdout
    other = try_training(write_config(folder, "three.yaml", steps=5, batch=3), "--output", output)
    assert other.returncode == 2
    assert "is complete, with results of another configuration (training.batch: there 2, now 3)" in other.stderr
    facts = json.loads((folder / "finished/done.json").read_text())["facts"]
    assert facts["layouts"] == [{"step": 0, "ranks": 1, "virtual_workers": 1, "batch": 2}]


def test_fewer_examples_than_lanes_are_refused(folder: Path) -> None:
    config = config_of(folder, virtual_workers=500, batch=64)
    with pytest.raises(ConfigError, match=r"data.train has 13824\) than the 32000 that one step takes: 1 ranks x 500"):
        _admitted(config, folder / "few", Layout.of(config.training, 1))
    assert not (folder / "few").exists()


def _admitted(config: Config, output: Path, layout: Layout) -> bool:
    with ExitStack() as held:
        return admit(config, Stage(output, {}), layout, False, held)


@pytest.mark.slow
def test_only_one_training_works_in_a_folder(folder: Path) -> None:
    config = write_config(folder, "lock.yaml", steps=5)
    output = folder / "locked"
    with lock(output / "lock"):
        refused = try_training(config, "--output", str(output))
        assert refused.returncode == 2
        assert f"Another process works in {output}: process {os.getpid()} on " in refused.stderr
        with pytest.raises(StageError, match="Wait until it ends"):
            _admitted(config_of(folder), output, Layout(1, 1, 2))
    train(config, "--output", str(output))


def test_an_example_is_the_same_in_any_dealing(folder: Path) -> None:
    source = ExampleSource(config_of(folder))
    example = source.load(LaneStream(2, 5), 7)
    again = source.load(LaneStream(0, 1), LaneStream(2, 5).number(example.index))
    np.testing.assert_array_equal(again.image, example.image)
    np.testing.assert_array_equal(again.labels, example.labels)
