"""Training curves over the fields of view seen, as measured and smoothed."""

import csv
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ffn.errors import DataError
from ffn.files import atomic_path

MEASURES = {"loss": "loss", "accuracy": "accuracy", "precision": "precision", "recall": "recall", "f1": "F1"}
SMOOTHING = 0.9
_COLOUR = "#1f5fa8"
_HELD_OUT = "#c2571a"


def read_curves(path: Path) -> dict[str, NDArray[np.float64]]:
    """`fovs` and MEASURES from curves.csv, float64 [rows] each. Raises DataError if a column is missing."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    names = ["fovs", *MEASURES]
    absent = [name for name in names if rows and name not in rows[0]]
    if absent or not rows:
        raise DataError(f"{path} has no {'column ' + ', '.join(absent) if absent else 'rows'}; run `ffn train` anew.")
    return {name: np.array([float(row[name]) for row in rows]) for name in names}


def smoothed(values: NDArray[np.float64], factor: float = SMOOTHING) -> NDArray[np.float64]:
    """Exponential moving average that starts without bias, as TensorBoard shows it; NaN stays and does not count.

    Args:
        values: float64 [n].
        factor: weight of the past, 0 to below 1.
    """
    result = np.full(len(values), np.nan)
    mean = weight = 0.0
    for index, value in enumerate(values):
        if np.isnan(value):
            continue
        mean = factor * mean + (1 - factor) * float(value)
        weight = factor * weight + (1 - factor)
        result[index] = mean / weight
    return result


def draw_curves(
    curves: dict[str, NDArray[np.float64]],
    title: str,
    path: Path,
    held_out: dict[str, NDArray[np.float64]] | None = None,
) -> None:
    """Write a PNG with a panel a measure: as measured and smoothed, and the judgements on held-out examples, if any."""
    figure = Figure(figsize=(15, 3.4), layout="constrained")
    figure.suptitle(title, fontsize=11)
    for axes, (name, label) in zip(figure.subplots(1, len(MEASURES)), MEASURES.items(), strict=True):
        axes.plot(curves["fovs"], curves[name], color=_COLOUR, alpha=0.3, linewidth=1)
        axes.plot(curves["fovs"], smoothed(curves[name]), color=_COLOUR, linewidth=2, label="learned from")
        if held_out is not None:
            axes.plot(held_out["fovs"], held_out[name], color=_HELD_OUT, marker=".", linewidth=1.2, label="held out")
            axes.legend(fontsize=8)
        axes.set(title=label, xlabel="fields of view")
        axes.ticklabel_format(axis="x", style="sci", scilimits=(-3, 4))
        axes.set_ylim(bottom=0, top=None if name == "loss" else 1)
        axes.grid(alpha=0.3)
        if np.isnan(curves[name]).all():
            axes.text(0.5, 0.5, "no finished example yet", transform=axes.transAxes, ha="center", fontsize=8)
    with atomic_path(path) as partial:
        figure.savefig(partial, format="png", dpi=110, metadata={"Software": None})
