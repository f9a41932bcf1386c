"""Timing training steps and allreduce on the ranks that were started. Nothing is learned that is kept."""

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace

import ffn.model  # noqa: F401  (before TensorFlow)

# isort: split
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from ffn.config import Config
from ffn.errors import RankError
from ffn.prepare.run import prepare_training
from ffn.runs import SYNTHETIC, RunPaths
from ffn.synthetic.run import synthesize
from ffn.training.loop import Stopwatch, TrainingLoop
from ffn.training.ranks import Ranks
from ffn.training.threads import use_devices

# So small a rate that no step diverges; the time of a step does not depend on it.
_RATE = 1e-6


class Trainer:
    """The training loop of one rank, step by step."""

    def __init__(self, config: Config, ranks: Ranks, reader: ThreadPoolExecutor) -> None:
        self._watch = Stopwatch()
        self._loop = TrainingLoop(config, RunPaths.of(config).train, ranks, reader)  # writes there only when it ends

    def times(self, steps: int, everyone: Ranks) -> list[float]:
        """Seconds of each of `steps` steps on this rank; `everyone` starts together."""
        everyone.barrier()
        stamps = [time.perf_counter()]
        for _ in range(steps):
            self._loop.advance(_RATE, False, self._watch)
            stamps.append(time.perf_counter())
        return [float(seconds) for seconds in np.diff(stamps)]


@contextmanager
def example_reader() -> Iterator[ThreadPoolExecutor]:
    """The thread that loads examples for the trainers of a process."""
    reader = ThreadPoolExecutor(1, thread_name_prefix="examples")
    try:
        yield reader
    finally:
        reader.shutdown(wait=True, cancel_futures=True)


def join_ranks(config: Config, expected: int) -> Ranks:
    """The ranks that were started, with the configured threads. Raises RankError if they are not `expected`."""
    ranks = Ranks.start()
    if ranks.size != expected:
        raise RankError(f"{ranks.size} rank(s) were started, but this measurement is for {expected}: start as many.")
    use_devices(config, ranks)
    ranks.first_does(lambda: prepare_inputs(config))
    return ranks


def prepare_inputs(config: Config) -> None:
    """Make what training reads, where it is not there yet."""
    if any(SYNTHETIC in (region.image, region.labels) for region in config.data.labelled.values()):
        synthesize(config)
    prepare_training(config)


def side_by_side(ranks: Ranks) -> Ranks:
    """The same process as a rank that trains alone: its own shard and share of the cores, but no allreduce."""
    return replace(ranks, size=1, horovod=None)


def allreduce_times(ranks: Ranks, sizes: Sequence[int], repeats: int) -> dict[int, list[float]]:
    """Seconds of single allreduces of float32 messages, as training sends them, by their bytes."""
    times: dict[int, list[float]] = {}
    for size in sizes:
        message: NDArray[np.float32] = np.zeros(max(size // 4, 1), np.float32)
        average = tf.function(lambda tensor: ranks.average([tensor]))
        value = tf.constant(message)
        average(value)
        times[size] = []
        for _ in range(repeats):
            ranks.barrier()
            began = time.perf_counter()
            average(value)[0].numpy()
            times[size].append(time.perf_counter() - began)
    return times
