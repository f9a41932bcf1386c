"""Timing training steps and allreduce on the ranks that were started. Nothing is learned that is kept."""

import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace

import ffn.model  # noqa: F401  (before TensorFlow)

# isort: split
import numpy as np
import tensorflow as tf

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


@dataclass(frozen=True)
class StepTimes:
    """Seconds of each step: by the clock, and of the cores that this process used (all its threads)."""

    wall: list[float]
    cpu: list[float]


class Trainer:
    """The training loop of one rank, step by step."""

    def __init__(self, config: Config, ranks: Ranks, reader: ThreadPoolExecutor) -> None:
        self._watch = Stopwatch()
        self._loop = TrainingLoop(config, RunPaths.of(config).train, ranks, reader)  # writes there only when it ends

    def times(self, steps: int, everyone: Ranks) -> StepTimes:
        """Time `steps` steps on this rank; `everyone` starts together."""
        everyone.barrier()
        stamps = [(time.perf_counter(), time.process_time())]
        for _ in range(steps):
            self._loop.advance(_RATE, False, self._watch)
            stamps.append((time.perf_counter(), time.process_time()))
        wall, cpu = np.diff(stamps, axis=0).T.tolist()
        return StepTimes(wall, cpu)


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
    ranks = Ranks.start(config.allreduce, launched=expected if expected > 1 else None)
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


def allreduce_times(
    ranks: Ranks, messages: Mapping[str, Sequence[int]], repeats: int, seed: int
) -> dict[str, list[float]]:
    """Seconds of single allreduces, as training makes them, by the messages' names.

    Args:
        ranks: all call this with the same arguments.
        messages: bytes of the float32 tensors that go as one message.
        repeats: of each message.
        seed: decides the pauses.

    After all ranks have met, they pause for the same random time of some milliseconds: Horovod looks for work once in
    a cycle, and in training messages become ready at any time of it.
    """
    pauses = np.random.default_rng(seed).uniform(2e-3, 5e-3, (len(messages), repeats))
    times: dict[str, list[float]] = {}
    for (name, sizes), row in zip(messages.items(), pauses, strict=True):
        tensors = [tf.zeros(max(size // 4, 1)) for size in sizes]
        average = tf.function(ranks.average, input_signature=[[tf.TensorSpec(t.shape, t.dtype) for t in tensors]])
        average(tensors)
        times[name] = []
        for pause in row:
            ranks.barrier()
            time.sleep(pause)
            began = time.perf_counter()
            average(tensors)[0].numpy()
            times[name].append(time.perf_counter() - began)
    return times
