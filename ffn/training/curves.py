"""What a training run leaves to look at: curves.csv, validation.csv, timing.csv and the same for TensorBoard.

`curves.csv` (on the examples learned from) and `validation.csv` (on held-out ones) hold only what the configuration
decides, so a run that was killed and continued ends with the same files; wall-clock times are in `timing.csv`. Rows
behind the checkpoint that a run resumes from are cut off.
"""

import csv
import io
import os
from pathlib import Path

import ffn.model  # noqa: F401  (before TensorFlow)

# isort: split
import tensorflow as tf

from ffn.files import remove, write_text
from ffn.training.metrics import Measures

CURVES = (
    "step",
    "fovs",
    "loss",
    "accuracy",
    "precision",
    "recall",
    "f1",
    "moves_correct",
    "moves_missed",
    "moves_spurious",
    "skipped",
    "learning_rate",
)
VALIDATION = CURVES[:10]
TIMING = ("step", "seconds", "fovs_per_s", "outside_step")


class Curves:
    """The curves of one run's folder, written by rank 0."""

    def __init__(self, folder: Path, step: int) -> None:
        """Open the curves to go on after `step`; 0 starts them anew."""
        self._curves, self._timing = folder / "curves.csv", folder / "timing.csv"
        self._validation = folder / "validation.csv"
        for path, header in ((self._curves, CURVES), (self._timing, TIMING)):
            write_text(path, _rows_until(path, header, step))
        if self._validation.exists():
            write_text(self._validation, _rows_until(self._validation, VALIDATION, step))
        self.seconds = float(([0.0] + [float(row["seconds"]) for row in read_rows(self._timing)])[-1])
        remove(folder / "tensorboard")
        self._board = tf.summary.create_file_writer(str(folder / "tensorboard"))
        for row in read_rows(self._curves):
            self._show(int(row["step"]), {name: float(row[name]) for name in CURVES[1:]})
        for row in read_rows(self._validation) if self._validation.exists() else ():
            self._show(int(row["step"]), {f"validation/{name}": float(row[name]) for name in VALIDATION[2:]})

    def add(self, step: int, fovs: int, measures: Measures, rate: float) -> None:
        """One row of curves.csv: measures over the steps since the last row, `fovs` and `step` since the beginning."""
        values = {"fovs": fovs, **measures.as_dict(), "learning_rate": rate}
        _append(self._curves, [step, fovs, *(_text(values[name]) for name in CURVES[2:])])
        self._show(step, values)

    def add_validation(self, step: int, fovs: int, measures: Measures) -> None:
        """One row of validation.csv."""
        values = measures.as_dict()
        if not self._validation.exists():
            write_text(self._validation, ",".join(VALIDATION) + "\n")
        _append(self._validation, [step, fovs, *(_text(values[name]) for name in VALIDATION[2:])])
        self._show(step, {f"validation/{name}": values[name] for name in VALIDATION[2:]})

    def add_timing(self, step: int, seconds: float, fovs: int, inside: float) -> None:
        """One row of timing.csv: `fovs` in `seconds` since the last row, `inside` of them in the TensorFlow step."""
        self.seconds += seconds
        rate = fovs / max(seconds, 1e-9)
        outside = max(1 - inside / max(seconds, 1e-9), 0.0)
        _append(self._timing, [step, f"{self.seconds:.3f}", f"{rate:.3f}", f"{outside:.4f}"])
        self._show(step, {"fovs_per_s": rate})

    def close(self) -> None:
        """Finish the TensorBoard file."""
        self._board.close()

    def _show(self, step: int, values: dict[str, float]) -> None:
        with self._board.as_default():
            for name, value in values.items():
                tf.summary.scalar(name, value, step=step)
        self._board.flush()


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file as dictionaries."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _rows_until(path: Path, header: tuple[str, ...], step: int) -> str:
    """The file's text with only the whole rows up to `step`."""
    kept = [",".join(header)]
    if step > 0 and path.exists():
        whole = path.read_text(encoding="utf-8").rpartition("\n")[0].splitlines()[1:]
        kept += [line for line in whole if line.count(",") == len(header) - 1 and int(line.split(",")[0]) <= step]
    return "\n".join(kept) + "\n"


def _append(path: Path, values: list[object]) -> None:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(values)
    with path.open("a", encoding="utf-8") as file:
        file.write(line.getvalue())
        file.flush()
        os.fsync(file.fileno())


def _text(value: float) -> str:
    return f"{value:.9g}"
