"""How well training goes: counts that add up over examples, steps and ranks, and the measures made from them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ffn.model.logits import logit

PREDICTED_LOGIT = logit(0.9)
FIELDS = (
    "steps",
    "loss",
    "true_positive",
    "false_positive",
    "false_negative",
    "true_negative",
    "moves_correct",
    "moves_missed",
    "moves_spurious",
    "skipped",
)


class Tally:
    """Counts since the last row of the curves, on one rank. `values` is float64, one number for each of FIELDS."""

    def __init__(self, values: NDArray[np.float64] | None = None) -> None:
        self.values = np.zeros(len(FIELDS)) if values is None else np.array(values, np.float64)

    @classmethod
    def merged(cls, tallies: "Sequence[Tally]", ranks: int) -> "Tally":
        """What former ranks have counted, for the first of `ranks` to go on with; each rank counts every step once."""
        values = np.sum([tally.values for tally in tallies], axis=0)
        values[:2] *= ranks / len(tallies)
        return cls(values)

    def __getitem__(self, field: str) -> float:
        return float(self.values[FIELDS.index(field)])

    def count_step(self, loss: float) -> None:
        """One update of the weights, or one pass of a judgement, with this mean loss."""
        self.values[:2] += 1, loss

    def count_skip(self) -> None:
        """One update that was left out because loss or gradients were no numbers."""
        self.values[9] += 1

    def count_move(self, wanted: bool, executed: bool) -> None:
        """One decision of a movement policy; a move neither wanted nor executed is not counted."""
        if wanted and executed:
            self.values[6] += 1
        elif wanted:
            self.values[7] += 1
        elif executed:
            self.values[8] += 1

    def count_voxels(self, canvas: NDArray[np.float32], labels: NDArray[np.float32]) -> None:
        """A finished example: its canvas (logits) is judged at 0.9 against its soft labels at 0.5, where known."""
        known = labels >= 0
        predicted, true = (canvas >= PREDICTED_LOGIT) & known, labels > 0.5
        both, any_predicted, any_true, all_known = (
            int(np.count_nonzero(mask)) for mask in (predicted & true, predicted, true, known)
        )
        misses = any_true - both
        self.values[2:6] += both, any_predicted - both, misses, all_known - any_predicted - misses


@dataclass(frozen=True)
class Measures:
    """What one row of the curves says; nan where no example was finished, or no move decided."""

    loss: float
    accuracy: float
    precision: float
    recall: float
    f1: float
    moves_correct: float
    moves_missed: float
    moves_spurious: float
    skipped: float

    @classmethod
    def of(cls, tally: Tally) -> "Measures":
        """Measures of a tally summed over the ranks.

        precision = TP / (TP + FP), recall = TP / (TP + FN), F1 their harmonic mean, 0 where a denominator is 0; the
        moves as fractions of correct + missed + spurious.
        """
        hits, wrong, missed = tally["true_positive"], tally["false_positive"], tally["false_negative"]
        right = hits + tally["true_negative"]
        voxels = right + wrong + missed
        precision, recall = hits / max(hits + wrong, 1), hits / max(hits + missed, 1)
        f1 = 2 * precision * recall / (precision + recall) if hits else 0.0
        moves = tally["moves_correct"] + tally["moves_missed"] + tally["moves_spurious"]

        def known(value: float, count: float) -> float:
            return value if count else math.nan

        return cls(
            loss=known(tally["loss"] / max(tally["steps"], 1), tally["steps"]),
            accuracy=known(right / max(voxels, 1), voxels),
            precision=known(precision, voxels),
            recall=known(recall, voxels),
            f1=known(f1, voxels),
            moves_correct=known(tally["moves_correct"] / max(moves, 1), moves),
            moves_missed=known(tally["moves_missed"] / max(moves, 1), moves),
            moves_spurious=known(tally["moves_spurious"] / max(moves, 1), moves),
            skipped=tally["skipped"],
        )

    def as_dict(self) -> dict[str, Any]:
        """Name to value, in the order of the columns."""
        return dict(self.__dict__)
