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
from ffn.errors import DivergedError, InterruptedTrainingError
from ffn.files import write_json
from ffn.model.checkpoint import save_weights
from ffn.model.network import build_network
from ffn.progress import Progress, log
from ffn.training.best import Best
from ffn.training.curves import Curves
from ffn.training.examples import ExampleSource
from ffn.training.lanes import Lanes
from ffn.training.layout import History
from ffn.training.metrics import Measures, Tally
from ffn.training.optimizer import Updater, learning_rate
from ffn.training.ranks import Ranks
from ffn.training.state import TrainingState
from ffn.training.step import StepResult, TrainingStep
from ffn.training.validation import Validation


@dataclass(frozen=True)
class TrainingResult:
    """What a run reports at its end.

    `f1` and `loss` are of the last row of curves.csv, `held_out` the last judgement on data.validation, if any;
    `fovs_per_s` counts all ranks' fields of view, without the first step and without judging.
    """

    steps: int
    f1: float
    loss: float
    held_out: Measures | None
    fovs_per_s: float


class TrainingLoop:
    """One rank's part of a run; all ranks go through the same steps."""

    def __init__(self, config: Config, folder: Path, ranks: Ranks, reader: ThreadPoolExecutor) -> None:
        self._config, self._folder, self._ranks = config, folder, ranks
        training, network = config.training, config.network
        self._lanes = Lanes.of(config, ExampleSource(config), ranks.rank, ranks.size, reader)
        self._model = build_network(network.depth, network.features, config.seed, training.precision)
        self._updater = Updater(training, self._model)
        fovs = len(self._lanes) * training.accumulate
        self._step = TrainingStep(config, self._model, self._updater, ranks, fovs)
        self._state = TrainingState(config, folder / "checkpoints", ranks, self._model, self._updater, self._lanes)
        self._workers = ranks.size * training.virtual_workers
        self._fovs_per_step = fovs * ranks.size
        self._validation = Validation.of(config, self._model, ranks)

    @property
    def history(self) -> History:
        """How the lanes of the run were dealt out to ranks."""
        return self._state.history

    def run(self) -> TrainingResult:
        """Train from the last checkpoint, or from the beginning, to the last step; write weights and model.json."""
        training, state = self._config.training, self._state
        if state.restore() and self._ranks.first:
            log(f"Resuming after step {state.step} of {training.steps}.")
        curves = self._ranks.first_does(lambda: Curves(self._folder, state.step))
        best = self._ranks.first_does(lambda: Best(self._folder, state.step))
        watch = Stopwatch()
        measures, held_out = Measures.of(Tally()), None
        total = state.fovs + (training.steps - state.step) * self._fovs_per_step
        with (
            Progress("train", total, "FOV", state.fovs, self._ranks.first) as progress,
            stop_on_sigterm() as asked,
        ):
            while state.step < training.steps:
                rate = learning_rate(training, self._workers, state.step)
                outcome = self.advance(rate, bool(asked), watch)
                last = state.step == training.steps
                if state.step % training.log_every == 0 or last:
                    measures = self._write_row(curves, rate, watch)
                if self._validation is not None and (state.step % training.validate_every == 0 or last):
                    with watch.pause():
                        held_out = self._judge(self._validation, curves, best)
                stopped = outcome.stop and not last
                if stopped or (state.step % training.checkpoint_every == 0 and not last):
                    state.save(training.keep_checkpoints)
                if stopped:
                    raise InterruptedTrainingError(
                        f"stopped by SIGTERM after step {state.step} of {training.steps}, which is saved; the same "
                        "command goes on from there."
                    )
                progress.advance(self._fovs_per_step, _status(outcome, measures, held_out))
        self._ranks.first_does(self._write_model)
        if curves is not None:
            curves.close()
        rate_seen = watch.steps * self._fovs_per_step / watch.seconds
        return TrainingResult(state.step, measures.f1, measures.loss, held_out, rate_seen)

    def advance(self, rate: float, stop: bool, watch: "Stopwatch") -> StepResult:
        """One step at this learning rate; `stop` asks all ranks to stop after it. Raises DivergedError on all ranks."""
        lanes, state = self._lanes, self._state
        if lanes.parts == 1 and self._config.training.accumulate == 1:
            (batch,) = lanes.batches(state.tally)
            with watch.step():
                updated, outcome = self._step.update(batch, rate, stop)
            self._check(outcome)
            lanes.update(updated)
        else:
            for _ in range(self._config.training.accumulate):
                for batch in lanes.batches(state.tally):
                    with watch.inside():
                        updated = self._step.add(batch)
                    lanes.update(updated)
            with watch.step():
                outcome = self._step.finish(rate, stop)
            self._check(outcome)
        state.step += 1
        if outcome.applied:
            state.tally.count_loss(outcome.loss, len(lanes) * self._config.training.accumulate)
        return outcome

    def _check(self, outcome: StepResult) -> None:
        if outcome.applied:
            return
        training, step = self._config.training, self._state.step + 1
        wrong = f"The loss is {outcome.mean_loss}"
        if math.isfinite(outcome.mean_loss):
            wrong = f"The loss is {outcome.mean_loss:.4f}, but its gradient is not finite"
        where = "on another rank" if outcome.finite_here else f"on rank {self._ranks.rank}"
        if outcome.finite_here and self._ranks.allreduce.compression != "none":
            where += ", or only in the ranks' mean (allreduce.compression)"
        if training.on_nonfinite == "skip":
            state = self._state
            state.skipped += 1
            if self._ranks.first:
                state.tally.count_skip()
            if state.skipped <= training.max_skipped:
                if self._ranks.first or not outcome.finite_here:
                    log(f"{wrong} at step {step} {where}: update left out ({state.skipped} so far).")
                return
            wrong = f"More than training.max_skipped {training.max_skipped} updates were left out; now {wrong.lower()}"
        raise DivergedError(
            f"{wrong} at step {step} {where}: training has diverged, or the image holds values that are not numbers. "
            "Use a smaller training.learning_rate, a warm-up, or training.gradient_clip, and check network.image_mean "
            "and image_stddev."
        )

    def _judge(self, validation: Validation, curves: Curves | None, best: Best | None) -> Measures:
        state = self._state
        before = self._model.get_weights()
        kept = self._updater.kept_weights()
        self._model.set_weights(kept)
        measures = validation.measures()
        if curves is not None and best is not None:
            curves.add_validation(state.step, state.fovs, measures)
            best.offer(self._model, state.step, measures.f1)
        self._model.set_weights(before)
        return measures

    def _write_row(self, curves: Curves | None, rate: float, watch: "Stopwatch") -> Measures:
        state = self._state
        measures = Measures.of(Tally(self._ranks.sum(state.tally.values)))
        state.tally = Tally()
        if curves is not None:
            curves.add(state.step, state.fovs, measures, rate)
            seconds, inside, steps = watch.lap()
            curves.add_timing(state.step, seconds, steps * self._fovs_per_step, inside)
        return measures

    def _write_model(self) -> None:
        self._model.set_weights(self._updater.kept_weights())
        save_weights(self._model, self._folder / "model.ckpt")
        write_json(self._folder / "model.json", self._config.network.model_dump(mode="json"))


def _status(outcome: StepResult, measures: Measures, held_out: Measures | None) -> str:
    text = f"loss {outcome.mean_loss:.4f} F1 {measures.f1:.3f}"
    return text if held_out is None else f"{text} held-out F1 {held_out.f1:.3f}"


class Stopwatch:
    """Times of the steps; the first step, in which TensorFlow builds its graph, counts for no rate."""

    def __init__(self) -> None:
        self._began = self._lap = time.perf_counter()
        self._inside, self._lap_steps, self._all_steps = 0.0, 0, 0

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Time spent in TensorFlow."""
        began = time.perf_counter()
        yield
        self._inside += time.perf_counter() - began

    @contextmanager
    def step(self) -> Iterator[None]:
        """Time the TensorFlow call that ends a step."""
        with self.inside():
            yield
        self._lap_steps += 1
        self._all_steps += 1
        if self._all_steps == 1:
            self._began = time.perf_counter()

    @contextmanager
    def pause(self) -> Iterator[None]:
        """Time that counts for no rate."""
        began = time.perf_counter()
        yield
        paused = time.perf_counter() - began
        self._began += paused
        self._lap += paused

    def lap(self) -> tuple[float, float, int]:
        """(seconds, seconds inside TensorFlow, steps) since the last lap."""
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
