"""A short real measurement of inference: a flood fill of noise with the configured network on this machine.

The levels are set so low that the field of view moves everywhere, whatever the weights say, so crops, updates, queues
and batches cost what they cost in a real run. Seeds, finished objects and saved states are not in it: on a CPU they
are a few percent.
"""

import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from ffn.config import Config
from ffn.errors import CheckpointError
from ffn.inference.canvas import Canvas, Flood
from ffn.inference.drive import drive, side_by_side
from ffn.inference.executor import Executor, load_executor, random_executor
from ffn.inference.options import FloodOptions
from ffn.planning.rates import Speed
from ffn.progress import log
from ffn.runs import checkpoint_prefix

_EVERYWHERE = np.float32(-1e9)
_STEPS = 12


def measure_speed(config: Config, seconds: float = 10.0) -> Speed:
    """FOVs/s of one process, of the run's weights where they are there, else of random ones: that costs the same.

    Args:
        config: Its network and its settings of inference.
        seconds: That are measured, after the first batches.
    """
    inference = config.inference
    try:
        executor = load_executor(
            config.network,
            checkpoint_prefix(config),
            threads=inference.intra_op_threads,
            batch_size=inference.batch_size,
            precision=inference.precision,
        )
    except CheckpointError as error:
        log(f"Measuring with random weights: {error}")
        executor = random_executor(
            config.network,
            threads=inference.intra_op_threads,
            batch_size=inference.batch_size,
            precision=inference.precision,
        )
    concurrent = side_by_side(inference.concurrent, executor.batch_size)
    _fill(config, executor, concurrent, _Clock(0.0, 3 * concurrent))
    clock = _Clock(seconds, 1)
    _fill(config, executor, concurrent, clock)
    return Speed(clock.looks / clock.elapsed, concurrent, f"a measurement of {clock.elapsed:.0f} s on this machine")


class _Clock:
    """Says when to stop: after `seconds`, but not before so many looks."""

    def __init__(self, seconds: float, least: int) -> None:
        self.looks = 0
        self._began, self._seconds, self._least = time.monotonic(), seconds, least

    @property
    def elapsed(self) -> float:
        return max(time.monotonic() - self._began, 1e-9)

    @property
    def over(self) -> bool:
        return self.looks >= self._least and self.elapsed >= self._seconds


def _fill(config: Config, executor: Executor, concurrent: int, clock: _Clock) -> None:
    drive(_floods(config, clock), executor, concurrent)


def _floods(config: Config, clock: _Clock) -> Iterator[Flood]:
    """Flood fills of noise, one after the other, until time is over."""
    options = replace(
        FloodOptions.of(config.network, config.inference), move=_EVERYWHERE, segment=_EVERYWHERE, disco=-1.0
    )
    shape = tuple(f + 2 * d * _STEPS for f, d in zip(options.fov, options.deltas, strict=True))
    noise = np.random.default_rng(config.seed).normal(size=shape).astype(np.float32)
    centre = np.array([[n // 2 for n in shape]], np.int64)
    while not clock.over:
        yield _timed(Canvas(noise, options).segment_all(centre), clock)


def _timed(flood: Flood, clock: _Clock) -> Flood:
    look = next(flood, None)
    while look is not None and not clock.over:
        answer = yield look
        clock.looks += 1
        try:
            look = flood.send(answer)
        except StopIteration:
            return
