"""How inference speeds up with the batch on this device, and how much of that `ffn infer` reaches.

For each precision and batch size, fields of view per second of

    bare    full batches alone, two in flight
    whole   flood fills of real data, twice as many side by side as a batch holds, by the engine of `ffn infer`

The clock starts when every flood fill has begun. Keras runs on TensorFlow or JAX (KERAS_BACKEND), on whatever device
that finds; where there is no TensorFlow, give weights that `ffn export-weights` wrote. Each measurement is one line of
JSON, and the last line the result: whole over bare at the batch that was fastest in the first precision.

    KERAS_BACKEND=jax python benchmarks/long/infer_vs_batch.py --checkpoint weights.npz --image volume.h5:image > lines
    python benchmarks/long/infer_vs_batch.py --plot lines curve.png
"""

import argparse
import json
import os
import time
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path

import ffn.model  # noqa: F401  (before TensorFlow)

# isort: split
import keras
import numpy as np
from numpy.typing import NDArray

from ffn.config import Config, parse_config
from ffn.geometry import Box
from ffn.inference.canvas import Canvas, Flood, Look
from ffn.inference.drive import Answers, drive, side_by_side
from ffn.inference.executor import Executor, load_executor
from ffn.inference.scene import Scene
from ffn.volumes import open_image

DATA = Path(os.environ.get("FFN_TEST_DATA", "../shared/data"))
PLACES = 32
"""Boxes of the image that are filled; where more run side by side, some begin in the same box."""

Places = list[tuple[Canvas, NDArray[np.int64]]]


class EnoughError(Exception):
    """As much as was asked for."""


class Counted:
    """A network that counts for `seconds` from its first answer on, and then stops whoever asks it."""

    def __init__(self, network: Executor, seconds: float) -> None:
        self.batch_size = network.batch_size
        self._network, self._seconds = network, seconds
        self._began: float | None = None
        self._fovs = 0

    def start(self, looks: Sequence[Look]) -> Answers:
        answers = self._network.start(looks)

        def counted() -> Sequence[NDArray[np.float32]]:
            answered = answers()
            now = time.perf_counter()
            if self._began is None:
                self._began = now
                return answered
            self._fovs += len(answered)
            if now - self._began > self._seconds:
                raise EnoughError
            return answered

        return counted

    @property
    def per_second(self) -> float:
        """Fields of view."""
        if self._began is None:
            raise RuntimeError("The network was never asked.")
        return self._fovs / (time.perf_counter() - self._began)


def bare(network: Executor, look: Look, seconds: float) -> float:
    """Fields of view per second of full batches, asked for as `drive` does."""
    counted, looks = Counted(network, seconds), [look] * network.batch_size
    flying: deque[Answers] = deque([counted.start(looks), counted.start(looks)])
    try:
        while True:
            flying.popleft()()
            flying.append(counted.start(looks))
    except EnoughError:
        return counted.per_second


def whole(network: Executor, places: Places, seconds: float) -> float:
    """Fields of view per second of the engine."""
    counted = Counted(network, seconds)
    try:
        drive(floods(places), counted, side_by_side(0, network.batch_size))
    except EnoughError:
        return counted.per_second
    raise RuntimeError("No flood fill began.")


def chosen_places(config: Config, image: str, size: int) -> Places:
    """Boxes of the image, `size` voxels long, with their seeds."""
    with open_image(image) as volume:
        room = np.array(volume.shape) - size
    places = []
    for z, y, x in np.random.default_rng(0).integers(0, room + 1, (PLACES, 3)).tolist():
        scene = Scene.of(config, image, Box((z, y, x), (z + size, y + size, x + size)), 0)
        places.append((scene.canvas, scene.seeds(0)))
    return places


def floods(places: Places) -> Iterator[Flood]:
    """Flood fills without end, of one box after the other."""
    while True:
        for canvas, seeds in places:
            yield Canvas(canvas.image, canvas.options).segment_all(seeds)


def device() -> str:
    """What Keras computes on."""
    if keras.backend.backend() == "jax":
        import jax

        return str(jax.devices()[0].device_kind)
    import tensorflow as tf

    found = tf.config.list_physical_devices("GPU")
    return str(tf.config.experimental.get_device_details(found[0]).get("device_name")) if found else "cpu"


def draw(lines: Path, plot: Path) -> None:
    """The curve of an earlier run."""
    import matplotlib.pyplot as plt

    *points, result = map(json.loads, lines.read_text(encoding="utf-8").splitlines())
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    for number, precision in enumerate(dict.fromkeys(point["precision"] for point in points)):
        of_it = [point for point in points if point["precision"] == precision]
        for key, style in (("bare", "--"), ("whole", "-")):
            label = precision if key == "whole" else f"{precision}, network alone"
            rates = [point[key] for point in of_it]
            axes.plot([point["batch"] for point in of_it], rates, style, color=f"C{number}", marker=".", label=label)
    axes.set_xscale("log", base=2, subs=[])
    axes.xaxis.set_major_formatter("{x:.0f}")
    axes.set(xlabel="batch size, fields of view", ylabel="fields of view per second", title=result["device"], ylim=0)
    axes.legend(frameon=False)
    figure.savefig(plot, dpi=120)


def main() -> None:
    """Print a JSON line for each measurement, and the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    image = DATA / "neuroproof_examples" / "training_sample2" / "grayscale_maps"
    parser.add_argument("--checkpoint", type=Path, default=DATA / "ffn_released" / "model.ckpt-27465036")
    parser.add_argument("--image", default=str(image))
    parser.add_argument("--batches", default="1,2,4,8,16,32,64")
    parser.add_argument("--precisions", default="float32,bfloat16,float16")
    parser.add_argument("--size", type=int, default=97, help="edge of the boxes, voxels")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    parser.add_argument("--plot", type=Path, nargs=2, metavar=("LINES", "PNG"), help="draw what was printed, and end")
    args = parser.parse_args()
    if args.plot:
        draw(*args.plot)
        return
    values = {"run": "bench", "data": {"test": {"image": args.image}, "voxel_size": [10, 10, 10]}}
    config = parse_config({**values, "network": {"depth": 12}, "inference": {"checkpoint": str(args.checkpoint)}})
    places = chosen_places(config, args.image, args.size)
    canvas = places[0][0]
    fov = tuple(slice(0, n) for n in config.network.fov)
    look = Look(canvas.image[fov], np.full(config.network.fov, canvas.options.pad, np.float32))
    best = {"precision": "", "whole": 0.0, "bare": 1.0, "batch": 0}
    for precision in args.precisions.split(","):
        for batch in map(int, args.batches.split(",")):
            network = load_executor(config.network, args.checkpoint, batch_size=batch, precision=precision)
            began = time.perf_counter()
            network.start([look])()
            found = {
                "precision": precision,
                "batch": batch,
                "compile_s": round(time.perf_counter() - began, 1),
                "bare": round(bare(network, look, args.seconds), 1),
                "whole": round(whole(network, places, args.seconds), 1),
            }
            print(json.dumps(found), flush=True)
            if best["precision"] in ("", precision) and found["whole"] > best["whole"]:
                best = found
    result = {
        "name": "infer_vs_batch",
        "ratio": round(best["whole"] / best["bare"], 3),
        "device": device(),
        "backend": keras.backend.backend(),
        **best,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
