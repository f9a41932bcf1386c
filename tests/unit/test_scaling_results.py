"""Throughput over ranks and time to a given F1, from measurements and cells that are there."""

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread
from stopping import refused_while_locked
from tiny_training import settings

from ffn.config import parse_config
from ffn.errors import StageError
from ffn.scaling.cells import Cell
from ffn.scaling.efficiency import Reached, efficiencies, first_step_at, run_efficiency, step_seconds, targets_of
from ffn.scaling.outcomes import Outcome, cell_stage, outcome_facts
from ffn.scaling.outputs import markdown_table
from ffn.scaling.paths import StudyPaths
from ffn.scaling.strong import gather_scaling, point_settings, scaling_rows
from ffn.stages import Stage


def config_of(tmp_path: Path, **study):
    return parse_config({**settings(tmp_path, batch=1), "study": study})


def write_points(config, seconds: dict[int, float]) -> None:
    for ranks, step in seconds.items():
        for repeat in (1, 2):
            stage = Stage(StudyPaths.of(config).point(ranks, repeat), point_settings(config, ranks, repeat))
            times = [step * (0.9 if repeat == 1 else 1.1)] * 5
            stage.finish(ranks=ranks, fovs_per_step=ranks, seconds=times, ranks_here=ranks, cores_here=2)


def test_throughput_against_the_ideal_line(tmp_path):
    config = config_of(tmp_path, scaling={"ranks": [1, 2, 4], "repeats": 2})
    write_points(config, {1: 0.1, 2: 0.125, 4: 0.25})
    folder = gather_scaling(config)
    rows = {int(row["ranks"]): row for row in csv.DictReader((folder / "scaling.csv").open())}
    assert float(rows[2]["efficiency"]) == pytest.approx(0.8)
    assert float(rows[4]["ideal"]) == pytest.approx(4 * float(rows[1]["fovs_per_s"]), rel=1e-5)
    assert float(rows[1]["least"]) < float(rows[1]["fovs_per_s"]) < float(rows[1]["most"])
    assert imread(folder / "scaling.png").std() > 0.02
    assert "4 ranks of the last row shared 2 cores" in (folder / "scaling.md").read_text()
    assert json.loads((folder / "scaling.json").read_text())["rows"][0]["repeats"] == 2


def test_one_process_writes_the_result(tmp_path):
    config = config_of(tmp_path, scaling={"ranks": [1], "repeats": 2})
    write_points(config, {1: 0.1})
    refused_while_locked(StudyPaths.of(config).strong, lambda: gather_scaling(config))


def test_a_point_that_is_not_measured_is_named(tmp_path):
    config = config_of(tmp_path, scaling={"ranks": [1, 2], "repeats": 2})
    write_points(config, {1: 0.1})
    with pytest.raises(StageError, match=r"ranks-0002/repeat-1 is not measured yet.*--ranks 2 --repeat 1"):
        gather_scaling(config)


def test_step_at_which_a_curve_reaches_a_target():
    steps = np.array([10.0, 20, 30, 40])
    assert first_step_at(steps, np.array([0.0, 0.2, 0.4, 0.1]), 0.3) == 25
    assert first_step_at(steps, np.array([0.5, 0.2, 0.4, 0.1]), 0.3) == 10
    assert first_step_at(steps, np.array([np.nan, 0.0, np.nan, 0.4]), 0.2) == 30
    assert math.isnan(first_step_at(steps, np.zeros(4), 0.1))


def test_targets_are_for_few_and_for_many_workers(tmp_path):
    config = config_of(tmp_path)
    assert [targets_of(config, n) for n in (1, 32, 128)] == [[0.15], [0.15, 0.7], [0.7]]


def test_efficiency_is_against_the_fewest_workers():
    def reached(workers: int, steps: float, step_s: float) -> Reached:
        return Reached(0.15, workers, 1e-3, 1, steps, steps * workers, step_s, "scaling")

    found = efficiencies([reached(1, 100, 1.0), reached(4, 50, 1.25), reached(8, math.nan, 1.0)])
    assert found[0] == (1, 1)
    assert found[1] == (0.5, pytest.approx(100 / (50 * 1.25 * 4)))
    assert all(math.isnan(value) for value in found[2])


def test_seconds_of_a_step_come_from_the_best_source_there_is(tmp_path):
    config = config_of(tmp_path, scaling={"ranks": [1, 2], "repeats": 2})
    assert step_seconds(config, 2, None) == (1.0, "assumed")
    write_points(config, {1: 0.1, 2: 0.125})
    gather_scaling(config)
    assert step_seconds(config, 2, None) == (pytest.approx(0.125), "scaling")
    model = StudyPaths.of(config).cost / "cost.json"
    model.parent.mkdir(parents=True)
    model.write_text(json.dumps({"nodes_like_this": {"step_s": {"2": 0.2}}}))
    assert step_seconds(config, 2, None) == (0.2, "cost model")
    assert step_seconds(config, 1, None) == (pytest.approx(0.1), "scaling")
    assert step_seconds(config, 2, 0.3) == (0.3, "training")


def test_time_to_f1_from_cells(tmp_path):
    study = {"workers": [1, 2], "rates": 3, "seeds": 1, "steps": 40, "log_every": 10, "smoothing": 0.0}
    config = config_of(tmp_path, lr_study=study, efficiency={"targets": [0.3]})
    with pytest.raises(StageError, match="run `ffn study lr` first"):
        run_efficiency(config)
    for workers, reached in ((1, 40), (2, 30)):
        for power in (-1, 0, 1):
            cell = Cell(workers, power, 0)
            stage = cell_stage(config, cell)
            rows = [f"{step},{0.3 * step / reached}" for step in (10, 20, 30, 40)]
            (stage.folder / "train").mkdir(parents=True)
            (stage.folder / "train" / "curves.csv").write_text("\n".join(["step,f1", *rows]) + "\n")
            times = [f"{step},{8 + 0.5 * step}" for step in (10, 20, 30, 40)]  # 8 s of building the graph first
            (stage.folder / "train" / "timing.csv").write_text("\n".join(["step,seconds", *times]) + "\n")
            stage.finish(**outcome_facts(Outcome(cell, False, {"training": {"accuracy": 0.5 - 0.1 * abs(power)}})))
    folder = run_efficiency(config)
    one, two = csv.DictReader((folder / "efficiency.csv").open())
    assert [float(row["steps"]) for row in (one, two)] == [pytest.approx(40), pytest.approx(30)]
    assert float(two["fov_efficiency"]) == pytest.approx(40 / 60)
    assert two["step_s_from"] == "assumed"
    assert imread(folder / "efficiency.png").std() > 0.02
    assert "not reached in 40 steps" in (folder / "efficiency.md").read_text()


def test_rows_of_a_single_point_are_ideal(tmp_path):
    from ffn.scaling.strong import Throughput

    (row,) = scaling_rows([Throughput(4, np.array([8.0, 12.0]), 0.4)])
    assert row[:6] == [4, 10.0, 8.0, 12.0, 10.0, 1.0]


def test_numbers_in_tables_are_plain() -> None:
    row = [1024, 0.7784, 2255.6, 1e-5, math.nan, None, "ring"]
    assert markdown_table(list("abcdefg"), [row]).splitlines()[-1] == "| 1024 | 0.778 | 2256 | 1e-05 | nan |  | ring |"
