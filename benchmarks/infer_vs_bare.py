"""How much of the network's own speed inference reaches on this machine.

Ratio = fields of view per second of `ffn infer` (crops, hold-down, movement, seeds, segments, saved states, progress)
over those of the bare forward pass at the same shape: 1.0 would mean that everything around the network is free. Blocks
of bare passes are put between the fields of view of one flood fill, so that other load on the machine falls on both.

With the released FIB-25 network on a crop of real data where these are at hand ($FFN_TEST_DATA, ../shared/data), else
with random weights that flood a volume of noise.

    python benchmarks/infer_vs_bare.py [--box 20:140,20:140,20:140 --fovs 300]
    python benchmarks/infer_vs_bare.py --depth 5 --features 16 --fov 17 --deltas 4
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import ffn.model  # noqa: F401  (before TensorFlow)

# isort: split
import keras
import numpy as np
import tensorflow as tf

from ffn.config import Config, parse_config
from ffn.geometry import ZYX, Box
from ffn.inference import executor
from ffn.inference.canvas import Look
from ffn.inference.drive import Answers
from ffn.inference.subvolume import run_tile
from ffn.inference.tile import Tile
from ffn.model.checkpoint import save_weights
from ffn.model.network import build_network
from ffn.volumes import create_hdf5

DATA = Path(os.environ.get("FFN_TEST_DATA", "../shared/data"))
IMAGE = DATA / "neuroproof_examples" / "training_sample2" / "grayscale_maps"
CHECKPOINT = DATA / "ffn_released" / "model.ckpt-27465036"
PUBLISHED = 65.5 / 84.7
"""google/ffn on a P100: FOVs/s of the whole run over those inside the network."""


class EnoughError(Exception):
    """As many fields of view as were asked for."""


class Alternating(executor.Executor):
    """An executor that puts `block` bare passes after every `block` looks, and counts both by the clock."""

    def __init__(self, model: keras.Model, fov: ZYX, block: int, fovs: int) -> None:
        super().__init__(model, fov)
        forward = tf.function(lambda image, object_map: model([image, object_map], training=False), autograph=False)
        image, object_map = tf.random.normal((2, 1, *fov, 1), seed=1)
        self._bare = lambda: forward(image, object_map)
        self._bare()
        self._block, self._fovs = block, fovs
        self.looks = 0
        self.bare_seconds = self.whole_seconds = 0.0
        self._resumed = time.perf_counter()

    def start(self, looks: Sequence[Look]) -> Answers:
        if self.looks and self.looks % self._block == 0:
            paused = time.perf_counter()
            self.whole_seconds += paused - self._resumed
            for _ in range(self._block):
                self._bare()
            self._resumed = time.perf_counter()
            self.bare_seconds += self._resumed - paused
            if self.looks >= self._fovs:
                raise EnoughError
        if self.looks == 0:
            super().start(looks)()  # traces and warms up
            self._resumed = time.perf_counter()
            self.seconds = 0.0
        self.looks += 1
        return super().start(looks)


def released(folder: Path, box: Box) -> tuple[Config, Tile]:
    """The published network on real data."""
    inference = {"checkpoint": str(CHECKPOINT), "checkpoint_every_s": 10}
    values = {"run": "bench", "data": {"test": {"image": str(IMAGE)}, "voxel_size": [10, 10, 10]}}
    config = parse_config({**values, "network": {"depth": 12}, "inference": inference})
    return config, Tile(str(IMAGE), CHECKPOINT, box, folder / "out")


def flooding(folder: Path, args: argparse.Namespace) -> tuple[Config, Tile]:
    """Random weights whose update is about +6 everywhere, so that every field of view is followed by all its moves."""
    model = build_network(args.depth, args.features)
    head = model.get_layer("conv_lom")
    kernel, bias = head.get_weights()
    head.set_weights([kernel * 0.01, bias + 6])
    save_weights(model, folder / "model.ckpt")
    size = 6 * args.fov
    with create_hdf5(folder / "noise.h5", "image", (size,) * 3, np.uint8, (10.0, 10.0, 10.0)) as volume:
        noise = np.random.default_rng(0).normal(128, 33, (size,) * 3).clip(0, 255).astype(np.uint8)
        volume.write(Box.of_shape(noise.shape), noise)
    image = f"{folder / 'noise.h5'}:image"
    network = {"depth": args.depth, "features": args.features, "fov": [args.fov] * 3, "deltas": [args.deltas] * 3}
    inference = {"checkpoint": "here", "min_segment_size": 1, "checkpoint_every_s": 10}
    values = {"run": "bench", "data": {"test": {"image": image}}, "network": network, "inference": inference}
    return parse_config(values), Tile(image, folder / "model.ckpt", None, folder / "out")


def measure(config: Config, tile: Tile, fovs: int) -> Alternating:
    """Fill the sub-volume until enough fields of view are counted, or to its end."""
    made: list[Alternating] = []

    def alternating(model: keras.Model, fov: ZYX, batch_size: int) -> Alternating:
        made.append(Alternating(model, fov, block=20, fovs=fovs))
        return made[0]

    executor.Executor = alternating
    with suppress(EnoughError):
        run_tile(config, tile)
    return made[0]


def main() -> None:
    """Print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--box", type=Box.parse, default=Box.parse("20:140,20:140,20:140"))
    parser.add_argument("--fovs", type=int, default=300)
    for name, default in (("depth", 12), ("features", 32), ("fov", 33), ("deltas", 8)):
        parser.add_argument(f"--{name}", type=int, default=default)
    args = parser.parse_args()
    real = CHECKPOINT.with_name(CHECKPOINT.name + ".index").exists() and args.depth == 12
    with tempfile.TemporaryDirectory() as folder:
        job = released(Path(folder), args.box) if real else flooding(Path(folder), args)
        found = measure(*job, args.fovs)
    blocks = found.looks // 20 * 20
    whole, bare = blocks / found.whole_seconds, blocks / found.bare_seconds
    result = {
        "name": "infer_vs_bare",
        "ratio": round(whole / bare, 4),
        "published": round(PUBLISHED, 2),
        "fovs_per_s": round(whole, 2),
        "bare_fovs_per_s": round(bare, 2),
        "outside_network": round(1 - found.seconds / found.whole_seconds, 4),
        "fovs": blocks,
        "data": "FIB-25" if real else "noise",
        "depth": args.depth,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
