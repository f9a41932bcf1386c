"""The result of the learning-rate study: rows with their optima, the exponents, and the verdict."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ffn.config import Config, LrStudy
from ffn.scaling.cells import Cell, rate_of
from ffn.scaling.exponent import Fit, fit_exponent
from ffn.scaling.optimum import Optimum, find_optimum, seed_spread
from ffn.scaling.outcomes import SCORES, Outcome


@dataclass(frozen=True)
class Row:
    """All cells of one number of workers; arrays over the powers, scores larger is better, nan where diverged."""

    workers: int
    powers: NDArray[np.int64]
    scores: NDArray[np.float64]
    seeds: NDArray[np.int64]
    spread: float
    optimum: Optimum

    @property
    def normalised(self) -> NDArray[np.float64]:
        """0 for the worst rate of the row that trained, 1 for the best; nan where training diverged."""
        low, high = np.nanmin(self.scores), np.nanmax(self.scores)
        return (self.scores - low) / max(high - low, 1e-12)


@dataclass(frozen=True)
class Study:
    """Rows and fitted exponents by one score."""

    judged_on: str
    score: str
    rows: list[Row]
    below: Fit | None
    above: Fit | None
    overall: Fit | None


def analyse(config: Config, outcomes: Mapping[Cell, Outcome], judged_on: str, score: str) -> Study | None:
    """Rows and exponents by this score; None where no cell has it."""
    study = config.study.lr_study
    tables = {n: _row_scores(outcomes, n, judged_on, score) for n in study.workers}
    tables = {n: table for n, table in tables.items() if any(np.isfinite(v).all() for v in table.values())}
    if not tables:
        return None
    noise = seed_spread([_seeded(table) for table in tables.values()])
    rows = [
        _row(n, table, float(spread), config.seed) for (n, table), spread in zip(tables.items(), noise, strict=True)
    ]
    return Study(
        judged_on,
        score,
        rows,
        _fit(config, [row for row in rows if row.workers <= study.crossover]),
        _fit(config, [row for row in rows if row.workers >= study.crossover]),
        _fit(config, rows),
    )


def analyse_all(config: Config, outcomes: Mapping[Cell, Outcome]) -> list[Study]:
    """The configured score first, then all others that the cells have."""
    chosen = config.study.lr_study
    first = (chosen.judged_on, chosen.score)
    others = [(place, score) for place in ("training", "validation") for score in SCORES]
    found = [analyse(config, outcomes, *what) for what in [first, *(other for other in others if other != first)]]
    return [study for study in found if study is not None]


def best_cells(config: Config, study: Study, outcomes: Mapping[Cell, Outcome]) -> dict[int, list[Cell]]:
    """For each number of workers the cells (seeds) of the rate with the best mean score, of those with most seeds:
    a single seed is the best of a row by luck too often."""
    best = {row.workers: int(row.powers[np.nanargmax(_of_most_seeds(row))]) for row in study.rows}
    return {n: sorted(c for c in outcomes if (c.workers, c.power) == (n, power)) for n, power in best.items()}


def _of_most_seeds(row: Row) -> NDArray[np.float64]:
    usable = np.isfinite(row.scores)
    return np.where(usable & (row.seeds == row.seeds[usable].max()), row.scores, np.nan)


def _row_scores(
    outcomes: Mapping[Cell, Outcome], workers: int, judged_on: str, score: str
) -> dict[int, NDArray[np.float64]]:
    """Scores of all seeds by power, ascending."""
    cells = sorted(cell for cell in outcomes if cell.workers == workers)
    powers = sorted({cell.power for cell in cells})
    return {
        power: np.array([outcomes[cell].value(judged_on, score) for cell in cells if cell.power == power])
        for power in powers
    }


def _seeded(table: dict[int, NDArray[np.float64]]) -> NDArray[np.float64]:
    """The scores of the cell with most seeds; of several, the best."""
    finite = [values[np.isfinite(values)] for values in table.values()]
    return max((values for values in finite if len(values)), key=lambda values: (len(values), float(values.mean())))


def _row(workers: int, table: dict[int, NDArray[np.float64]], spread: float, seed: int) -> Row:
    powers = np.array(list(table), np.int64)
    # A rate at which one seed diverged is not usable, whatever the others reached.
    scores = np.array([values.mean() for values in table.values()])
    seeds = np.array([len(values) for values in table.values()], np.int64)
    errors = spread / np.sqrt(seeds)
    return Row(workers, powers, scores, seeds, spread, find_optimum(powers, scores, errors, seed))


def _fit(config: Config, rows: list[Row]) -> Fit | None:
    step = math.log(config.study.lr_study.spacing)
    return fit_exponent(
        np.array([row.workers for row in rows], np.float64),
        np.array([rate_of(config, row.optimum.power) for row in rows], np.float64),
        np.array([row.optimum.error * step for row in rows], np.float64),
    )


def expected_exponents(study: LrStudy) -> dict[str, float]:
    """The paper's finding: linear up to the crossover, square root beyond."""
    return {f"up to {study.crossover}": 1.0, f"from {study.crossover} on": 0.5}
