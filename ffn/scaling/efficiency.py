"""Training efficiency: time and fields of view to a given F1 over workers (the paper's Figure 5)."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ffn.config import Config
from ffn.errors import StageError
from ffn.files import write_json, write_text
from ffn.report.curves import smoothed
from ffn.scaling.cells import Cell, rate_of
from ffn.scaling.lr_table import analyse_all, best_cells
from ffn.scaling.outcomes import read_columns, read_outcomes
from ffn.scaling.outputs import BLUE, GREEN, GREY, RED, markdown_table, save_figure, workers_axis, write_table
from ffn.scaling.paths import StudyPaths
from ffn.stages import Stage

COLUMNS = (
    "target_f1", "workers", "learning_rate", "seeds", "steps", "fovs", "step_s", "step_s_from", "seconds",
    "fov_efficiency", "time_efficiency",
)  # fmt: skip


@dataclass(frozen=True)
class Reached:
    """When one number of workers reached a target: mean steps over the seeds, nan where a seed did not reach it."""

    target: float
    workers: int
    rate: float
    seeds: int
    steps: float
    fovs: float
    step_s: float
    step_s_from: str

    @property
    def seconds(self) -> float:
        return self.steps * self.step_s


def first_step_at(steps: NDArray[np.float64], values: NDArray[np.float64], target: float) -> float:
    """The step at which a smoothed curve first reaches the target, between two rows by a straight line; nan if never.

    Args:
        steps, values: float64 [rows]; nan values are passed over.
    """
    known = np.isfinite(values)
    steps, values = steps[known], values[known]
    above = np.flatnonzero(values >= target)
    if len(above) == 0:
        return math.nan
    first = int(above[0])
    if first == 0:
        return float(steps[0])
    low, high = values[first - 1], values[first]
    part = (target - low) / (high - low)
    return float(steps[first - 1] + part * (steps[first] - steps[first - 1]))


def targets_of(config: Config, workers: int) -> list[float]:
    """The targets that this number of workers is judged at."""
    first, *others = config.study.efficiency.targets
    at = config.study.efficiency.crossover
    return ([first] if workers <= at or not others else []) + (others if workers >= at else [])


def efficiencies(reached: Sequence[Reached]) -> list[tuple[float, float]]:
    """(by FOVs, by time) for each, against the fewest workers that reached the same target; nan where not reached.

    By time: seconds x workers of the first over seconds x workers of this one.
    """
    result = []
    for one in reached:
        same = [other for other in reached if other.target == one.target and math.isfinite(other.steps)]
        base = min(same, key=lambda other: other.workers, default=one)
        by_time = base.seconds * base.workers / (one.seconds * one.workers)
        result.append((base.fovs / one.fovs, by_time))
    return result


def step_seconds(config: Config, workers: int, trained: float | None) -> tuple[float, str]:
    """Seconds of a step of this many workers, and where the number is from.

    The training itself (`trained`), if its workers were ranks; else the cost model for nodes like the one it was
    calibrated on; else the throughput measured with as many ranks; else a second, so that only steps count.
    """
    if trained is not None:
        return trained, "training"
    model = StudyPaths.of(config).cost / "cost.json"
    if model.exists():
        predicted = json.loads(model.read_text(encoding="utf-8"))["nodes_like_this"]["step_s"]
        if str(workers) in predicted:
            return float(predicted[str(workers)]), "cost model"
    measured = StudyPaths.of(config).strong / "scaling.json"
    if measured.exists():
        rows = json.loads(measured.read_text(encoding="utf-8"))["rows"]
        points = {row["ranks"]: row["step_s"] for row in rows}
        if workers in points:
            return float(points[workers]), "scaling"
    return 1.0, "assumed"


def run_efficiency(config: Config) -> Path:
    """Write plot, CSV, JSON and page from the best cells of the learning-rate study; returns their folder."""
    outcomes = read_outcomes(config)
    studies = analyse_all(config, outcomes)
    if not studies:
        raise StageError("The learning-rate study has no finished cells: run `ffn study lr` first.")
    best = best_cells(config, studies[0], outcomes)
    reached = [_reached(config, cells, target) for n, cells in best.items() for target in targets_of(config, n)]
    rows = [
        [r.target, r.workers, r.rate, r.seeds, r.steps, r.fovs, r.step_s, r.step_s_from, r.seconds, *both]
        for r, both in zip(reached, efficiencies(reached), strict=True)
    ]
    folder = StudyPaths.of(config).efficiency
    stage = Stage(folder, {"rows": [[str(value) for value in row] for row in rows]})
    with stage.locked():
        if not stage.begin():
            return folder
        write_table(folder / "efficiency.csv", COLUMNS, rows)
        known = [[None if value != value else value for value in row] for row in rows]
        write_json(folder / "efficiency.json", {"rows": [dict(zip(COLUMNS, row, strict=True)) for row in known]})
        draw_efficiency(reached, f"{config.run}: training efficiency", folder / "efficiency.png")
        write_text(folder / "efficiency.md", _page(config, known))
        stage.finish()
    return folder


def _reached(config: Config, cells: list[Cell], target: float) -> Reached:
    workers, per_step = cells[0].workers, config.training.batch * config.training.accumulate
    steps, times = [], []
    for cell in cells:
        folder = StudyPaths.of(config).cell(cell.name) / "train"
        curve = read_columns(folder / "curves.csv", ("step", "f1"))
        steps.append(first_step_at(curve["step"], smoothed(curve["f1"], config.study.lr_study.smoothing), target))
        times.append(_median_step(folder / "timing.csv"))
    mean = float(np.mean(steps))
    seconds, source = step_seconds(config, workers, float(np.mean(times)) if config.study.real else None)
    rate = rate_of(config, cells[0].power)
    return Reached(target, workers, rate, len(cells), mean, mean * workers * per_step, seconds, source)


def _median_step(timing: Path) -> float:
    """Seconds of a step: the median over the rows, so that the first, in which the graph is built, does not count."""
    rows = read_columns(timing, ("step", "seconds"))
    steps, seconds = np.diff(rows["step"], prepend=0), np.diff(rows["seconds"], prepend=0)
    return float(np.median(seconds / steps))


def draw_efficiency(reached: Sequence[Reached], title: str, path: Path) -> None:
    """Relative efficiency by fields of view and by time, a line a target."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    figure.suptitle(title, fontsize=11)
    panels: list[Axes] = list(figure.subplots(1, 2))
    both = efficiencies(reached)
    names = ("fields of view to the target, relative", "workers x time to the target, relative")
    for panel, (axes, name) in enumerate(zip(panels, names, strict=True)):
        for colour, target in zip((BLUE, RED, GREEN, GREY), sorted({r.target for r in reached}), strict=False):
            chosen = [(r.workers, pair[panel]) for r, pair in zip(reached, both, strict=True) if r.target == target]
            axes.plot(*zip(*chosen, strict=True), "o-", color=colour, label=f"F1 {target:g}")
        axes.axhline(1, linestyle="--", color=GREY)
        axes.set_title(name, fontsize=10)
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
        workers_axis(axes, sorted({r.workers for r in reached}))
    save_figure(figure, path)


def _page(config: Config, rows: list[list[object]]) -> str:
    study = config.study.lr_study
    return _PAGE.format(
        run=config.run, smoothing=study.smoothing, steps=study.steps, table=markdown_table(COLUMNS, rows)
    )


_PAGE = """# {run}: time and fields of view to a given F1

Each number of workers at its best learning rate; F1 of the training examples, smoothed {smoothing:g}. Efficiencies
are against the fewest workers that reached the same F1: by fields of view (what large batches cost in learning),
and by time (with what synchronous steps cost).

![Efficiency over workers](efficiency.png)

{table}
`step_s_from`: where the seconds of a step are from: the `training` of real ranks, the `cost model` for as many
nodes like the one measured, the `scaling` measurement with as many ranks, or `assumed`: as if every step took a
second. Empty: not reached in {steps} steps.
"""
