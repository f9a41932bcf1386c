"""The least that a training step can be: the yardstick for the training loop and for thread settings."""

from collections.abc import Callable

import ffn.model  # noqa: F401  (before TensorFlow)

# isort: split
import keras
import tensorflow as tf

from ffn.config import Config
from ffn.model.network import build_network
from ffn.training.ranks import Ranks


def bare_step(config: Config, batch: int, ranks: Ranks | None = None) -> Callable[[], float]:
    """Forward, backward and Adam of the configured network on `batch` constant fields of view; returns the loss.

    No examples, no moves, nothing but the loss leaves TensorFlow; with several `ranks` they average their gradients.
    Traced by its first call.
    """
    network, average = config.network, (ranks or Ranks()).average
    model = build_network(network.depth, network.features, config.seed, config.training.precision)
    weights = model.trainable_variables
    optimizer = keras.optimizers.Adam(1e-4)
    optimizer.build(weights)
    shape = (batch, *network.fov, 1)
    image = tf.random.stateless_normal(shape, (1, 2))
    object_map = tf.random.stateless_normal(shape, (3, 4))
    labels = tf.random.stateless_uniform(shape, (5, 6))

    @tf.function
    def step() -> tf.Tensor:
        with tf.GradientTape() as tape:
            updated = tf.cast(model([image, object_map], training=True), tf.float32)
            loss = tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(labels, updated))
        *gradients, loss = average([*tape.gradient(loss, [weight.value for weight in weights]), loss])
        optimizer.apply(gradients, weights)
        return loss

    return lambda: float(step().numpy())
