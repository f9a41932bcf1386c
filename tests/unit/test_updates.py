"""One update of the weights: how its gradients are gathered, limited, averaged and applied."""

import math
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from tiny_training import settings

from ffn.config import Config, Training, parse_config
from ffn.errors import ConfigError
from ffn.model.network import build_network
from ffn.training.lars import TRUST, Lars
from ffn.training.optimizer import Updater, learning_rate, rate_factor
from ffn.training.ranks import Ranks
from ffn.training.step import Batch, TrainingStep

FOV = (9, 9, 9)


def config_of(folder: Path, **training: Any) -> Config:
    return parse_config(settings(folder, **training))


def batch_of(fovs: int, seed: int = 0) -> Batch:
    random = np.random.default_rng(seed)
    image, object_map = random.normal(size=(2, fovs, *FOV, 1)).astype(np.float32)
    return Batch(image, object_map, random.choice([0.05, 0.95], image.shape).astype(np.float32))


def part_of(batch: Batch, *places: int) -> Batch:
    chosen = list(places)
    return Batch(batch.image[chosen], batch.object_map[chosen], batch.labels[chosen])


def stepper(config: Config, fovs: int) -> tuple[keras.Model, Updater, TrainingStep]:
    model = build_network(2, 4, seed=3, precision=config.training.precision)
    updater = Updater(config.training, model)
    return model, updater, TrainingStep(config, model, updater, Ranks(), fovs)


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw", "lars", "lamb"])
def test_an_update_in_uneven_parts_equals_one_from_the_whole_batch(tmp_path: Path, optimizer: str) -> None:
    config = config_of(tmp_path, optimizer=optimizer)
    batch = batch_of(3)
    whole, _, at_once = stepper(config, 3)
    parted, _, in_parts = stepper(config, 3)
    for _ in range(3):
        updated, result = at_once.update(batch, 0.01, False)
        first, second = in_parts.add(part_of(batch, 0, 1)), in_parts.add(part_of(batch, 2))
        summed = in_parts.finish(0.01, False)
        np.testing.assert_allclose(np.concatenate([first, second]), updated, atol=2e-5)
        assert summed.loss == pytest.approx(result.loss, rel=1e-5)
    for a, b in zip(parted.get_weights(), whole.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_voxels_without_a_label_teach_nothing_but_count_in_the_mean(tmp_path: Path) -> None:
    config = config_of(tmp_path, optimizer="sgd", gradient_clip=None)
    batch = batch_of(1)
    hidden = np.zeros(batch.labels.shape, bool)
    hidden[:, :, :, 5:] = True
    unlabelled = Batch(batch.image, batch.object_map, np.where(hidden, np.float32(-1), batch.labels))
    model, _, step = stepper(config, 1)
    before = [tf.identity(weight.value) for weight in model.trainable_variables]
    with tf.GradientTape() as tape:
        entropy = tf.nn.sigmoid_cross_entropy_with_logits(batch.labels, model([batch.image, batch.object_map]))
        loss = tf.reduce_sum(entropy * ~hidden) / math.prod(FOV)
    gradients = tape.gradient(loss, [weight.value for weight in model.trainable_variables])
    _, result = step.update(unlabelled, 0.5, False)
    assert result.loss == pytest.approx(float(loss), rel=1e-5)
    for after, start, gradient in zip(model.get_weights(), before, gradients, strict=True):
        np.testing.assert_allclose(after, start - 0.5 * gradient, atol=1e-6)


def test_clipping_by_norm_scales_all_gradients_alike(tmp_path: Path) -> None:
    plain, limited = (
        config_of(tmp_path, optimizer="sgd", gradient_clip=None, gradient_clip_norm=norm) for norm in (None, 1e-3)
    )
    moves = []
    for config in (plain, limited):
        model, _, step = stepper(config, 2)
        before = np.concatenate([weight.ravel() for weight in model.get_weights()])
        step.update(batch_of(2), 1.0, False)
        moves.append(np.concatenate([weight.ravel() for weight in model.get_weights()]) - before)
    assert np.linalg.norm(moves[0]) > 1e-2
    assert np.linalg.norm(moves[1]) == pytest.approx(1e-3, rel=1e-2)
    np.testing.assert_allclose(moves[1] / np.linalg.norm(moves[1]), moves[0] / np.linalg.norm(moves[0]), atol=1e-3)


@pytest.mark.parametrize("parts", [False, True])
@pytest.mark.parametrize("policy", ["stop", "skip"])
def test_what_is_no_number_is_reported_and_with_skip_not_learned(tmp_path: Path, policy: str, parts: bool) -> None:
    config = config_of(tmp_path, on_nonfinite=policy)
    model, updater, step = stepper(config, 1)
    good = batch_of(1)
    bad = Batch(np.full_like(good.image, np.nan), good.object_map, good.labels)

    def update(batch: Batch) -> bool:
        if not parts:
            return step.update(batch, 0.01, False)[1].applied
        step.add(batch)
        return step.finish(0.01, False).applied

    assert update(good)
    before = model.get_weights()
    assert not update(bad)
    if policy == "skip":
        assert updater.updates == 1
        for a, b in zip(model.get_weights(), before, strict=True):
            np.testing.assert_array_equal(a, b)
        assert update(good)
        assert updater.updates == 2
        assert all(np.isfinite(weight).all() for weight in model.get_weights())


def test_the_average_of_the_weights_follows_its_definition_and_leaves_them_alone(tmp_path: Path) -> None:
    model, updater, step = stepper(config_of(tmp_path, ema=0.75), 1)
    averages = None
    for number in range(4):
        step.update(batch_of(1, number), 0.02, False)
        current = model.get_weights()
        averages = (
            current if averages is None else [0.75 * a + 0.25 * w for a, w in zip(averages, current, strict=True)]
        )
        for kept, expected in zip(updater.kept_weights(), averages, strict=True):
            np.testing.assert_allclose(kept, expected, atol=1e-6)
        for a, b in zip(model.get_weights(), current, strict=True):
            np.testing.assert_array_equal(a, b)


def test_before_the_first_update_the_average_is_the_weights_themselves(tmp_path: Path) -> None:
    model, updater, _ = stepper(config_of(tmp_path, ema=0.75), 1)
    for kept, weight in zip(updater.kept_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(kept, weight)


def test_adasum_is_refused_for_virtual_workers(tmp_path: Path) -> None:
    values = {**settings(tmp_path, virtual_workers=2), "allreduce": {"operation": "adasum"}}
    with pytest.raises(ConfigError, match=r"combines the gradients of ranks, but those of 2"):
        parse_config(values)


def test_lars_moves_each_kernel_by_its_own_rate_and_biases_by_the_plain_one() -> None:
    kernel = keras.Variable(np.array([[3.0, 4.0]], np.float32))
    bias, zeros = keras.Variable(np.array([1.0], np.float32)), keras.Variable(np.zeros((1, 2), np.float32))
    lars = Lars(0.5, trust_decay=0.1)
    lars.build([kernel, bias, zeros])
    gradients = [np.array([[0.0, 2.0]], np.float32), np.array([0.25], np.float32), np.array([[1.0, 0.0]], np.float32)]
    lars.apply([tf.constant(gradient) for gradient in gradients])
    pull = gradients[0] + 0.1 * np.array([[3.0, 4.0]])
    moved = 0.5 * TRUST * 5.0 / (2.0 + 0.1 * 5.0) * pull
    np.testing.assert_allclose(kernel.numpy(), np.array([[3.0, 4.0]]) - moved, rtol=1e-6)
    np.testing.assert_allclose(bias.numpy(), [1.0 - 0.5 * 0.25])
    np.testing.assert_allclose(zeros.numpy(), [[-0.5, 0.0]])
    lars.apply([tf.zeros_like(gradient) for gradient in gradients])
    np.testing.assert_allclose(bias.numpy(), [1.0 - 0.125 - 0.9 * 0.125], rtol=1e-6)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_mixed_precision_computes_like_float32_but_coarser_on_float32_weights(tmp_path: Path, precision: str) -> None:
    exact, _, exactly = stepper(config_of(tmp_path), 2)
    mixed, updater, step = stepper(config_of(tmp_path, precision=precision), 2)
    assert {str(weight.dtype) for weight in mixed.trainable_variables} == {"float32"}
    assert mixed.get_layer("conv1_a").compute_dtype == precision
    expected, _ = exactly.update(batch_of(2), 1e-3, False)
    updated, result = step.update(batch_of(2), 1e-3, False)
    assert updated.dtype == np.float32
    assert result.applied
    assert updater.scales_loss == (precision == "float16")
    assert 0 < np.abs(updated - expected).max() < 0.05
    for a, b in zip(mixed.get_weights(), exact.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=2.1e-3)  # Adam's first step is +-rate: signs of tiny gradients may differ


def test_an_overflow_of_scaled_gradients_leaves_the_update_out_and_lowers_the_scale(tmp_path: Path) -> None:
    model, updater, step = stepper(config_of(tmp_path, precision="float16", gradient_clip=None), 1)
    before, scale = model.get_weights(), float(updater.optimizer.dynamic_scale.numpy())
    updater.optimizer.dynamic_scale.assign(1e30)
    _, result = step.update(batch_of(1), 1e-3, False)
    assert result.applied
    for a, b in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)
    assert float(updater.optimizer.dynamic_scale.numpy()) == pytest.approx(0.5e30)
    assert scale == 2.0**15


@pytest.mark.parametrize(
    ("scaling", "workers", "factor"),
    [("none", 64, 1), ("linear", 64, 64), ("sqrt", 64, 8), ("auto", 4, 4), ("auto", 16, 16), ("auto", 64, 32)],
)
def test_the_rate_grows_with_the_workers(scaling: str, workers: int, factor: float) -> None:
    assert rate_factor(Training(rate_scaling=scaling), workers) == pytest.approx(factor)


def test_the_rate_grows_by_a_given_exponent() -> None:
    assert rate_factor(Training(rate_scaling="exponent", rate_exponent=0.25), 16) == pytest.approx(2)


def test_exponential_and_cyclic_schedules_begin_after_the_ramp() -> None:
    common = {"steps": 100, "learning_rate": 0.4, "warmup_steps": 4, "decay_steps": 10, "decay_factor": 0.25}
    falling = [learning_rate(Training(schedule="exponential", **common), 1, step) for step in range(100)]
    np.testing.assert_allclose([falling[4], falling[9], falling[14], falling[24]], [0.4, 0.2, 0.1, 0.025])
    cyclic = [learning_rate(Training(schedule="cyclic", **common), 1, step) for step in range(100)]
    np.testing.assert_allclose([cyclic[4], cyclic[9], cyclic[14], cyclic[19], cyclic[24]], [0.4, 0.25, 0.1, 0.25, 0.4])
    for rates in (falling, cyclic):
        np.testing.assert_allclose(rates[:4], [0.08, 0.16, 0.24, 0.32])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"rate_scaling": "exponent"}, "rate_exponent"),
        ({"rate_exponent": 0.5}, "rate_exponent"),
        ({"optimizer": "adam", "weight_decay": 0.1}, "weight_decay has no effect"),
        ({"gradient_clip": 0.7, "gradient_clip_norm": 1.0}, "exclude each other"),
        ({"steps": 10, "warmup_steps": 10}, "warmup_steps 10 must be fewer"),
        ({"learning_rate": 0}, "learning_rate"),
        ({"learning_rate": math.inf}, "learning_rate"),
    ],
)
def test_settings_that_cannot_work_are_refused(tmp_path: Path, given: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        config_of(tmp_path, **given)
