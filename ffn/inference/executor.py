"""Evaluating the network on one field of view after another."""

import time
from pathlib import Path
from typing import Any

import ffn.model  # noqa: F401  (before TensorFlow)

# isort: split
import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from ffn.config import Network
from ffn.errors import CheckpointError
from ffn.geometry import ZYX
from ffn.model.checkpoint import load_weights
from ffn.model.network import build_network
from ffn.progress import log


class Executor:
    """A network as a function of one field of view, traced once; `seconds` adds up the time spent in it."""

    def __init__(self, model: keras.Model, fov: ZYX) -> None:
        # TensorFloat-32 (the default on recent GPUs) rounds to 10 bits: enough to change which voxels reach a level.
        tf.config.experimental.enable_tensor_float_32_execution(False)
        # TensorFlow 2.21 fails to fuse the residual additions and says so on every trace; results and speed are equal.
        tf.config.optimizer.set_experimental_options({"remapping": False})
        spec = tf.TensorSpec((1, *fov, 1), tf.float32)
        traced = tf.function(lambda image, object_map: model([image, object_map], training=False), autograph=False)
        self._function = traced.get_concrete_function(spec, spec)
        self.seconds = 0.0

    def __call__(self, image: NDArray[np.float32], object_map: NDArray[np.float32]) -> NDArray[np.float32]:
        """Updated logits for normalised grey values and current logits; all float32 [z, y, x] of the field of view.

        The result is a new array that the caller may change.
        """
        began = time.perf_counter()
        updated = self._function(_batch_of_one(image), _batch_of_one(object_map)).numpy()
        self.seconds += time.perf_counter() - began
        return updated[0, ..., 0]


def load_executor(network: Network, checkpoint: Path, threads: int = 0) -> Executor:
    """An executor with the weights of a checkpoint (ours or google/ffn's).

    Args:
        network: The configured architecture.
        checkpoint: Prefix of the checkpoint's files.
        threads: Inside one operation; 0 = TensorFlow decides. It can only be chosen once in a process.

    Raises:
        CheckpointError: if it is missing, of another architecture, or holds weights that are not numbers.
    """
    _set_threads(threads)
    model = build_network(network.depth, network.features)
    load_weights(model, checkpoint)
    if not all(np.isfinite(weights).all() for weights in model.get_weights()):
        raise CheckpointError(
            f"The checkpoint {checkpoint} holds weights that are NaN or infinite: its training diverged. "
            "Train again with a lower training.learning_rate, or use an earlier checkpoint."
        )
    return Executor(model, network.fov)


def _batch_of_one(array: NDArray[np.float32]) -> Any:
    return tf.convert_to_tensor(array[np.newaxis, ..., np.newaxis])


def _set_threads(threads: int) -> None:
    if threads in (0, tf.config.threading.get_intra_op_parallelism_threads()):
        return
    try:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
    except RuntimeError:
        log(f"TensorFlow is already running in this process: inference.intra_op_threads {threads} has no effect.")
