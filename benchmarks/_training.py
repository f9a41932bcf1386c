"""What the training benchmarks share: a small volume in place of data, and the loop against the bare step."""

import multiprocessing
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import ffn.model  # noqa: F401  (before TensorFlow)

# isort: split
import h5py
import numpy as np
from scipy import ndimage

from ffn.config import Config, parse_config
from ffn.prepare.run import prepare_training
from ffn.training.autotune.bare import bare_step
from ffn.training.loop import Stopwatch, TrainingLoop
from ffn.training.ranks import Ranks
from ffn.training.threads import use_devices


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
    """FOVs/s of the training loop, of the bare step, and the median ratio of neighbouring turns, with quartiles.

    Both work in this process, with the same threads, for turns of `seconds` that alternate in order (ABBA...), so
    that other load on the machine falls on both alike.
    """
    use_devices(config, Ranks())
    prepare_training(config)
    training = config.training
    lanes = training.virtual_workers * training.batch
    batch = -(-lanes // -(-lanes // training.microbatch))
    with ThreadPoolExecutor(1) as reader:
        loop, watch = TrainingLoop(config, folder, Ranks(), reader), Stopwatch()
        whole = (lambda: loop.advance(1e-4, False, watch)), lanes * training.accumulate
        bare = bare_step(config, batch), batch
        for step, _ in (whole, bare, whole, bare):
            step()
        pairs = []
        for turn in range(turns):
            first, second = (whole, bare) if turn % 2 == 0 else (bare, whole)
            rates = _rate(*first, seconds), _rate(*second, seconds)
            pairs.append(rates if turn % 2 == 0 else rates[::-1])
    low, ratio, high = statistics.quantiles([a / b for a, b in pairs], n=4)
    loop_rate, bare_rate = (statistics.median(values) for values in zip(*pairs, strict=True))
    return {
        "ratio": round(ratio, 4),
        "quartiles": [round(low, 4), round(high, 4)],
        "turns": turns,
        "loop_fovs_per_s": round(loop_rate, 2),
        "bare_fovs_per_s": round(bare_rate, 2),
        "depth": config.network.depth,
        "features": config.network.features,
        "fov": config.network.fov[0],
        "batch": training.batch,
    }


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
