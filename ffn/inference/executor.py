"""Evaluating the network on batches of fields of view, with whichever framework Keras runs on.

Keras is told by the environment variable KERAS_BACKEND: `tensorflow` (the default) or `jax`. Weights in TensorFlow's
own format need TensorFlow; where there is only JAX, give those that `ffn export-weights` wrote.
"""

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ffn.model  # noqa: F401  (before TensorFlow)

# isort: split
import keras
import numpy as np
from numpy.typing import NDArray

from ffn.config import Network
from ffn.errors import CheckpointError, ConfigError
from ffn.geometry import ZYX
from ffn.inference.canvas import Look
from ffn.inference.drive import Answers
from ffn.model.checkpoint import load_weights
from ffn.model.network import build_network
from ffn.progress import log

Forward = Callable[[NDArray[np.float32], NDArray[np.float32]], Any]
"""(images, object maps) -> updated maps, all float32 [batch, z, y, x, 1]; the result may still be being computed."""


class Executor:
    """A network as a function of batches, traced once; `seconds` adds up the time spent in it.

    Args:
        model: Of `build_network`.
        fov: z,y,x.
        batch_size: Looks that are evaluated at once, at most.
    """

    def __init__(self, model: keras.Model, fov: ZYX, batch_size: int = 1) -> None:
        self.batch_size = batch_size
        self.seconds = 0.0
        self._forward = _FORWARD[keras.backend.backend()](model, fov, batch_size)

    def start(self, looks: Sequence[Look]) -> Answers:
        """Begin to evaluate looks; see `ffn.inference.drive.BatchedNetwork`."""
        began = time.perf_counter()
        images = np.stack([look.image for look in looks])[..., np.newaxis]
        object_maps = np.stack([look.object_map for look in looks])[..., np.newaxis]
        updated = self._forward(images, object_maps)
        self.seconds += time.perf_counter() - began

        def answers() -> Sequence[NDArray[np.float32]]:
            waiting = time.perf_counter()
            maps = np.array(updated, np.float32)[: len(looks), ..., 0]
            self.seconds += time.perf_counter() - waiting
            return list(maps)

        return answers

    def __call__(self, image: NDArray[np.float32], object_map: NDArray[np.float32]) -> NDArray[np.float32]:
        """Updated logits of one field of view, a new array; all float32 [z, y, x]."""
        return self.start([Look(image, object_map)])()[0]


def load_executor(
    network: Network,
    checkpoint: Path,
    *,
    threads: int = 0,
    batch_size: int = 0,
    most: int | None = None,
    precision: str = "float32",
) -> Executor:
    """An executor with the weights of a checkpoint (ours or google/ffn's).

    Args:
        network: The configured architecture.
        checkpoint: Prefix of the checkpoint's files.
        threads: Inside one operation; 0 = TensorFlow decides. It can only be chosen once in a process.
        batch_size: Looks evaluated at once; 0 = what suits the device.
        most: Looks that there can ever be at once, where that is known: a larger batch would be computed in vain.
        precision: Of the convolutions: float32, bfloat16 or float16.

    Raises:
        CheckpointError: if it is missing, of another architecture, or holds weights that are not numbers.
        ConfigError: if Keras runs on a framework that is not supported here.
    """
    model = _built(network, threads, precision)
    load_weights(model, checkpoint)
    if not all(np.isfinite(weights).all() for weights in model.get_weights()):
        raise CheckpointError(
            f"The checkpoint {checkpoint} holds weights that are NaN or infinite: its training diverged. "
            "Train again with a lower training.learning_rate, or use an earlier checkpoint."
        )
    return _executor(model, network, batch_size, most)


def random_executor(network: Network, *, threads: int = 0, batch_size: int = 0, precision: str = "float32") -> Executor:
    """As `load_executor`, with the weights that training begins with: as fast, where nothing is trained yet."""
    return _executor(_built(network, threads, precision), network, batch_size)


def _built(network: Network, threads: int, precision: str) -> keras.Model:
    if keras.backend.backend() not in _FORWARD:
        raise ConfigError(
            f"Keras runs on {keras.backend.backend()}, but inference needs tensorflow or jax. "
            "Set the environment variable KERAS_BACKEND to one of them."
        )
    _set_threads(threads)
    if keras.backend.backend() == "tensorflow" and not _has_gpu():
        precision = _on_cpu(precision)
    return build_network(network.depth, network.features, precision=precision)


def _executor(model: keras.Model, network: Network, batch_size: int, most: int | None = None) -> Executor:
    chosen = batch_size or (_BATCH_ON_GPU if _has_gpu() else 1)
    return Executor(model, network.fov, chosen if most is None else min(chosen, most))


_BATCH_ON_GPU = 16


def _with_tensorflow(model: keras.Model, fov: ZYX, _batch_size: int) -> Forward:
    import tensorflow as tf

    # TensorFloat-32 (the default on recent GPUs) rounds to 10 bits: enough to change which voxels reach a level.
    tf.config.experimental.enable_tensor_float_32_execution(False)
    spec = tf.TensorSpec((None, *fov, 1), tf.float32)
    traced = tf.function(lambda image, object_map: model([image, object_map], training=False), autograph=False)
    function = traced.get_concrete_function(spec, spec)
    return lambda images, maps: function(tf.convert_to_tensor(images), tf.convert_to_tensor(maps))


def _with_jax(model: keras.Model, _fov: ZYX, batch_size: int) -> Forward:
    import jax

    jax.config.update("jax_default_matmul_precision", "highest")  # no TensorFloat-32, as above
    weights = [variable.value for variable in model.variables]

    @jax.jit
    def function(weights: Any, images: Any, maps: Any) -> Any:
        return model.stateless_call(weights, [], [images, maps], training=False)[0]

    def forward(images: NDArray[np.float32], maps: NDArray[np.float32]) -> Any:
        # Each new shape would be compiled again.
        missing = [(0, batch_size - len(images)), *[(0, 0)] * (images.ndim - 1)]
        return function(weights, np.pad(images, missing), np.pad(maps, missing))

    return forward


_FORWARD = {"tensorflow": _with_tensorflow, "jax": _with_jax}


def _has_gpu() -> bool:
    if keras.backend.backend() == "jax":
        import jax

        return bool(jax.default_backend() != "cpu")
    import tensorflow as tf

    return bool(tf.config.list_physical_devices("GPU"))


def _on_cpu(precision: str) -> str:
    """What to build the network with so that oneDNN computes it in that precision, which it learns at the first use.

    A network in bfloat16 is slow on CPUs. One in float32 whose convolutions may round their factors is no less
    accurate and, where the processor multiplies bfloat16 (AMX), nearly twice as fast as without.
    """
    # What the environment says about it does not count: float32 promises the same labels on every CPU.
    for variable in (_ROUNDING, "ONEDNN_DEFAULT_FPMATH_MODE"):
        os.environ.pop(variable, None)
    if precision != "bfloat16":
        return precision
    os.environ[_ROUNDING] = "BF16"
    return "float32"


_ROUNDING = "TF_SET_ONEDNN_FPMATH_MODE"


def _set_threads(threads: int) -> None:
    if threads == 0 or keras.backend.backend() != "tensorflow":
        return
    import tensorflow as tf

    if threads == tf.config.threading.get_intra_op_parallelism_threads():
        return
    try:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
    except RuntimeError:
        log(f"TensorFlow is already running in this process: inference.intra_op_threads {threads} has no effect.")
