"""The heat map of the learning-rate study (the paper's Figure 4)."""

import math
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ffn.config import Config
from ffn.scaling.cells import rate_of
from ffn.scaling.exponent import Fit
from ffn.scaling.lr_table import Study
from ffn.scaling.outputs import RED, save_figure


def draw_heat_map(config: Config, study: Study, path: Path) -> None:
    """Workers by learning rates; colour is the score normalised within a column, a cross a training that diverged.

    Lines: linear and square root through the best rate of the fewest workers; points: best rate of each number of
    workers with its standard error; dashed: the fits.
    """
    figure = Figure(figsize=(9.5, 6), layout="constrained")
    axes = figure.subplots()
    colours = _draw_cells(config, study, axes)
    figure.colorbar(colours, ax=axes, label=f"{study.judged_on} {study.score}, normalised within a column")
    _draw_lines(config, study, axes)
    workers = [row.workers for row in study.rows]
    axes.set_xticks([math.log2(n) for n in workers], [str(n) for n in workers])
    powers = sorted({int(power) for row in study.rows for power in row.powers})
    axes.set_yticks(powers, [f"{rate_of(config, power):.3g}" for power in powers])
    axes.set(xlabel="workers", ylabel="learning rate", ylim=(powers[0] - 0.6, powers[-1] + 0.6))
    axes.set_title(
        f"{config.run}: {study.judged_on} {study.score} after {config.study.lr_study.steps} steps", fontsize=11
    )
    axes.legend(fontsize=8, loc="upper left")
    save_figure(figure, path)


def _draw_cells(config: Config, study: Study, axes: Axes) -> Any:
    places = np.array([(math.log2(row.workers), power) for row in study.rows for power in row.powers])
    values = np.concatenate([row.normalised for row in study.rows])
    failed = np.isnan(values)
    x, y = places[~failed].T
    drawn = axes.scatter(x, y, c=values[~failed], s=900, marker="s", cmap="viridis", vmin=0, vmax=1)
    if failed.any():
        x, y = places[failed].T
        axes.scatter(x, y, s=160, marker="x", color=RED, label="diverged")
    return drawn


def _draw_lines(config: Config, study: Study, axes: Axes) -> None:
    step = math.log(config.study.lr_study.spacing)
    first, last = study.rows[0], study.rows[-1]
    ends = np.array([first.workers, last.workers], float)
    for name, exponent, style in (("linear", 1.0, "-"), ("square root", 0.5, ":")):
        heights = first.optimum.power + exponent * np.log(ends / first.workers) / step
        axes.plot(np.log2(ends), heights, style, color="black", linewidth=1.5, label=name)
    axes.errorbar(
        [math.log2(row.workers) for row in study.rows],
        [row.optimum.power for row in study.rows],
        [row.optimum.error for row in study.rows],
        fmt="o",
        color="white",
        markeredgecolor="black",
        ecolor="black",
        capsize=3,
        label="best rate, ± standard error",
    )
    crossover = config.study.lr_study.crossover
    for fit, low, high in ((study.below, ends[0], crossover), (study.above, crossover, ends[1])):
        if fit is not None:
            _draw_fit(config, fit, np.array([low, high], float), axes)


def _draw_fit(config: Config, fit: Fit, ends: np.ndarray, axes: Axes) -> None:
    step = math.log(config.study.lr_study.spacing)
    heights = [math.log(fit.rate(n) / rate_of(config, 0)) / step for n in ends]
    text = f"fit: exponent {fit.exponent:.2f} ({fit.low:.2f} to {fit.high:.2f})"
    axes.plot(np.log2(ends), heights, "--", color=RED, linewidth=1.8, label=text)
