"""Repeated runs in one picture."""

import csv
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from ffn.cli import main
from ffn.errors import DataError
from ffn.report.repeats import repeats_of

MEASURES = ("loss", "accuracy", "precision", "recall", "f1")


def write_run(folder: Path, values: list[float], step: int = 10) -> Path:
    folder.mkdir(parents=True)
    rows = [[step * (i + 1), *[value] * len(MEASURES)] for i, value in enumerate(values)]
    text = "\n".join(",".join(map(str, row)) for row in [["fovs", *MEASURES], *rows])
    (folder / "curves.csv").write_text(text + "\n")
    return folder


def test_mean_and_deviation_of_smoothed_curves(tmp_path):
    """TensorBoard's smoothing divides by what the weights add up to: 1, then (0.9 * 1 + 2) / 1.9 for 1, 2."""
    runs = [write_run(tmp_path / name / "train", values) for name, values in (("a", [0.1, 0.2]), ("b", [0.3, 0.6]))]
    found = repeats_of([run.parent for run in runs], 0.9)
    second = [(0.9 * 0.1 + 0.2) / 1.9, (0.9 * 0.3 + 0.6) / 1.9]
    np.testing.assert_allclose(found.mean["f1"], [0.2, np.mean(second)])
    np.testing.assert_allclose(found.deviation["f1"], [np.std([0.1, 0.3], ddof=1), np.std(second, ddof=1)])
    np.testing.assert_array_equal(found.fovs, [10, 20])


def test_without_smoothing_a_curve_is_itself(tmp_path):
    runs = [write_run(tmp_path / name, values) for name, values in (("a", [0.1, 0.9]), ("b", [0.1, 0.9]))]
    found = repeats_of(runs, 0.0)
    np.testing.assert_allclose(found.mean["recall"], [0.1, 0.9])
    np.testing.assert_allclose(found.deviation["recall"], 0)


def test_runs_of_different_length_meet_where_both_are(tmp_path):
    runs = [write_run(tmp_path / "a", [0.1, 0.2, 0.3]), write_run(tmp_path / "b", [0.5, 0.6])]
    assert repeats_of(runs, 0.9).fovs.tolist() == [10, 20]


def test_what_cannot_be_compared_is_refused(tmp_path):
    a, b = write_run(tmp_path / "a", [0.1]), write_run(tmp_path / "b", [0.1], step=7)
    with pytest.raises(DataError, match="at least two"):
        repeats_of([a], 0.9)
    with pytest.raises(DataError, match="no row in common"):
        repeats_of([a, b], 0.9)
    with pytest.raises(DataError, match=r"holds no curves.csv, nor does its folder train"):
        repeats_of([a, tmp_path], 0.9)


def test_command_writes_picture_and_numbers(tmp_path, capsys):
    runs = [write_run(tmp_path / name, list(np.linspace(0.1, end, 20))) for name, end in (("a", 0.8), ("b", 0.9))]
    output = tmp_path / "out" / "repeats.png"
    assert main(["report", "repeats", *map(str, runs), "--output", str(output)]) == 0
    assert imread(output).std() > 0.02
    rows = list(csv.DictReader(output.with_suffix(".csv").open()))
    assert len(rows) == 20
    assert float(rows[-1]["accuracy_sd"]) > 0
    assert "repeats.csv" in capsys.readouterr().out


def test_report_needs_a_run(capsys):
    assert main(["report"]) == 2
    assert "--config" in capsys.readouterr().err
