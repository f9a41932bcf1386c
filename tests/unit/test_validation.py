"""Judging on held-out examples, and keeping the weights that were best there."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tiny_training import settings, write_volume

from ffn.config import Config, parse_config
from ffn.errors import ConfigError
from ffn.model.checkpoint import load_weights, read_tensors
from ffn.model.logits import logit
from ffn.model.network import build_network
from ffn.prepare.run import prepare_training
from ffn.runs import checkpoint_prefix
from ffn.training.best import Best
from ffn.training.curves import VALIDATION, Curves, read_rows
from ffn.training.examples import ExampleSource, LaneStream
from ffn.training.loop import TrainingLoop
from ffn.training.metrics import PREDICTED_LOGIT, Measures, Tally
from ffn.training.moves import fixed_offsets
from ffn.training.ranks import Ranks
from ffn.training.validation import Validation


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("validation")
    prepare_training(config_of(folder))
    return folder


def config_of(folder: Path, weights: str = "final", seed: int = 5, **training: Any) -> Config:
    held_out = folder / "held_out.h5"
    if not held_out.exists():
        write_volume(held_out)
    values = settings(folder, **{"validation_examples": 7, "microbatch": 3, **training})
    values["data"]["validation"] = {"image": f"{held_out}:image", "labels": f"{held_out}:labels"}
    return parse_config({**values, "seed": seed, "inference": {"weights": weights}})


def network(seed: int = 1) -> Any:
    return build_network(2, 4, seed)


def examples_of(config: Config, count: int) -> list[Any]:
    source, found = ExampleSource.for_validation(config), []
    for _ in range(count):
        found.append(source.load(LaneStream(0, 1), found[-1].index + 1 if found else 0))
    return found


def one_by_one(config: Config, model: Any) -> Tally:
    """The judgement in its plainest form: one example after the other, one field of view at a time."""
    tally, threshold = Tally(), logit(config.network.move_threshold)
    for example in examples_of(config, config.training.validation_examples):
        canvas = np.full(example.image.shape, logit(config.network.pad_value), np.float32)
        canvas[6, 6, 6] = logit(config.network.init_activation)
        for offset in fixed_offsets(config.network.deltas):
            z, y, x = (6 + o for o in offset)
            executed = canvas[z, y, x] >= threshold
            tally.count_move(bool(example.labels[z, y, x] > 0.5), bool(executed))
            if executed:
                here = np.s_[z - 4 : z + 5, y - 4 : y + 5, x - 4 : x + 5]
                batch = [array[here][None, ..., None] for array in (example.image, canvas)]
                canvas[here] = updated = model(batch).numpy()[0, ..., 0]
                labels = example.labels[here]
                entropy = np.logaddexp(0, updated) - labels * updated
                tally.count_loss(float(entropy.mean()))
        tally.count_voxels(canvas, example.labels)
    return tally


@pytest.mark.parametrize("microbatch", [1, 3, 16])
def test_measures_are_those_of_the_examples_worked_through_one_by_one(folder: Path, microbatch: int) -> None:
    config = config_of(folder, microbatch=microbatch)
    model = network()
    model.get_layer("conv_lom").bias.assign([1.5])  # so that some moves are made
    expected = Measures.of(one_by_one(config, model)).as_dict()
    validation = Validation.of(config, model, Ranks())
    assert validation is not None
    assert validation.measures().as_dict() == pytest.approx(expected, rel=1e-4)
    assert validation.measures().as_dict() == pytest.approx(expected, rel=1e-4)
    assert expected["moves_correct"] > 0


def test_ranks_share_the_examples_without_loss(folder: Path) -> None:
    config, model = config_of(folder), network()
    parts = [Validation.of(config, model, Ranks(rank=rank, size=3)) for rank in range(3)]
    indices = [sorted(example.index for example in part._examples) for part in parts if part is not None]
    assert [len(part) for part in indices] == [3, 2, 2]
    assert sorted(index for part in indices for index in part) == [example.index for example in examples_of(config, 7)]


def test_the_set_is_the_same_for_every_seed_and_untouched_by_training(folder: Path) -> None:
    one, other = examples_of(config_of(folder), 7), examples_of(config_of(folder, seed=6), 7)
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a.image, b.image)
        np.testing.assert_array_equal(a.labels, b.labels)


def test_unknown_voxels_are_judged_neither_right_nor_wrong() -> None:
    labels = np.array([[[0.95, 0.05, -1.0, -1.0]]], np.float32)
    canvas = np.array([[[9.0, 9.0, 9.0, -9.0]]], np.float32)
    tally = Tally()
    tally.count_voxels(canvas, labels)
    assert canvas[0, 0, 0] > PREDICTED_LOGIT
    counted = [tally[name] for name in ("true_positive", "false_positive", "false_negative", "true_negative")]
    assert counted == [1, 1, 0, 0]


def test_a_run_judges_itself_and_keeps_the_best_weights(folder: Path) -> None:
    config = config_of(folder, steps=12, validate_every=4, ema=0.5, learning_rate=0.02)
    output = folder / "run"
    with ThreadPoolExecutor(1) as reader:
        result = TrainingLoop(config, output, Ranks(), reader).run()
    rows = read_rows(output / "validation.csv")
    assert tuple(rows[0]) == VALIDATION
    assert [(row["step"], row["fovs"]) for row in rows] == [("4", "8"), ("8", "16"), ("12", "24")]
    assert result.held_out is not None
    assert float(rows[-1]["f1"]) == pytest.approx(result.held_out.f1, rel=1e-6)
    # What was judged last is what is kept: the average, not the weights of the last update.
    model = network()
    load_weights(model, output / "model.ckpt")
    again = Validation.of(config, model, Ranks())
    assert again is not None
    assert again.measures().loss == pytest.approx(float(rows[-1]["loss"]), rel=1e-5)
    best = json.loads((output / "best.json").read_text())
    assert best["f1"] == pytest.approx(max(float(row["f1"]) for row in rows), rel=1e-6)
    assert best["step"] == int(max(rows, key=lambda row: float(row["f1"]))["step"])


def test_tensorboard_shows_what_is_judged_also_after_a_restart(folder: Path) -> None:
    output = folder / "shown"
    with ThreadPoolExecutor(1) as reader:
        TrainingLoop(config_of(folder, steps=8, validate_every=4), output, Ranks(), reader).run()
    rows = {int(row["step"]): float(row["f1"]) for row in read_rows(output / "validation.csv")}
    assert shown(output, "validation/f1") == pytest.approx(rows)
    Curves(output, 4).close()
    assert shown(output, "validation/f1") == pytest.approx({4: rows[4]})


def shown(output: Path, tag: str) -> dict[int, float]:
    """The points that TensorBoard shows of one curve."""
    (file,) = (output / "tensorboard").iterdir()
    return {
        event.step: float(tf.make_ndarray(value.tensor))
        for event in tf.compat.v1.train.summary_iterator(str(file))
        for value in event.summary.value
        if value.tag == tag
    }


def test_only_higher_f1_replaces_the_best_weights_also_after_a_restart(tmp_path: Path) -> None:
    models = [network(seed) for seed in (1, 2, 3)]
    best = Best(tmp_path, 0)
    best.offer(models[0], 10, float("nan"))
    assert not (tmp_path / "best.json").exists()
    best.offer(models[0], 20, 0.5)
    best = Best(tmp_path, 20)
    best.offer(models[1], 30, 0.4)
    assert json.loads((tmp_path / "best.json").read_text()) == {"step": 20, "f1": 0.5}
    best.offer(models[2], 40, 0.6)
    kept = read_tensors(tmp_path / "best.ckpt")["seed_update/conv0_a/weights"]
    np.testing.assert_array_equal(kept, models[2].get_layer("conv0_a").kernel.numpy())
    Best(tmp_path, 0).offer(models[1], 10, 0.1)  # a run that begins anew knows nothing of the earlier one
    assert json.loads((tmp_path / "best.json").read_text())["step"] == 10


def test_inference_takes_the_weights_it_is_told_to(folder: Path) -> None:
    assert checkpoint_prefix(config_of(folder)).name == "model.ckpt"
    assert checkpoint_prefix(config_of(folder, weights="best")).name == "best.ckpt"
    with pytest.raises(ConfigError, match=r"data\.validation is empty"):
        parse_config({**settings(folder), "inference": {"weights": "best"}})
