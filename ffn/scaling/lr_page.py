"""The learning-rate study in words and tables: CSV, JSON and a Markdown page."""

from collections.abc import Mapping
from typing import Any

from ffn.config import Config
from ffn.scaling.cells import Cell, rate_of
from ffn.scaling.exponent import Fit
from ffn.scaling.lr_table import Study
from ffn.scaling.outcomes import SCORES, Outcome
from ffn.scaling.outputs import markdown_table

PLACES = ("training", "validation")
_SCORE_COLUMNS = [f"{place}_{score}" for place in PLACES for score in SCORES]
CELL_COLUMNS = ("cell", "workers", "learning_rate", "seed", "fovs", "diverged", *_SCORE_COLUMNS)
PAPER = {"below": 1.0, "above": 0.5}


def cell_rows(config: Config, outcomes: Mapping[Cell, Outcome]) -> list[list[object]]:
    """One row of CELL_COLUMNS for each cell; empty where there is no score."""
    fovs = config.study.lr_study.steps * config.training.batch * config.training.accumulate
    return [
        [
            cell.name,
            cell.workers,
            rate_of(config, cell.power),
            config.seed + cell.seed,
            fovs * cell.workers,
            outcome.diverged,
            *(outcome.scores.get(place, {}).get(score) for place in PLACES for score in SCORES),
        ]
        for cell, outcome in sorted(outcomes.items())
    ]


def facts_of(config: Config, studies: list[Study]) -> dict[str, Any]:
    """Everything that was found, for the JSON file."""
    return {
        "steps": config.study.lr_study.steps,
        "crossover": config.study.lr_study.crossover,
        "paper": PAPER,
        "by_score": [_facts(config, study) for study in studies],
    }


def _facts(config: Config, study: Study) -> dict[str, Any]:
    return {
        "judged_on": study.judged_on,
        "score": study.score,
        "exponents": {name: _fit_facts(fit) for name, fit in _fits(study).items()},
        "rows": [
            {
                "workers": row.workers,
                "best_rate": rate_of(config, row.optimum.power),
                "factor_error": config.study.lr_study.spacing**row.optimum.error,
                "open_end": row.optimum.open_end,
                "seed_spread": row.spread,
                "rates": [rate_of(config, int(power)) for power in row.powers],
                "scores": [None if value != value else float(value) for value in row.scores],
                "normalised": [None if value != value else float(value) for value in row.normalised],
                "seeds": [int(count) for count in row.seeds],
            }
            for row in study.rows
        ],
    }


def _fits(study: Study) -> dict[str, Fit | None]:
    return {"below": study.below, "above": study.above, "overall": study.overall}


def _fit_facts(fit: Fit | None) -> dict[str, Any] | None:
    return None if fit is None else {**fit.__dict__}


def page(config: Config, studies: list[Study], cells: int) -> str:
    """The result page: what was done, the figure, exponents by every score, best rates, the comparison."""
    chosen, settings = studies[0], config.study.lr_study
    seeds = f"{settings.seeds} seeds at the best rate" if settings.seeds > 1 else "one seed"
    parts = [
        f"# {config.run}: the best learning rate over the workers\n",
        f"{cells} trainings of {settings.steps} updates with {config.training.optimizer}, {config.training.batch} "
        f"field(s) of view a worker and update, {seeds}. "
        + ("Real Horovod ranks." if config.study.real else "Virtual workers in one process, equal to as many ranks.")
        + "\n",
        "![Score over workers and learning rate](lr_study.png)\n",
        f"Colour: {chosen.judged_on} {chosen.score}, 0 for the worst and 1 for the best rate that trained in its "
        "column.\n",
        "## Exponents\n",
        "Best rate = rate of one worker x N^exponent; 95 % intervals. The paper: 1 (linear) up to about 16, 0.5 "
        "(square root) beyond.\n",
        _exponent_table(config, studies),
        "## Best rates\n",
        f"By {chosen.judged_on} {chosen.score}.\n",
        _rate_table(config, chosen),
        "## Against the paper\n",
        _verdict(config, chosen),
        _HOW.format(log_every=settings.log_every, smoothing=settings.smoothing),
    ]
    return "\n".join(parts)


def _exponent_table(config: Config, studies: list[Study]) -> str:
    at = config.study.lr_study.crossover
    header = ("judged by", f"exponent up to {at} workers", f"from {at} on", "all")
    rows = [
        [f"{study.judged_on} {study.score}", *(_interval(fit) for fit in _fits(study).values())] for study in studies
    ]
    return markdown_table(header, rows)


def _interval(fit: Fit | None) -> str:
    return "fewer than 3 rows" if fit is None else f"{fit.exponent:.2f} ({fit.low:.2f} to {fit.high:.2f})"


def _rate_table(config: Config, study: Study) -> str:
    first = study.rows[0]
    rate_one, spacing = rate_of(config, first.optimum.power), config.study.lr_study.spacing
    rows: list[list[object]] = []
    for row in study.rows:
        rate, ratio = rate_of(config, row.optimum.power), row.workers / first.workers
        sign = -1 if study.score == "loss" else 1
        best = sign * float(max(value for value in row.scores if value == value))
        rows.append(
            [
                row.workers,
                rate,
                f"x/÷ {spacing**row.optimum.error:.2f}" + (", end of the grid" if row.optimum.open_end else ""),
                rate / rate_one,
                ratio,
                ratio**0.5,
                best,
                row.spread,
            ]
        )
    header = ("workers", "best rate", "error", "over the first row", "linear", "square root", "best score", "seeds' sd")
    return markdown_table(header, rows)


def _verdict(config: Config, study: Study) -> str:
    at = config.study.lr_study.crossover
    sentences = []
    for where, fit, paper in ((f"Up to {at} workers", study.below, 1.0), (f"From {at} on", study.above, 0.5)):
        if fit is None:
            sentences.append(f"{where}: too few rows for a fit.")
            continue
        sentences.append(against_the_paper(where, fit, paper))
    ends = [str(row.workers) for row in study.rows if row.optimum.open_end]
    if ends:
        sentences.append(f"The best rate was still at an end of the grid for {', '.join(ends)} workers: a bound only.")
    return " ".join(sentences) + "\n"


def against_the_paper(where: str, fit: Fit, paper: float) -> str:
    """A sentence on an exponent whose interval holds the paper's, holds both of its exponents, or does not."""
    inside = [value for value in PAPER.values() if fit.low <= value <= fit.high]
    meaning = f"this does not agree with the paper's {paper:g}"
    if len(inside) == len(PAPER):
        meaning = f"too wide an interval to tell linear (1) from square-root scaling (0.5); the paper has {paper:g}"
    elif paper in inside:
        meaning = f"this agrees with the paper's {paper:g}"
    return f"{where} the exponent is {_interval(fit)}: {meaning}."


_HOW = """## How it was computed

Each cell is an ordinary training. Training scores are those of curves.csv (a row every {log_every} steps), smoothed as
TensorBoard does with {smoothing:g}; validation scores are of data.validation after the last step. The best rate of a
number of workers is the vertex of a parabola through the best score and up to two neighbours on either side, over the
logarithm of the rate. Its error comes from 1000 draws of the scores with the spread between seeds. The exponent is the
slope of a weighted straight line through (log workers, log best rate); its interval uses Student's t and is widened
where the points scatter more than their errors. All cells, also those that diverged: lr_study.csv.
"""
