"""How much of the network's own speed flood filling reaches on this machine.

Ratio = fields of view per second of a whole flood fill (crops, hold-down, movement, seeds, segments, progress) over
those of the bare forward pass at the same shape: 1.0 would mean that everything around the network is free. The
network has random weights and an output bias that makes it flood the volume, so that every field of view is followed
by all its moves. Both are timed in turns, and the medians of the rounds are compared.

    python benchmarks/infer_vs_bare.py [--depth 5 --features 16 --fov 17 --deltas 4 --size 65 --rounds 5]
"""

import argparse
import json
import statistics
import time

import ffn.model  # noqa: F401  (before TensorFlow)

# isort: split
import keras
import numpy as np
import tensorflow as tf

from ffn.config import Inference, Network
from ffn.inference.canvas import Canvas
from ffn.inference.executor import Executor
from ffn.inference.options import FloodOptions
from ffn.model.network import build_network


def flooding_network(depth: int, features: int) -> keras.Model:
    """Random weights whose update is about +6 everywhere: one evaluation lifts 0.05 above the move threshold."""
    model = build_network(depth, features)
    head = model.get_layer("conv_lom")
    kernel, bias = head.get_weights()
    head.set_weights([kernel * 0.01, bias + 6])
    return model


def bare_rate(model: keras.Model, fov: tuple[int, int, int], count: int) -> float:
    """Forward passes per second with inputs that are already tensors."""
    forward = tf.function(lambda image, object_map: model([image, object_map], training=False), autograph=False)
    image, object_map = tf.random.normal((2, 1, *fov, 1), seed=1)
    forward(image, object_map)
    began = time.perf_counter()
    for _ in range(count):
        forward(image, object_map)
    return count / (time.perf_counter() - began)


def flood(model: keras.Model, network: Network, size: int) -> tuple[float, float, int]:
    """FOVs per second of a flood fill of a cube of `size` voxels, its share outside the network, and its FOVs."""
    image = np.random.default_rng(0).normal(size=(size, size, size)).astype(np.float32)
    executor = Executor(model, network.fov)
    fov = np.zeros(network.fov, np.float32)
    executor(fov, fov)
    executor.seconds = 0.0
    canvas = Canvas(image, FloodOptions.of(network, Inference(min_segment_size=1)), executor)
    seeds = np.random.default_rng(1).integers(0, size, (1000, 3))
    began = time.perf_counter()
    canvas.segment_all(seeds)
    seconds = time.perf_counter() - began
    fovs = canvas.counters["fovs"]
    return fovs / seconds, 1 - executor.seconds / seconds, fovs


def main() -> None:
    """Print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("depth", 5), ("features", 16), ("fov", 17), ("deltas", 4), ("size", 65), ("rounds", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    args = parser.parse_args()
    network = Network(depth=args.depth, features=args.features, fov=(args.fov,) * 3, deltas=(args.deltas,) * 3)
    model = flooding_network(args.depth, args.features)
    bare, whole, outside = [], [], []
    for _ in range(args.rounds):
        rate, share, fovs = flood(model, network, args.size)
        whole.append(rate)
        outside.append(share)
        bare.append(bare_rate(model, network.fov, fovs))
    result = {
        "name": "infer_vs_bare",
        "ratio": round(statistics.median(a / b for a, b in zip(whole, bare, strict=True)), 4),
        "fovs_per_s": round(statistics.median(whole), 2),
        "bare_fovs_per_s": round(statistics.median(bare), 2),
        "outside_network": round(statistics.median(outside), 4),
        "fovs": fovs,
        "depth": args.depth,
        "features": args.features,
        "fov": args.fov,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
