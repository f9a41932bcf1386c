"""One synchronous update of the weights, as one TensorFlow graph."""

from dataclasses import dataclass
from typing import Any

import ffn.model  # noqa: F401  (before TensorFlow)

# isort: split
import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from ffn.config import Config
from ffn.training.ranks import Ranks


@dataclass(frozen=True)
class StepResult:
    """`updated`: float32 logits like the map that went in; `loss`: this rank's; `stop`: whether any rank asked."""

    updated: NDArray[np.float32]
    loss: float
    mean_loss: float
    stop: bool


class TrainingStep:
    """Forward, loss, backward, mean over the ranks, clip, apply; traced once for the configured batch.

    The loss is the mean sigmoid cross-entropy over all voxels of the batch between the soft labels and the updated
    map. Gradients are clipped element by element after the mean over the ranks, so that two ranks do what one rank
    with twice the batch does. The loss and the request to stop travel in the same message as the gradients.
    """

    def __init__(self, config: Config, model: keras.Model, optimizer: keras.optimizers.Optimizer, ranks: Ranks) -> None:
        batch = tf.TensorSpec((config.training.batch, *config.network.fov, 1), tf.float32)
        scalar = tf.TensorSpec((), tf.float32)
        weights = model.trainable_variables
        limit = config.training.gradient_clip

        def step(image: tf.Tensor, object_map: tf.Tensor, labels: tf.Tensor, rate: tf.Tensor, stop: tf.Tensor) -> Any:
            with tf.GradientTape() as tape:
                updated = model([image, object_map], training=True)
                loss = tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(labels, updated))
            gradients = tape.gradient(loss, [weight.value for weight in weights])
            *gradients, mean_loss, any_stop = ranks.average([*gradients, loss, stop])
            if limit is not None:
                gradients = [tf.clip_by_value(gradient, -limit, limit) for gradient in gradients]
            optimizer.learning_rate.assign(rate)
            optimizer.apply(gradients, weights)
            return updated, loss, mean_loss, any_stop

        self._step = tf.function(step, input_signature=[batch, batch, batch, scalar, scalar])

    def __call__(
        self,
        image: NDArray[np.float32],
        object_map: NDArray[np.float32],
        labels: NDArray[np.float32],
        rate: float,
        stop: bool,
    ) -> StepResult:
        """Run one update; the arrays are float32 [batch, z, y, x, 1]."""
        updated, loss, mean_loss, any_stop = self._step(image, object_map, labels, rate, float(stop))
        return StepResult(updated.numpy(), float(loss), float(mean_loss), float(any_stop) > 0)
