"""Cells of the learning-rate study: grid, names, configurations, and which come next."""

import json
import math
from pathlib import Path

import pytest
from tiny_training import settings

from ffn.config import LrStudy, parse_config
from ffn.errors import ConfigError, StageError
from ffn.scaling.cells import Cell, cell_config, first_powers, rate_of
from ffn.scaling.outcomes import Outcome, cell_stage, last_scores, outcome_facts, read_outcome, read_outcomes
from ffn.scaling.paths import StudyPaths
from ffn.scaling.rounds import best_power, most_rounds, next_cells, planned_cells, row_powers

STUDY = LrStudy(workers=[1, 16, 128], seeds=3, extensions=2)


def outcome(cell: Cell, score: float) -> Outcome:
    if math.isnan(score):
        return Outcome(cell, True, {})
    return Outcome(cell, False, {"training": {"accuracy": score, "f1": score, "loss": 1 - score}})


def trained(study: LrStudy, peak: dict[int, float]) -> dict[Cell, Outcome]:
    """All cells that the study asks for, with scores that fall off from `peak` (power by workers)."""
    done: dict[Cell, Outcome] = {}
    for _ in range(most_rounds(study)):
        for cell in next_cells(study, done):
            done[cell] = outcome(cell, 0.9 - 0.01 * (cell.power - peak[cell.workers]) ** 2)
    return done


@pytest.mark.parametrize("cell", [Cell(1, -3, 0), Cell(128, 0, 2), Cell(16, 12, 1), Cell(20_000, 101, 10)])
def test_names_go_both_ways(cell):
    assert Cell.parse(cell.name) == cell


def test_other_names_are_refused():
    with pytest.raises(ConfigError, match="'w16' is not the name of a cell; expected one such as w0016-p03-s0"):
        Cell.parse("w16")


def test_rows_lie_on_one_grid_around_three_quarters(tmp_path):
    config = parse_config(settings(tmp_path, learning_rate=1e-3))
    rows = {n: first_powers(STUDY, n) for n in (1, 2, 16, 128)}
    assert rows[1] == [-2, -1, 0, 1, 2]
    assert rows[16] == [1, 2, 3, 4, 5]
    assert all(len(row) == 5 and row == list(range(row[0], row[0] + 5)) for row in rows.values())
    linear, root = math.log2(16), math.log2(16) / 2
    assert {linear, root} <= set(rows[16])
    assert rate_of(config, 3) == pytest.approx(8e-3)


def test_a_cell_is_the_run_with_other_workers_and_rate(tmp_path):
    values = settings(tmp_path, rate_scaling="linear", learning_rate=1e-3)
    values["study"] = {"lr_study": {"steps": 77, "log_every": 7}}
    config = parse_config(values)
    cell = cell_config(config, Cell(16, 3, 2))
    training = cell.training
    assert (training.virtual_workers, training.ranks, training.steps, training.log_every) == (16, 1, 77, 7)
    assert training.learning_rate == pytest.approx(8e-3)
    assert training.rate_scaling == "none"
    assert cell.seed == config.seed + 2
    assert cell.network == config.network
    assert cell.training.batch == config.training.batch
    other = cell_config(config, Cell(16, 3, 0))
    assert (other.results, other.run) != (cell.results, cell.run)
    assert Path(cell.results).is_relative_to(Path(config.results) / config.run)


def test_real_cells_have_ranks(tmp_path):
    values = settings(tmp_path)
    values["study"] = {"real": True}
    training = cell_config(parse_config(values), Cell(16, 3, 0)).training
    assert (training.ranks, training.virtual_workers) == (16, 1)


def test_all_seeds_learn_from_the_runs_own_synthetic_volume(tmp_path):
    values = settings(tmp_path)
    values["data"] = {"train": {"image": "synthetic", "labels": "synthetic"}, "test": {"image": "synthetic"}}
    config = parse_config(values)
    volumes = {cell_config(config, Cell(2, 0, seed)).data.train.image for seed in (0, 1)}
    assert volumes == {f"{tmp_path}/results/tiny/synth/volume.h5:image"}


def test_first_look_then_seeds_at_the_best():
    peak = {1: 0, 16: 3, 128: 6}
    first = next_cells(STUDY, {})
    assert len(first) == 15
    assert {cell.seed for cell in first} == {0}
    done = {cell: outcome(cell, 0.9 - 0.01 * (cell.power - peak[cell.workers]) ** 2) for cell in first}
    more = next_cells(STUDY, done)
    assert sorted(more) == sorted(Cell(n, power, seed) for n, power in peak.items() for seed in (1, 2))
    done |= {cell: outcome(cell, 0.5) for cell in more}
    assert next_cells(STUDY, done) == []
    assert len(planned_cells(parse_config({**_plain(), "study": {"lr_study": STUDY.model_dump()}}))) == len(done)


def _plain() -> dict:
    return {"run": "r", "data": {"train": {"image": "a", "labels": "b"}, "test": {"image": "a"}}}


def test_neighbours_get_seeds_too_if_asked():
    study = STUDY.model_copy(update={"seeded_rates": 3})
    done = trained(study, {1: 0, 16: 3, 128: 6})
    assert {cell.power for cell in done if cell.workers == 16 and cell.seed == 2} == {2, 3, 4}


def test_a_best_rate_at_the_end_is_looked_beyond():
    study = STUDY.model_copy(update={"extensions": 3})
    done = trained(study, {1: 4, 16: -1, 128: 6})
    assert row_powers(study, 1, done) == [-2, -1, 0, 1, 2, 3, 4, 5]
    assert row_powers(study, 16, done) == [-2, -1, 0, 1, 2, 3, 4, 5]
    assert next_cells(study, done) == []


def test_looking_beyond_has_an_end():
    done = trained(STUDY, {1: 40, 16: 3, 128: 6})
    assert row_powers(STUDY, 1, done) == [-2, -1, 0, 1, 2, 3, 4]
    assert next_cells(STUDY, done) == []


def test_divergence_bounds_a_row():
    cells = next_cells(STUDY, {})
    done = {cell: outcome(cell, math.nan if cell.power > 1 else 0.1 * cell.power + 0.5) for cell in cells}
    assert row_powers(STUDY, 1, done) == [-2, -1, 0, 1, 2]
    assert row_powers(STUDY, 128, done)[0] < first_powers(STUDY, 128)[0]  # all diverged: smaller rates are tried
    assert best_power({0: math.nan, 1: 0.3, 2: 0.3}) == 1
    assert best_power({0: math.nan}) is None


def test_outcomes_are_kept_with_their_settings(tmp_path):
    values = settings(tmp_path)
    config, cell = parse_config(values), Cell(2, -1, 1)
    assert read_outcome(config, cell) is None
    kept = outcome(cell, 0.75)
    cell_stage(config, cell).finish(**outcome_facts(kept))
    assert read_outcome(config, cell) == kept
    assert read_outcomes(config) == {cell: kept}
    study = config.study.lr_study
    assert kept.score(study) == 0.75
    assert kept.score(study.model_copy(update={"score": "loss"})) == -0.25
    other = parse_config(settings(tmp_path, microbatch=3))
    assert read_outcomes(other) == {cell: kept}
    other = parse_config({**values, "study": {"lr_study": {"steps": 99}}})
    with pytest.raises(StageError, match=r"training.steps: there 10000, now 99"):
        read_outcomes(other)


def test_scores_are_the_last_ones_smoothed(tmp_path):
    rows = ["step,fovs,loss,accuracy,f1", "1,1,1.0,nan,nan", "2,2,2.0,0.5,nan", "3,3,4.0,1.0,nan"]
    (tmp_path / "curves.csv").write_text("\n".join(rows) + "\n")
    (tmp_path / "validation.csv").write_text("step,fovs,loss,accuracy,f1\n3,3,0.25,0.875,0.5\n")
    scores = last_scores(tmp_path, 0.9)
    assert scores["training"]["loss"] == pytest.approx((0.81 * 0.1 + 0.9 * 0.2 + 0.4) / 0.271)
    assert scores["training"]["accuracy"] == pytest.approx((0.9 * 0.5 + 1.0) / 1.9)
    assert "f1" not in scores["training"]
    assert scores["validation"] == {"loss": 0.25, "accuracy": 0.875, "f1": 0.5}
    json.dumps(scores, allow_nan=False)


def test_paths_stay_in_the_run(tmp_path):
    config = parse_config(settings(tmp_path))
    paths = StudyPaths.of(config)
    assert paths.cell("w0002-m01-s1").is_relative_to(tmp_path / "results" / "tiny" / "scaling")
    assert paths.point(2, 1) != paths.point(2, 2)


@pytest.mark.parametrize(
    ("study", "problem"),
    [
        ({"lr_study": {"workers": [4, 2]}}, "workers must be ascending"),
        ({"lr_study": {"steps": 10, "log_every": 20}}, "log_every 20 must not exceed lr_study.steps 10"),
        ({"lr_study": {"rates": 2}}, "study.lr_study.rates is 2"),
        ({"lr_study": {"judged_on": "validation"}}, "judged_on is validation, but data.validation is empty"),
        ({"efficiency": {"targets": [0.7, 0.15]}}, "targets must be ascending"),
        ({"scaling": {"ranks": []}}, "study.scaling.ranks"),
    ],
)
def test_impossible_studies_are_refused(tmp_path, study, problem):
    with pytest.raises(ConfigError, match=problem):
        parse_config({**settings(tmp_path), "study": study})
