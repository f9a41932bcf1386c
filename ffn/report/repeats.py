"""Repeated runs in one picture: the mean, and a band of one standard deviation (the paper's Figure 6).

Each run's curve is smoothed first, as TensorBoard shows it, then mean and deviation are taken over the runs.
"""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ffn.errors import DataError
from ffn.files import atomic_path, write_text
from ffn.report.curves import read_curves, smoothed

SHOWN = {"accuracy": "accuracy", "f1": "F1", "precision": "precision", "recall": "recall"}
_COLOUR = "#1f5fa8"


@dataclass(frozen=True)
class Repeats:
    """Smoothed curves of repeated runs over the fields of view that all have seen.

    `fovs` is float64 [rows]; `mean` and `deviation` (of the runs, n - 1) are float64 [rows] by measure, nan where a
    run has not finished an example yet.
    """

    runs: int
    fovs: NDArray[np.float64]
    mean: dict[str, NDArray[np.float64]]
    deviation: dict[str, NDArray[np.float64]]


def curves_file(run: Path) -> Path:
    """curves.csv of a run: in results/<run>/train or in the folder itself. Raises DataError where there is none."""
    found = [path for path in (run / "curves.csv", run / "train" / "curves.csv", run) if path.is_file()]
    if not found:
        raise DataError(f"{run} holds no curves.csv, nor does its folder train: name folders that `ffn train` wrote.")
    return found[0]


def repeats_of(runs: Sequence[Path], smoothing: float) -> Repeats:
    """Mean and deviation over two or more runs, at the rows (fields of view) that they have in common.

    Raises DataError with fewer runs, or where the runs have no row in common.
    """
    if len(runs) < 2:
        raise DataError(f"{len(runs)} run given: a mean and its deviation need at least two.")
    curves = [read_curves(curves_file(run)) for run in runs]
    common = sorted(set.intersection(*(set(curve["fovs"].tolist()) for curve in curves)))
    if not common:
        raise DataError("The runs have no row in common: train them with the same workers, batch and log_every.")
    mean, deviation = {}, {}
    for name in SHOWN:
        rows = np.array([smoothed(c[name], smoothing)[np.isin(c["fovs"], common)] for c in curves])
        mean[name], deviation[name] = rows.mean(axis=0), rows.std(axis=0, ddof=1)
    return Repeats(len(runs), np.array(common), mean, deviation)


def report_repeats(runs: Sequence[Path], output: Path, smoothing: float) -> Path:
    """Write the picture to `output` and its numbers beside it, as CSV; returns the CSV's path."""
    repeats = repeats_of(runs, smoothing)
    table = output.with_suffix(".csv")
    write_text(table, table_of(repeats))
    draw_repeats(repeats, smoothing, output)
    return table


def table_of(repeats: Repeats) -> str:
    """The numbers of the picture as CSV: fovs, then mean and standard deviation of each measure."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["fovs", *(f"{name}_{part}" for name in SHOWN for part in ("mean", "sd"))])
    columns = [values for name in SHOWN for values in (repeats.mean[name], repeats.deviation[name])]
    for row in zip(repeats.fovs, *columns, strict=True):
        writer.writerow([f"{value:.9g}" for value in row])
    return text.getvalue()


def draw_repeats(repeats: Repeats, smoothing: float, path: Path) -> None:
    """Write a PNG with a panel a measure."""
    figure = Figure(figsize=(13, 3.4), layout="constrained")
    figure.suptitle(f"mean of {repeats.runs} runs, ± 1 standard deviation, smoothed {smoothing:g}", fontsize=11)
    for axes, (name, label) in zip(figure.subplots(1, len(SHOWN)), SHOWN.items(), strict=True):
        mean, deviation = repeats.mean[name], repeats.deviation[name]
        axes.fill_between(repeats.fovs, mean - deviation, mean + deviation, color=_COLOUR, alpha=0.25, linewidth=0)
        axes.plot(repeats.fovs, mean, color=_COLOUR, linewidth=2)
        axes.set(title=label, xlabel="fields of view", ylim=(0, 1))
        axes.ticklabel_format(axis="x", style="sci", scilimits=(-3, 4))
        axes.grid(alpha=0.3)
    with atomic_path(path) as partial:
        figure.savefig(partial, format="png", dpi=110, metadata={"Software": None})
