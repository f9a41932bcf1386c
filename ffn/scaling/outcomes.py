"""What a cell of the learning-rate study came to: its last scores, or that it diverged."""

import csv
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ffn.config import Config, LrStudy
from ffn.errors import DataError
from ffn.scaling.cells import Cell, cell_config, cell_settings
from ffn.scaling.paths import StudyPaths
from ffn.stages import Stage

SCORES = ("accuracy", "f1", "loss")


@dataclass(frozen=True)
class Outcome:
    """Last scores by where they were judged (`training`, smoothed; `validation`) and name; none where it diverged."""

    cell: Cell
    diverged: bool
    scores: Mapping[str, Mapping[str, float]]

    def score(self, study: LrStudy) -> float:
        """The configured score, larger is better (the loss with its sign turned); nan where there is none."""
        return self.value(study.judged_on, study.score)

    def value(self, judged_on: str, score: str) -> float:
        value = self.scores.get(judged_on, {}).get(score, math.nan)
        return -value if score == "loss" else value


def read_columns(path: Path, names: tuple[str, ...]) -> dict[str, NDArray[np.float64]]:
    """Columns of a CSV file, float64 [rows] each. Raises DataError where one is missing."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    absent = [name for name in names if rows and name not in rows[0]]
    if absent or not rows:
        raise DataError(f"{path} has no {'column ' + ', '.join(absent) if absent else 'rows'}.")
    return {name: np.array([float(row[name]) for row in rows]) for name in names}


def last_scores(folder: Path, smoothing: float) -> dict[str, dict[str, float]]:
    """Scores after the last step of the training in `folder`, by where they were judged; only finite ones."""
    from ffn.report.curves import smoothed  # Matplotlib takes a third of a second to load

    found = {"training": {k: _last(smoothed(v, smoothing)) for k, v in _curves(folder / "curves.csv").items()}}
    if (folder / "validation.csv").exists():
        found["validation"] = {name: _last(values) for name, values in _curves(folder / "validation.csv").items()}
    return {place: {k: v for k, v in scores.items() if math.isfinite(v)} for place, scores in found.items()}


def _curves(path: Path) -> dict[str, NDArray[np.float64]]:
    return read_columns(path, SCORES)


def _last(values: NDArray[np.float64]) -> float:
    known = values[np.isfinite(values)]
    return float(known[-1]) if len(known) else math.nan


def cell_stage(config: Config, cell: Cell) -> Stage:
    """The stage of one cell; its done-marker's facts are the outcome."""
    return Stage(StudyPaths.of(config).cell(cell.name), cell_settings(cell_config(config, cell)))


def outcome_facts(outcome: Outcome) -> dict[str, Any]:
    """An outcome as the facts of a done-marker."""
    return {"diverged": outcome.diverged, "scores": outcome.scores}


def read_outcome(config: Config, cell: Cell) -> Outcome | None:
    """A cell's outcome, None while it is not done. Raises StageError if it belongs to another configuration."""
    stage = cell_stage(config, cell)
    if not stage.is_done():
        return None
    facts = json.loads(stage.done_marker.read_text(encoding="utf-8"))["facts"]
    return Outcome(cell, facts["diverged"], facts["scores"])


def read_outcomes(config: Config) -> dict[Cell, Outcome]:
    """All finished cells of a study that are there."""
    folder = StudyPaths.of(config).cells
    names = sorted(path.parent.name for path in folder.glob("w*/done.json"))
    found = [read_outcome(config, Cell.parse(name)) for name in names]
    return {outcome.cell: outcome for outcome in found if outcome is not None}
