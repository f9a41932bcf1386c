"""Which cells of the learning-rate study come next, from those that are done.

Each row (number of workers) goes its own way: a first look; while its best rate is at an end, one more rate there;
then the other seeds at the best rate. What comes next depends on finished cells only, so a study that was killed, or
whose cells are jobs of a cluster, finds the same cells.
"""

import math
from collections.abc import Mapping

from ffn.config import Config, LrStudy
from ffn.scaling.cells import Cell, first_powers
from ffn.scaling.outcomes import Outcome


def next_cells(study: LrStudy, outcomes: Mapping[Cell, Outcome]) -> list[Cell]:
    """Cells that can be trained now, rows with few workers first; none when the study is complete."""
    return [cell for workers in study.workers for cell in _next_of_row(study, workers, outcomes)]


def most_rounds(study: LrStudy) -> int:
    """Rounds after which `next_cells` has nothing more: first look, extensions, seeds."""
    return 2 + study.extensions if study.seeds > 1 else 1 + study.extensions


def row_powers(study: LrStudy, workers: int, outcomes: Mapping[Cell, Outcome]) -> list[int]:
    """Powers of a row that are to be looked at, as far as known, ascending."""
    powers = first_powers(study, workers)
    for _ in range(study.extensions):
        scores = _scores(study, workers, powers, outcomes)
        if scores is None:
            break
        best = best_power(scores)
        if best is None or best == powers[0]:
            powers = [powers[0] - 1, *powers]
        elif best == powers[-1]:
            powers = [*powers, powers[-1] + 1]
        else:
            break
    return powers


def best_power(scores: Mapping[int, float]) -> int | None:
    """The power with the best score; the smallest of equals; None where no cell has any."""
    known = {power: score for power, score in scores.items() if math.isfinite(score)}
    return max(known, key=lambda power: (known[power], -power)) if known else None


def planned_cells(config: Config) -> list[Cell]:
    """The first look and as many cells with other seeds as there will be, for a forecast of the work."""
    study = config.study.lr_study
    first = [Cell(n, power, 0) for n in study.workers for power in first_powers(study, n)]
    half = study.seeded_rates // 2
    more = [
        Cell(n, first_powers(study, n)[study.rates // 2] + offset, seed)
        for n in study.workers
        for seed in range(1, study.seeds)
        for offset in range(-half, half + 1)
    ]
    return first + more


def _next_of_row(study: LrStudy, workers: int, outcomes: Mapping[Cell, Outcome]) -> list[Cell]:
    powers = row_powers(study, workers, outcomes)
    missing = [cell for power in powers if (cell := Cell(workers, power, 0)) not in outcomes]
    if missing:
        return missing
    best = best_power(_scores(study, workers, powers, outcomes) or {})
    if best is None:
        return []
    near = [power for power in powers if abs(power - best) <= study.seeded_rates // 2]
    cells = [Cell(workers, power, seed) for seed in range(1, study.seeds) for power in near]
    return [cell for cell in cells if cell not in outcomes]


def _scores(
    study: LrStudy, workers: int, powers: list[int], outcomes: Mapping[Cell, Outcome]
) -> dict[int, float] | None:
    """Scores of the first seed by power; None while one of them is not done."""
    cells = [Cell(workers, power, 0) for power in powers]
    if any(cell not in outcomes for cell in cells):
        return None
    return {cell.power: outcomes[cell].score(study) for cell in cells}
