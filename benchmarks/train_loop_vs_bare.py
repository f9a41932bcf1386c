"""How much of TensorFlow's bare speed the training loop keeps.

Times, in short turns and in one process, the loop's steps (examples, moves, update, metrics) and a bare forward +
backward + Adam step on constant tensors of the same shape. Prints one JSON line; `ratio` is loop FOVs/s over bare
FOVs/s, the median over the pairs of turns, so that other load on the machine falls on both alike.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import ffn.model  # noqa: F401  (before TensorFlow)

# isort: split
import h5py
import keras
import numpy as np
import tensorflow as tf
from scipy import ndimage

from ffn.config import Config, parse_config
from ffn.model.network import build_network
from ffn.prepare.run import prepare_training
from ffn.training.loop import Stopwatch, TrainingLoop
from ffn.training.ranks import Ranks
from ffn.training.run import use_devices


def main() -> None:
    """Parse the arguments, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--depth", type=int, default=5)
    parser.add_argument("--features", type=int, default=16)
    parser.add_argument("--fov", type=int, default=17)
    parser.add_argument("--delta", type=int, default=4)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=0.3, help="length of one turn")
    parser.add_argument("--turns", type=int, default=60)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        config = _config(Path(folder), args)
        use_devices(config, Ranks())
        prepare_training(config)
        with ThreadPoolExecutor(1) as reader:
            loop = TrainingLoop(config, Path(folder), Ranks(), reader)
            watch = Stopwatch()
            turns = (lambda: loop.advance(1e-3, False, watch)), _bare_step(config)
            for step in turns:
                step()
            pairs = [(_rate(turns[0], args), _rate(turns[1], args)) for _ in range(args.turns)]
    loop_rate, bare_rate = (statistics.median(values) for values in zip(*pairs, strict=True))
    result = {
        "name": "train_loop_vs_bare",
        "ratio": round(statistics.median(a / b for a, b in pairs), 4),
        "loop_fovs_per_s": round(loop_rate, 2),
        "bare_fovs_per_s": round(bare_rate, 2),
        "depth": args.depth,
        "features": args.features,
        "fov": args.fov,
        "batch": args.batch,
    }
    print(json.dumps(result))


def _config(folder: Path, args: argparse.Namespace) -> Config:
    volume = folder / "volume.h5"
    _write_volume(volume, 4 * args.fov)
    region = {"image": f"{volume}:image", "labels": f"{volume}:labels"}
    network = {"depth": args.depth, "features": args.features, "fov": [args.fov] * 3, "deltas": [args.delta] * 3}
    return parse_config(
        {
            "run": "bench",
            "results": str(folder),
            "data": {"train": region, "test": region, "voxel_size": [10, 10, 10]},
            "network": network,
            "prepare": {"min_size": 100},
            "training": {"batch": args.batch, "learning_rate": 1e-3, "optimizer": "adam"},
        }
    )


def _write_volume(path: Path, size: int) -> None:
    random = np.random.default_rng(0)
    markers = np.zeros((size, size, size), np.int32)
    places = random.integers(0, size, (40, 3))
    markers[tuple(places.T)] = np.arange(1, len(places) + 1)
    nearest = ndimage.distance_transform_edt(markers == 0, return_distances=False, return_indices=True)
    labels = markers[tuple(nearest)].astype(np.uint64)
    border = ndimage.maximum_filter(labels, 3) != ndimage.minimum_filter(labels, 3)
    image = np.where(border, 80, 160) + random.normal(0, 8, labels.shape)
    with h5py.File(path, "w") as file:
        file["image"] = image.clip(0, 255).astype(np.uint8)
        file["labels"] = labels


def _bare_step(config: Config) -> Callable[[], object]:
    network = config.network
    model = build_network(network.depth, network.features)
    optimizer = keras.optimizers.Adam(1e-3)
    optimizer.build(model.trainable_variables)
    shape = (config.training.batch, *network.fov, 1)
    image = tf.random.stateless_normal(shape, (1, 2))
    object_map = tf.random.stateless_normal(shape, (3, 4))
    labels = tf.random.stateless_uniform(shape, (5, 6))

    @tf.function
    def step() -> tf.Tensor:
        with tf.GradientTape() as tape:
            updated = model([image, object_map], training=True)
            loss = tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(labels, updated))
        gradients = tape.gradient(loss, [weight.value for weight in model.trainable_variables])
        optimizer.apply(gradients, model.trainable_variables)
        return loss

    return lambda: step().numpy()


def _rate(step: Callable[[], object], args: argparse.Namespace) -> float:
    began, steps = time.perf_counter(), 0
    while time.perf_counter() - began < args.seconds:
        step()
        steps += 1
    return steps * args.batch / (time.perf_counter() - began)


if __name__ == "__main__":
    main()
