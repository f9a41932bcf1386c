"""Judging the network on held-out examples: always the same ones, drawn from `data.validation` by the seed.

Each rank works through its share of them, and the counts are added, so that the measures do not depend on the number
of ranks. Nothing is learned from these examples, and they are not augmented.
"""

from collections.abc import Iterator

import ffn.model  # noqa: F401  (before TensorFlow)

# isort: split
import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from ffn.config import Config
from ffn.training.examples import Example, ExampleSource, LaneStream
from ffn.training.metrics import Measures, Tally
from ffn.training.ranks import Ranks
from ffn.training.walk import Crops, Walk


class Validation:
    """The held-out examples of one rank, kept in memory: about 8 bytes a voxel of each patch."""

    def __init__(self, config: Config, model: keras.Model, ranks: Ranks, examples: list[Example]) -> None:
        self._config, self._ranks = config, ranks
        self._examples = examples
        shape = (min(config.training.microbatch, max(len(examples), 1)), *config.network.fov, 1)
        self._batch = [np.zeros(shape, np.float32) for _ in range(3)]

        def judge(image: tf.Tensor, object_map: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            updated = tf.cast(model([image, object_map], training=False), tf.float32)
            entropy = tf.nn.sigmoid_cross_entropy_with_logits(labels, updated)
            return updated, tf.reduce_mean(tf.where(labels < 0.0, 0.0, entropy), axis=[1, 2, 3, 4])

        self._judge = tf.function(judge)

    @classmethod
    def of(cls, config: Config, model: keras.Model, ranks: Ranks) -> "Validation | None":
        """This rank's share of the `training.validation_examples`; None without data.validation."""
        if config.data.validation is None:
            return None
        source, stream = ExampleSource.for_validation(config), LaneStream(0, 1)
        examples: list[Example] = []
        while len(examples) < config.training.validation_examples:
            examples.append(source.load(stream, examples[-1].index + 1 if examples else 0))
        return cls(config, model, ranks, examples[ranks.rank :: ranks.size])

    def measures(self) -> Measures:
        """Loss per field of view, voxel measures and moves over all examples of all ranks, with the present weights."""
        tally = Tally()
        waiting = iter(self._examples)
        walks: list[Walk] = []
        while turn := list(self._turn(walks, waiting, tally)):
            walks = [walk for walk, _ in turn]
            updated, losses = self._run([crops for _, crops in turn])
            for walk, logits, loss in zip(walks, updated, losses, strict=True):
                walk.update(logits)
                tally.count_loss(float(loss))
        return Measures.of(Tally(self._ranks.sum(tally.values)))

    def _turn(self, walks: list[Walk], waiting: Iterator[Example], tally: Tally) -> Iterator[tuple[Walk, Crops]]:
        """The walks that go on, with their next fields of view, and new ones in the places of those that ended."""
        size = len(self._batch[0])
        places: list[Walk | None] = [*walks, *([None] * (size - len(walks)))]
        for place in places:
            walk = place
            while walk is not None or (walk := self._next(waiting)) is not None:
                if (crops := walk.crops(tally)) is not None:
                    yield walk, crops
                    break
                walk = None

    def _next(self, waiting: Iterator[Example]) -> Walk | None:
        example = next(waiting, None)
        return None if example is None else Walk(self._config, example)

    def _run(self, turn: list[Crops]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        for element, crops in enumerate(turn):
            for array, crop in zip(self._batch, crops, strict=True):
                array[element, ..., 0] = crop
        updated, losses = self._judge(*self._batch)
        return updated.numpy()[: len(turn), ..., 0], losses.numpy()[: len(turn)]
