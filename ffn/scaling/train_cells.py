"""Training the cells of the learning-rate study by the ordinary training code."""

import gc
import time
from contextlib import ExitStack

import ffn.model  # noqa: F401  (before TensorFlow)

# isort: split
import keras

from ffn.config import Config
from ffn.errors import DivergedError
from ffn.files import remove
from ffn.prepare.run import prepare_training
from ffn.progress import log
from ffn.runs import SYNTHETIC
from ffn.scaling.cells import Cell, cell_config, rate_of
from ffn.scaling.outcomes import Outcome, cell_stage, last_scores, outcome_facts, read_outcome, read_outcomes
from ffn.scaling.rounds import next_cells, planned_cells
from ffn.synthetic.run import synthesize
from ffn.training.ranks import Ranks
from ffn.training.run import train

# A cell costs about as much as this many workers' steps before its first worker counts: small batches use the machine
# badly, and TensorFlow builds a graph. Only the forecast of the time left depends on it.
_FIXED_WORKERS = 4


def train_cell(config: Config, cell: Cell) -> Outcome | None:
    """Train one cell to its end and mark it done; every rank calls it, all but the first get None.

    A cell that is done is only read. Divergence is an outcome, not a failure. Raises what training raises.
    """
    ranks = Ranks.start(config.allreduce)
    stage, settings = cell_stage(config, cell), cell_config(config, cell)
    with ExitStack() as held:
        if not ranks.agree(bool(ranks.first_does(lambda: stage.begin_locked(held)))):
            return read_outcome(config, cell) if ranks.first else None
        diverged: str | None = None
        try:
            train(settings, stage.folder / "train")
        except DivergedError as error:
            diverged = str(error)
        if not ranks.first:
            return None
        scores = {} if diverged else last_scores(stage.folder / "train", config.study.lr_study.smoothing)
        outcome = Outcome(cell, diverged is not None, scores)
        stage.finish(**outcome_facts(outcome), message=diverged)
        remove(stage.folder / "train" / "checkpoints")
        return outcome


def prepare_cells(config: Config, cells: list[Cell]) -> None:
    """Make what the cells of each seed read; jobs that start at the same time must find it ready."""
    if any(SYNTHETIC in (region.image, region.labels) for region in config.data.labelled.values()):
        synthesize(config)
    for seed in sorted({cell.seed for cell in cells}):
        prepare_training(cell_config(config, next(cell for cell in cells if cell.seed == seed)))


def train_all(config: Config) -> dict[Cell, Outcome]:
    """Train all cells of the study in this process, one after the other, each as a fresh start would.

    Continues where an earlier attempt stopped. Returns all outcomes.
    """
    study = config.study.lr_study
    outcomes = read_outcomes(config)
    began, spent = time.monotonic(), 0.0
    while cells := next_cells(study, outcomes):
        prepare_cells(config, cells)
        for index, cell in enumerate(cells):
            outcomes[cell] = _alone(config, cell)
            spent += _cost(cell)
            left = max(_forecast(config, outcomes), sum(_cost(other) for other in cells[index + 1 :]))
            rate = (time.monotonic() - began) / spent
            log(
                f"lr_study: {len(outcomes)} cells, {cell.workers} workers at rate {rate_of(config, cell.power):.3g}, "
                f"seed {cell.seed}: {_told(outcomes[cell], study.judged_on)}; {_minutes(rate * left)} left"
            )
    return outcomes


def _alone(config: Config, cell: Cell) -> Outcome:
    keras.backend.clear_session()
    gc.collect()
    outcome = train_cell(config, cell)
    if outcome is None:
        raise AssertionError("a process without other ranks is the first one")
    return outcome


def _forecast(config: Config, outcomes: dict[Cell, Outcome]) -> float:
    return sum(map(_cost, planned_cells(config))) - sum(map(_cost, outcomes))


def _cost(cell: Cell) -> float:
    return _FIXED_WORKERS + cell.workers


def _told(outcome: Outcome, judged_on: str) -> str:
    if outcome.diverged:
        return "diverged"
    return " ".join(f"{name} {value:.4f}" for name, value in outcome.scores.get(judged_on, {}).items())


def _minutes(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
