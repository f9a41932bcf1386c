"""One synchronous update of the weights, as TensorFlow graphs."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import ffn.model  # noqa: F401  (before TensorFlow)

# isort: split
import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from ffn.config import Config
from ffn.training.optimizer import Updater
from ffn.training.ranks import Ranks


@dataclass(frozen=True)
class StepResult:
    """What one update reports.

    `loss` is this rank's mean, `mean_loss` that of all ranks; `applied` is False where the update was left out because
    loss or gradients are no numbers, and `finite_here` where those of this rank are not; `stop` says whether any rank
    asked to stop.
    """

    loss: float
    mean_loss: float
    applied: bool
    finite_here: bool
    stop: bool


class TrainingStep:
    """Forward, loss, backward, mean over the ranks, clip, apply.

    The loss is the sigmoid cross-entropy between the soft labels and the updated map, summed over the voxels that are
    labelled and divided by all voxels of the update: `fovs` fields of view on each rank, in parts of any size. The
    gradients are clipped after the mean over the ranks, so that two ranks do what one rank with twice the batch does.
    The loss and the request to stop travel in the same message as the gradients.

    An update from one part is one graph; one from several adds up gradients in between.
    """

    def __init__(self, config: Config, model: keras.Model, updater: Updater, ranks: Ranks, fovs: int) -> None:
        self._model, self._updater, self._ranks = model, updater, ranks
        self._weights = model.trainable_variables
        self._voxels = float(fovs * np.prod(config.network.fov))
        self._careful = config.training.on_nonfinite == "skip"
        self._loss = tf.Variable(0.0, trainable=False)
        self._sums: list[tf.Variable] = []
        self._whole = tf.function(self._update_from_batch)
        self._part = tf.function(self._add_part)
        self._end = tf.function(self._update_from_sums)

    def update(self, batch: "Batch", rate: float, stop: bool) -> tuple[NDArray[np.float32], StepResult]:
        """One update from one batch; also returns the updated map, float32 logits [batch, z, y, x, 1]."""
        with self._ranks.waiting.block(update=True):
            updated, *reported = self._whole(batch.image, batch.object_map, batch.labels, _scalar(rate), _scalar(stop))
            return updated.numpy(), _result(reported)

    def add(self, batch: "Batch") -> NDArray[np.float32]:
        """Run a part of an update; returns the updated map like `update`."""
        if not self._sums:
            self._sums = [tf.Variable(tf.zeros(weight.shape), trainable=False) for weight in self._weights]
        return np.asarray(self._part(batch.image, batch.object_map, batch.labels).numpy())

    def finish(self, rate: float, stop: bool) -> StepResult:
        """The update from all parts added since the last one."""
        with self._ranks.waiting.block(update=True):
            return _result(self._end(_scalar(rate), _scalar(stop)))

    def _gradients(self, image: tf.Tensor, object_map: tf.Tensor, labels: tf.Tensor) -> tuple[Any, Any, list[Any]]:
        with tf.GradientTape() as tape:
            updated = tf.cast(self._model([image, object_map], training=True), tf.float32)
            entropy = tf.nn.sigmoid_cross_entropy_with_logits(labels, updated)
            loss = tf.reduce_sum(tf.where(labels < 0.0, 0.0, entropy)) / self._voxels
            scaled = self._updater.optimizer.scale_loss(loss)
        return updated, loss, tape.gradient(scaled, [weight.value for weight in self._weights])

    def _update_from_batch(self, image: Any, object_map: Any, labels: Any, rate: Any, stop: Any) -> Any:
        updated, loss, gradients = self._gradients(image, object_map, labels)
        return updated, *self._apply(loss, gradients, rate, stop)

    def _add_part(self, image: Any, object_map: Any, labels: Any) -> Any:
        updated, loss, gradients = self._gradients(image, object_map, labels)
        for total, gradient in zip(self._sums, gradients, strict=True):
            total.assign_add(gradient)
        self._loss.assign_add(loss)
        return updated

    def _update_from_sums(self, rate: Any, stop: Any) -> Any:
        loss, gradients = tf.identity(self._loss), [tf.identity(total) for total in self._sums]
        reported = self._apply(loss, gradients, rate, stop)
        with tf.control_dependencies(reported):
            for total in (self._loss, *self._sums):
                total.assign(tf.zeros(total.shape))
        return reported

    def _apply(self, loss: Any, gradients: list[Any], rate: Any, stop: Any) -> list[Any]:
        own = gradients
        *gradients, mean_loss, any_stop = self._ranks.average([*own, loss, stop])
        optimizer = self._updater.optimizer
        optimizer.learning_rate.assign(rate)
        finite = self._finite(mean_loss, gradients)
        finite_here = finite if self._ranks.size == 1 else self._finite(loss, own)
        if self._careful:
            tf.cond(finite, lambda: _applied(optimizer, gradients, self._weights), lambda: False)
        else:
            optimizer.apply(gradients, self._weights)
        return [loss, mean_loss, finite, finite_here, any_stop]

    def _finite(self, loss: Any, gradients: list[Any]) -> Any:
        """Whether these are numbers; scaled gradients may overflow now and then without anything being wrong."""
        finite = tf.math.is_finite(loss)
        return finite if self._updater.scales_loss else finite & tf.math.is_finite(tf.linalg.global_norm(gradients))


@dataclass(frozen=True)
class Batch:
    """What goes through the network at once: float32 [batch, z, y, x, 1] each, the map in logits.

    Labels are soft, and negative where nothing is known.
    """

    image: NDArray[np.float32]
    object_map: NDArray[np.float32]
    labels: NDArray[np.float32]


def _applied(optimizer: keras.optimizers.Optimizer, gradients: list[Any], weights: list[Any]) -> bool:
    optimizer.apply(gradients, weights)
    return True


def _scalar(value: float) -> tf.Tensor:
    return tf.constant(float(value), tf.float32)


def _result(reported: Iterable[tf.Tensor]) -> StepResult:
    loss, mean_loss, finite, finite_here, any_stop = (tensor.numpy() for tensor in reported)
    return StepResult(float(loss), float(mean_loss), bool(finite), bool(finite_here), float(any_stop) > 0)
