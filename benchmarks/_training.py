"""What the training benchmarks share: a small volume in place of data, and a run against the bare step."""

import argparse
import math
import multiprocessing
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from threading import Barrier
from typing import Any

import ffn.model  # noqa: F401  (before TensorFlow)

# isort: split
import h5py
import numpy as np
import tensorflow as tf
from scipy import ndimage

from ffn.config import Config, parse_config
from ffn.errors import InterruptedTrainingError
from ffn.prepare.run import prepare_training
from ffn.training.autotune.bare import bare_step
from ffn.training.loop import Stopwatch, TrainingLoop
from ffn.training.ranks import Ranks
from ffn.training.step import StepResult
from ffn.training.threads import use_devices


def add_network(parser: argparse.ArgumentParser) -> None:
    """Options for network and batch; the defaults are those of the paper."""
    for name, default in (("depth", 9), ("features", 32), ("fov", 33), ("delta", 8), ("batch", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)


def network_of(args: argparse.Namespace) -> dict[str, Any]:
    """The section `network` by these options."""
    return {"depth": args.depth, "features": args.features, "fov": [args.fov] * 3, "deltas": [args.delta] * 3}


def stand_in(folder: Path, fov: int, downsample: tuple[int, int, int] = (1, 1, 1)) -> dict[str, Any]:
    """Values of `run`, `results`, `data` and `prepare` for a volume made in `folder`, four fields of view wide."""
    volume = folder / "volume.h5"
    _write_volume(volume, 4 * fov * max(downsample))
    region = {"image": f"{volume}:image", "labels": f"{volume}:labels"}
    return {
        "run": "bench",
        "results": str(folder),
        "data": {"train": region, "test": region, "voxel_size": [10, 10, 10]},
        "prepare": {"min_size": 100},
    }


def loop_against_bare(config: Config, folder: Path, turns: int, seconds: float) -> dict[str, Any]:
    """FOVs/s of a training run, of the bare step, and the median ratio over `turns`, with quartiles.

    A real run, with all that it writes, pauses every `seconds` for a turn of bare steps in another process, which is
    TensorFlow as it comes, without what training asks of it (the same bits in every run), on the same number of
    threads. Each turn of bare steps is compared with the mean of the run's turns before and after it, so that other
    load on the machine falls on both alike.
    """
    use_devices(config, Ranks())
    prepare_training(config)
    training = config.training
    lanes = training.virtual_workers * training.batch
    batch = -(-lanes // -(-lanes // training.microbatch))
    fresh = multiprocessing.get_context("spawn")
    with (
        ThreadPoolExecutor(1) as reader,
        ProcessPoolExecutor(1, mp_context=fresh, initializer=_build_bare, initargs=(config, batch)) as pool,
    ):

        def bare() -> float:
            return pool.submit(_bare_turn, batch, seconds).result()

        bare()
        run = _PausingRun(config, folder, reader, bare, turns, seconds)
        with suppress(InterruptedTrainingError):
            run.run()
    around = [(before + after) / 2 for before, after in pairwise(run.own)]
    low, ratio, high = statistics.quantiles([own / bare for own, bare in zip(around, run.bare, strict=True)], n=4)
    return {
        "ratio": round(ratio, 4),
        "quartiles": [round(low, 4), round(high, 4)],
        "turns": turns,
        "loop_fovs_per_s": round(statistics.median(run.own), 2),
        "bare_fovs_per_s": round(statistics.median(run.bare), 2),
        "depth": config.network.depth,
        "features": config.network.features,
        "fov": config.network.fov[0],
        "batch": training.batch,
    }


class _PausingRun(TrainingLoop):
    """A training run that stops after `turns` pauses; `own` are its FOVs/s between them, `bare` what they returned."""

    def __init__(
        self,
        config: Config,
        folder: Path,
        reader: ThreadPoolExecutor,
        pause: Callable[[], float],
        turns: int,
        seconds: float,
    ) -> None:
        super().__init__(config, folder, Ranks(), reader)
        self.own: list[float] = []
        self.bare: list[float] = []
        self._pause, self._turns, self._seconds = pause, turns, seconds
        self._began, self._steps = math.inf, -_WARM_UP

    def advance(self, rate: float, stop: bool, watch: Stopwatch) -> StepResult:
        over = time.perf_counter() - self._began
        if over >= self._seconds:
            self.own.append(self._steps * self._fovs_per_step / over)
            if len(self.bare) < self._turns:
                self.bare.append(self._pause())
            else:
                stop = True
            self._steps = 0
        if self._steps == 0:
            self._began = time.perf_counter()
        self._steps += 1
        return super().advance(rate, stop, watch)


_WARM_UP = 3
_bare_steps: list[Callable[[], float]] = []


def _build_bare(config: Config, batch: int) -> None:
    tf.config.threading.set_intra_op_parallelism_threads(config.threads.intra_op)
    tf.config.threading.set_inter_op_parallelism_threads(config.threads.inter_op)
    step = bare_step(config, batch)
    for _ in range(_WARM_UP):
        step()
    _bare_steps.append(step)


def _bare_turn(batch: int, seconds: float) -> float:
    return _rate(_bare_steps[0], batch, seconds)


def bare_side_by_side(values: dict[str, Any], processes: int, seconds: float) -> float:
    """FOVs/s of all these processes together, each doing bare steps with the configured threads, at the same time."""
    fresh = multiprocessing.get_context("spawn")
    with fresh.Manager() as manager, ProcessPoolExecutor(processes, mp_context=fresh) as pool:
        together = manager.Barrier(processes)
        rates = [pool.submit(_bare_rate, values, seconds, together) for _ in range(processes)]
        return sum(rate.result() for rate in rates)


def _bare_rate(values: dict[str, Any], seconds: float, together: Barrier) -> float:
    config = parse_config(values)
    use_devices(config, Ranks())
    step = bare_step(config, config.training.batch)
    for _ in range(2):
        step()
    together.wait()
    return _rate(step, config.training.batch, seconds)


def _rate(step: Callable[[], object], fovs: int, seconds: float) -> float:
    began, steps = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        step()
        steps += 1
    return steps * fovs / (time.perf_counter() - began)


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
