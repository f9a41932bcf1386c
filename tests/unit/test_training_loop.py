import csv
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tensorflow as tf
from tiny_training import run, settings, train_command, try_training, write_config

from ffn.config import Training, parse_config
from ffn.errors import ConfigError, DataError, StageError
from ffn.model.checkpoint import read_tensors
from ffn.model.network import build_network
from ffn.prepare.run import prepare_training
from ffn.training.curves import CURVES, TIMING, Curves, read_rows
from ffn.training.examples import Example, ExampleSource, LaneStream
from ffn.training.lanes import Lanes
from ffn.training.loop import TrainingLoop
from ffn.training.metrics import Measures, Tally
from ffn.training.optimizer import Updater, learning_rate
from ffn.training.ranks import Ranks
from ffn.training.run import train as train_run
from ffn.training.state import TrainingState
from ffn.training.step import Batch, TrainingStep


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("loop")
    prepare_training(parse_config(settings(folder)))
    return folder


def test_the_loss_falls_and_f1_rises(folder: Path) -> None:
    values = settings(folder, steps=320, batch=4, log_every=20, checkpoint_every=1000, schedule="cosine")
    values["network"].update(depth=3, features=8, pad_value=0.5, move_threshold=0.6)
    with ThreadPoolExecutor(1) as reader:
        TrainingLoop(parse_config(values), folder / "learns", Ranks(), reader).run()
    rows = read_rows(folder / "learns/curves.csv")
    late = {name: np.mean([float(row[name]) for row in rows[-5:]]) for name in ("loss", "f1")}
    assert late["loss"] < 0.8 * float(rows[0]["loss"])
    assert late["f1"] > max(0.5, float(rows[0]["f1"]) + 0.2)


def test_command_writes_all_files_and_prints_f1_and_rate(folder: Path) -> None:
    config = write_config(folder, steps=8, log_every=3)
    done = run(train_command(config, "--output", str(folder / "command")))
    assert done.returncode == 0, done.stderr
    assert "final F1" in done.stdout
    assert "FOVs/s" in done.stdout
    assert "train: 16/16 FOV" in done.stderr
    output = folder / "command"
    assert {path.name for path in output.iterdir()} == {
        "checkpoints", "curves.csv", "done.json", "model.ckpt.data-00000-of-00001", "model.ckpt.index", "model.json",
        "started.json", "tensorboard", "timing.csv",
    }  # fmt: skip
    with (output / "curves.csv").open() as file:
        rows = list(csv.reader(file))
    assert tuple(rows[0]) == CURVES
    assert [row[:2] for row in rows[1:]] == [["3", "6"], ["6", "12"], ["8", "16"]]
    assert tuple((output / "timing.csv").read_text().splitlines()[0].split(",")) == TIMING
    events = [
        event
        for file in (output / "tensorboard").iterdir()
        for event in tf.compat.v1.train.summary_iterator(str(file))
        if event.summary.value
    ]
    shown = {
        (event.step, value.tag): tf.make_ndarray(value.tensor) for event in events for value in event.summary.value
    }
    for row in rows[1:]:
        for name, value in zip(CURVES[1:], row[1:], strict=True):
            np.testing.assert_allclose(shown[int(row[0]), name], float(value), rtol=1e-5)


def test_one_step_is_clipped_gradient_descent_on_the_mean_cross_entropy(folder: Path) -> None:
    config = parse_config(settings(folder, optimizer="sgd", learning_rate=0.3, gradient_clip=0.01))
    model, reference = (build_network(2, 4, seed=9) for _ in range(2))
    step = TrainingStep(config, model, Updater(config.training, model), Ranks(), fovs=2)
    random = np.random.default_rng(0)
    image, object_map = random.normal(size=(2, 2, 9, 9, 9, 1)).astype(np.float32)
    labels = random.choice([0.05, 0.95], image.shape).astype(np.float32)
    mine, outcome = step.update(Batch(image, object_map, labels), 0.3, stop=False)
    with tf.GradientTape() as tape:
        updated = reference([image, object_map])
        p = tf.sigmoid(updated)
        loss = -tf.reduce_mean(labels * tf.math.log(p) + (1 - labels) * tf.math.log(1 - p))
    variables = [weight.value for weight in reference.trainable_variables]
    gradients = tape.gradient(loss, variables)
    np.testing.assert_allclose(mine, updated, atol=1e-5)
    assert outcome.loss == outcome.mean_loss == pytest.approx(float(loss), rel=1e-5)
    clipped = 0
    for mine, before, gradient in zip(model.get_weights(), variables, gradients, strict=True):
        limited = np.clip(gradient.numpy(), -0.01, 0.01)
        clipped += np.count_nonzero(limited != gradient.numpy())
        np.testing.assert_allclose(mine, before.numpy() - 0.3 * limited, atol=1e-6)
    assert clipped > 0


def test_the_step_is_traced_once(folder: Path) -> None:
    config = parse_config(settings(folder))
    model = build_network(2, 4)
    step = TrainingStep(config, model, Updater(config.training, model), Ranks(), fovs=2)
    batch = np.zeros((2, 9, 9, 9, 1), np.float32)
    for number in range(4):
        assert step.update(Batch(batch, batch, batch), 0.1 * number, stop=number == 3)[1].stop == (number == 3)
    assert step._whole.experimental_get_tracing_count() == 1


def test_divergence_names_step_and_rank_and_leaves_no_model(folder: Path) -> None:
    config = write_config(folder, steps=20, optimizer="sgd", learning_rate=1e30, gradient_clip=None)
    stopped = try_training(config, "--output", str(folder / "diverged"))
    assert stopped.returncode == 2
    assert "The loss is" in stopped.stderr
    assert "on rank 0" in stopped.stderr
    assert "at step" in stopped.stderr
    assert "Traceback" not in stopped.stderr
    assert not (folder / "diverged/model.ckpt.index").exists()


class BadExamples(ExampleSource):
    """Every seventh example holds no numbers."""

    def load(self, lane: LaneStream, index: int) -> Example:
        example = super().load(lane, index)
        broken = np.full_like(example.image, np.nan)
        return replace(example, image=broken) if lane.number(example.index) % 7 == 3 else example


@pytest.mark.parametrize("parts", [{}, {"microbatch": 1, "accumulate": 2}])
def test_examples_without_numbers_are_left_out_and_counted(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], parts: dict[str, int]
) -> None:
    monkeypatch.setattr("ffn.training.loop.ExampleSource", BadExamples)
    config = parse_config(settings(folder, steps=60, on_nonfinite="skip", log_every=60, **parts))
    output = folder / f"skips{len(parts)}"
    with ThreadPoolExecutor(1) as reader:
        TrainingLoop(config, output, Ranks(), reader).run()
    (row,) = read_rows(output / "curves.csv")
    assert 0 < int(row["skipped"]) < 30
    assert capsys.readouterr().err.count("update left out") == int(row["skipped"])
    assert math.isfinite(float(row["loss"]))
    assert all(np.isfinite(array).all() for array in read_tensors(output / "model.ckpt").values())


def test_too_many_left_out_updates_end_training(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ffn.training.loop.ExampleSource", BadExamples)
    config = parse_config(settings(folder, steps=60, on_nonfinite="skip", max_skipped=2))
    with (
        ThreadPoolExecutor(1) as reader,
        pytest.raises(DataError, match=r"More than training\.max_skipped 2 .* at step \d+ on rank 0"),
    ):
        TrainingLoop(config, folder / "ends", Ranks(), reader).run()


def test_a_request_to_stop_in_the_last_step_changes_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    advance = TrainingLoop.advance

    def asked(loop: TrainingLoop, *arguments: Any) -> Any:
        return advance(loop, arguments[0], loop._state.step == 3, arguments[2])

    monkeypatch.setattr(TrainingLoop, "advance", asked)
    config = parse_config(settings(folder, steps=4))
    with ThreadPoolExecutor(1) as reader:
        result = TrainingLoop(config, folder / "late", Ranks(), reader).run()
    assert result.steps == 4
    assert math.isfinite(result.loss)
    assert (folder / "late/model.json").exists()


def test_updates_left_out_are_counted_over_restarts(folder: Path) -> None:
    config = parse_config(settings(folder, on_nonfinite="skip"))

    def state(reader: ThreadPoolExecutor) -> TrainingState:
        lanes, model = Lanes.of(config, ExampleSource(config), 0, 1, reader), build_network(2, 4)
        return TrainingState(config, folder / "counted", Ranks(), model, Updater(config.training, model), lanes)

    with ThreadPoolExecutor(1) as reader:
        before, after = state(reader), state(reader)
        before.step, before.skipped = 9, 2
        before.save(keep=3)
        assert after.restore() == 9
    assert after.skipped == 2


def test_diverged_weights_are_not_saved(folder: Path) -> None:
    config = parse_config(settings(folder))
    with ThreadPoolExecutor(1) as reader:
        lanes = Lanes.of(config, ExampleSource(config), 0, 1, reader)
    model = build_network(2, 4)
    state = TrainingState(config, folder / "bad", Ranks(), model, Updater(config.training, model), lanes)
    state.save(keep=3)
    state.step = 1
    model.get_layer("conv_lom").bias.assign([math.nan])
    with pytest.raises(DataError, match="not finite after step 1"):
        state.save(keep=3)
    assert state.restore() == 0
    assert [path.name for path in (folder / "bad").iterdir()] == ["step-00000000"]


def test_rate_warms_up_linearly_and_falls_as_a_cosine() -> None:
    training = Training(steps=110, learning_rate=0.2, warmup_steps=9, schedule="cosine")
    rates = [learning_rate(training, 1, step) for step in range(110)]
    np.testing.assert_allclose(rates[:10], [0.02 * (step + 1) for step in range(10)])
    assert rates[9 + 50] == pytest.approx(0.2 * 0.5 * (1 + math.cos(math.pi * 50 / 101)))
    assert np.all(np.diff(rates[9:]) < 0)
    assert rates[-1] < 1e-4
    constant = Training(steps=110, learning_rate=0.2)
    assert {learning_rate(constant, 1, step) for step in range(110)} == {0.2}


@pytest.mark.parametrize(("scaling", "rate"), [("none", 0.1), ("linear", 1.6), ("sqrt", 0.4)])
def test_rate_scales_with_the_ranks(scaling: str, rate: float) -> None:
    training = Training(steps=10, learning_rate=0.1, rate_scaling=scaling)
    assert learning_rate(training, 16, 0) == pytest.approx(rate)


@pytest.mark.parametrize("name", ["sgd", "momentum", "adam"])
def test_optimizers_have_the_reference_constants(name: str) -> None:
    model = build_network(2, 4)
    config = Updater(Training(optimizer=name, learning_rate=0.01), model).optimizer.get_config()
    expected = {
        "sgd": {"momentum": 0.0},
        "momentum": {"momentum": 0.9, "nesterov": False},
        "adam": {"beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-8},
    }[name]
    assert {key: config[key] for key in expected} == expected


def test_curves_are_cut_at_the_checkpoint_and_half_rows_dropped(tmp_path: Path) -> None:
    curves, tally = Curves(tmp_path, 0), Tally()
    tally.count_loss(0.5)
    for step in (10, 20, 30):
        curves.add(step, step * 2, Measures.of(tally), 1e-3)
        curves.add_timing(step, 2.0, 20, 1.8)
    curves.close()
    with (tmp_path / "curves.csv").open("a") as file:
        file.write("40,80,0.")
    whole = (tmp_path / "curves.csv").read_text().splitlines()
    curves = Curves(tmp_path, 20)
    assert (tmp_path / "curves.csv").read_text().splitlines() == whole[:3]
    assert curves.seconds == 4.0
    curves.add(30, 60, Measures.of(tally), 1e-3)
    curves.close()
    assert (tmp_path / "curves.csv").read_text().splitlines() == whole[:4]


def test_a_seed_that_is_too_weak_to_move_is_refused(folder: Path) -> None:
    values = settings(folder)
    values["network"].update(init_activation=0.8, move_threshold=0.9)
    with pytest.raises(ConfigError, match="init_activation"):
        train_run(parse_config(values))


def test_files_of_unknown_origin_are_not_overwritten(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ffn.training.run.use_devices", lambda config, ranks: None)
    config = parse_config(settings(folder))
    output = folder / "foreign"
    output.mkdir()
    (output / "curves.csv").write_text("mine")
    with pytest.raises(StageError, match=r"curves\.csv"):
        train_run(config, output)
    assert [path.name for path in output.iterdir()] == ["curves.csv"]
    assert (output / "curves.csv").read_text() == "mine"


def test_nothing_to_train_on_is_refused(folder: Path) -> None:
    values = settings(folder)
    values["data"].pop("train")
    values["inference"] = {"checkpoint": "some/model.ckpt"}
    with pytest.raises(ConfigError, match=r"data\.train is empty"):
        train_run(parse_config(values))


def test_labels_without_an_object_are_refused(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    with h5py.File(tmp_path / "volume.h5", "r+") as file:
        file["labels"][...] = 0
    refused = try_training(config)
    assert refused.returncode == 2
    assert "Traceback" not in refused.stderr
    assert not (tmp_path / "results/tiny/train").exists()
