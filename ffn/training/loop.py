"""The training loop: from a configuration to weights, curves and checkpoints in results/<run>/train."""

import math
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import ffn.model  # noqa: F401  (before TensorFlow)

# isort: split

from ffn.config import Config
from ffn.errors import DataError, InterruptedTrainingError
from ffn.files import write_json
from ffn.model.checkpoint import save_weights
from ffn.model.network import build_network
from ffn.progress import Progress, log
from ffn.training.curves import Curves
from ffn.training.examples import ExampleSource
from ffn.training.lanes import Lanes
from ffn.training.metrics import Measures, Tally
from ffn.training.optimizer import build_optimizer, learning_rate
from ffn.training.ranks import Ranks
from ffn.training.state import TrainingState
from ffn.training.step import StepResult, TrainingStep


@dataclass(frozen=True)
class TrainingResult:
    """What a run reports at its end. `fovs_per_s` counts all ranks' fields of view, without the first step."""

    steps: int
    f1: float
    loss: float
    fovs_per_s: float


class TrainingLoop:
    """One rank's part of a run; all ranks go through the same steps."""

    def __init__(self, config: Config, folder: Path, ranks: Ranks, reader: ThreadPoolExecutor) -> None:
        self._config, self._folder, self._ranks = config, folder, ranks
        training = config.training
        self._lanes = Lanes.of(config, ExampleSource(config), ranks.rank, ranks.size, reader)
        self._model = build_network(config.network.depth, config.network.features, config.seed)
        optimizer = build_optimizer(training, self._model)
        self._step = TrainingStep(config, self._model, optimizer, ranks)
        self._state = TrainingState(folder / "checkpoints", ranks, self._model, optimizer, self._lanes)
        self._fovs_per_step = training.batch * ranks.size

    def run(self) -> TrainingResult:
        """Train from the last checkpoint, or from the beginning, to the last step; write weights and model.json."""
        training, state = self._config.training, self._state
        if state.restore() and self._ranks.first:
            log(f"Resuming after step {state.step} of {training.steps}.")
        curves = self._ranks.first_does(lambda: Curves(self._folder, state.step))
        watch = Stopwatch()
        measures = Measures.of(Tally())
        total = training.steps * self._fovs_per_step
        with (
            Progress("train", total, "FOV", state.step * self._fovs_per_step, self._ranks.first) as progress,
            stop_on_sigterm() as asked,
        ):
            while state.step < training.steps:
                rate = learning_rate(training, self._ranks.size, state.step)
                outcome = self.advance(rate, bool(asked), watch)
                if state.step % training.log_every == 0 or state.step == training.steps:
                    measures = self._write_row(curves, rate, watch)
                saved = state.step % training.checkpoint_every == 0 and state.step < training.steps
                if saved or outcome.stop:
                    state.save(training.keep_checkpoints)
                if outcome.stop:
                    raise InterruptedTrainingError(
                        f"stopped by SIGTERM after step {state.step} of {training.steps}, which is saved; the same "
                        "command goes on from there."
                    )
                progress.advance(self._fovs_per_step, f"loss {outcome.mean_loss:.4f} F1 {measures.f1:.3f}")
        self._ranks.first_does(self._write_model)
        if curves is not None:
            curves.close()
        return TrainingResult(state.step, measures.f1, measures.loss, watch.steps * self._fovs_per_step / watch.seconds)

    def advance(self, rate: float, stop: bool, watch: "Stopwatch") -> StepResult:
        """One step at this learning rate; `stop` asks all ranks to stop after it. Raises DataError on divergence."""
        lanes, state = self._lanes, self._state
        lanes.fill(state.tally)
        with watch.step():
            outcome = self._step(lanes.image, lanes.object_map, lanes.labels, rate, stop)
        state.step += 1
        self._check(outcome)
        lanes.update(outcome.updated)
        state.tally.count_step(outcome.loss)
        return outcome

    def _check(self, outcome: StepResult) -> None:
        if math.isfinite(outcome.mean_loss):
            return
        where = f"on rank {self._ranks.rank}" if not math.isfinite(outcome.loss) else "on another rank"
        raise DataError(
            f"The loss is {outcome.mean_loss} at step {self._state.step} {where}: training has diverged, or the image "
            "holds values that are not numbers. Use a smaller training.learning_rate, a warm-up, or "
            "training.gradient_clip, and check network.image_mean and image_stddev."
        )

    def _write_row(self, curves: Curves | None, rate: float, watch: "Stopwatch") -> Measures:
        state = self._state
        measures = Measures.of(Tally(self._ranks.sum(state.tally.values)))
        state.tally = Tally()
        if curves is not None:
            curves.add(state.step, state.step * self._fovs_per_step, measures, rate)
            seconds, inside, steps = watch.lap()
            curves.add_timing(state.step, seconds, steps * self._fovs_per_step, inside)
        return measures

    def _write_model(self) -> None:
        save_weights(self._model, self._folder / "model.ckpt")
        write_json(self._folder / "model.json", self._config.network.model_dump(mode="json"))


class Stopwatch:
    """Times of the steps; the first step, in which TensorFlow builds its graph, counts for no rate."""

    def __init__(self) -> None:
        self._began = self._lap = time.perf_counter()
        self._inside, self._lap_steps, self._all_steps = 0.0, 0, 0

    @contextmanager
    def step(self) -> Iterator[None]:
        """Time one TensorFlow step."""
        began = time.perf_counter()
        yield
        now = time.perf_counter()
        self._inside += now - began
        self._lap_steps += 1
        self._all_steps += 1
        if self._all_steps == 1:
            self._began = now

    def lap(self) -> tuple[float, float, int]:
        """(seconds, seconds inside the TensorFlow step, steps) since the last lap."""
        now = time.perf_counter()
        result = now - self._lap, self._inside, self._lap_steps
        self._lap, self._inside, self._lap_steps = now, 0.0, 0
        return result

    @property
    def steps(self) -> int:
        """Steps after the first one."""
        return max(self._all_steps - 1, 0)

    @property
    def seconds(self) -> float:
        """Seconds since the first step ended."""
        return max(time.perf_counter() - self._began, 1e-9)


@contextmanager
def stop_on_sigterm() -> Iterator[list[int]]:
    """A list that gets an entry when the process receives SIGTERM."""
    asked: list[int] = []

    def remember(number: int, frame: FrameType | None) -> None:
        asked.append(number)

    before: Any = signal.signal(signal.SIGTERM, remember)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGTERM, before)
