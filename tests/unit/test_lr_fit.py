"""Best rates, exponents with their intervals, and the result page of the learning-rate study."""

import csv
import json
import math

import numpy as np
import pytest
from matplotlib.image import imread

from ffn.config import Config, parse_config
from ffn.errors import DataError
from ffn.scaling.cells import Cell, first_powers
from ffn.scaling.exponent import Fit, fit_exponent
from ffn.scaling.lr_page import against_the_paper
from ffn.scaling.lr_study import write_results
from ffn.scaling.lr_table import analyse, best_cells
from ffn.scaling.optimum import best_between, find_optimum, seed_spread
from ffn.scaling.outcomes import Outcome
from ffn.scaling.rounds import next_cells

POWERS = np.arange(-2, 3)


def study_config(tmp_path, **study) -> Config:
    region = {"image": "a.h5:image", "labels": "a.h5:labels"}
    values = {
        "run": "r",
        "results": str(tmp_path),
        "data": {"train": region, "test": region},
        "study": {"lr_study": study},
    }
    return parse_config(values)


def simulated(config: Config, best, noise: float, seed: int = 0) -> dict[Cell, Outcome]:
    """The study's cells with scores from a parabola in log rate around `best` (power by workers), and noise."""
    random = np.random.default_rng(seed)
    done: dict[Cell, Outcome] = {}
    while cells := next_cells(config.study.lr_study, done):
        for cell in cells:
            score = 0.9 - 0.02 * (cell.power - best(cell.workers)) ** 2 + random.normal() * noise
            done[cell] = Outcome(cell, False, {"training": {"accuracy": score, "loss": 1 - score}})
    return done


def broken(workers: int) -> float:
    """Linear to 16 workers, square root beyond: the paper's finding, as powers of 2."""
    return math.log2(workers) if workers <= 16 else 4 + math.log2(workers / 16) / 2


def test_vertex_between_the_rates():
    assert best_between(POWERS, 1 - 0.1 * (POWERS - 0.3) ** 2) == pytest.approx(0.3)
    assert best_between(POWERS, 1 - 0.1 * (POWERS + 1.4) ** 2) == pytest.approx(-1.4)


def test_vertex_stays_near_the_best_rate_tried():
    assert best_between(POWERS, np.array([0.5, 0.6, 0.7, 0.8, 0.9])) == 2
    assert best_between(POWERS, 1 - 0.01 * (POWERS - 9.0) ** 2) == 3
    assert best_between(POWERS, np.array([math.nan, 0.9, math.nan, math.nan, 0.1])) == -1
    assert math.isnan(best_between(POWERS, np.full(5, math.nan)))


def test_diverged_rates_do_not_count_but_bound_a_row():
    scores = np.array([0.5, 0.6, 0.7, math.nan, math.nan])
    found = find_optimum(POWERS, scores, np.full(5, 1e-6), 1)
    assert 0 <= found.power <= 1
    assert not found.open_end
    assert find_optimum(POWERS, np.array([0.5, 0.6, 0.7, 0.8, 0.9]), np.full(5, 1e-6), 1).open_end


def test_error_of_the_optimum_is_what_repetition_shows():
    random, noise, true = np.random.default_rng(0), 0.02, 1 - 0.02 * (POWERS - 0.2) ** 2
    repeated = [best_between(POWERS, true + noise * random.normal(size=5)) for _ in range(2000)]
    assert find_optimum(POWERS, true, np.full(5, noise), 1).error == pytest.approx(np.std(repeated), rel=0.15)


def test_spread_between_seeds_is_half_its_own_half_common():
    a, b, single = np.array([0.0, 2.0]), np.array([0.0, 0.0]), np.array([5.0])
    np.testing.assert_allclose(seed_spread([a, b, single]) ** 2, [(2 + 1) / 2, (0 + 1) / 2, 1])
    np.testing.assert_array_equal(seed_spread([single, single]), 0)


def test_exponent_of_points_on_a_line():
    workers = np.array([1.0, 2, 4, 8, 16])
    fit = fit_exponent(workers, 3e-3 * workers**0.75, np.full(5, 0.1))
    assert fit is not None
    assert fit.exponent == pytest.approx(0.75)
    assert fit.low < 0.75 < fit.high
    assert fit.rate(4) == pytest.approx(3e-3 * 4**0.75)
    assert fit_exponent(workers[:2], workers[:2], np.ones(2)) is None
    assert fit_exponent(workers, np.full(5, math.nan), np.ones(5)) is None


@pytest.mark.parametrize("exponent", [1.0, 0.5])
@pytest.mark.parametrize("factor", [1.0, 3.0])
def test_intervals_hold_the_true_exponent_at_least_as_often_as_they_say(exponent, factor):
    """Also where the errors are underestimated: the scatter of the points widens the interval."""
    random = np.random.default_rng(1)
    workers = 2.0 ** np.arange(8)
    errors = random.uniform(0.1, 0.4, 8)
    held = 0
    for _ in range(400):
        rates = workers**exponent * np.exp(random.normal(size=8) * errors * factor)
        fit = fit_exponent(workers, rates, errors)
        held += fit.low <= exponent <= fit.high
    assert held >= 370


@pytest.mark.slow
def test_study_recovers_the_papers_two_exponents(tmp_path):
    config = study_config(tmp_path, seeds=3)
    held = 0
    for seed in range(20):
        study = analyse(config, simulated(config, broken, 0.004, seed), "training", "accuracy")
        assert study.below.exponent == pytest.approx(1, abs=0.35)
        assert study.above.exponent == pytest.approx(0.5, abs=0.6)
        held += (study.below.low <= 1 <= study.below.high) + (study.above.low <= 0.5 <= study.above.high)
    assert held >= 36


def test_study_without_noise_is_exact(tmp_path):
    config = study_config(tmp_path, seeds=2)
    study = analyse(config, simulated(config, broken, 0.0), "training", "accuracy")
    assert study.below.exponent == pytest.approx(1, abs=1e-6)
    assert study.above.exponent == pytest.approx(0.5, abs=1e-6)
    assert study.above.points == 4
    normalised = study.rows[0].normalised
    assert (normalised.min(), normalised.max()) == (0, 1)


def test_smaller_losses_are_better(tmp_path):
    config = study_config(tmp_path)
    outcomes = simulated(config, broken, 0.0)
    by_loss, by_accuracy = (analyse(config, outcomes, "training", score) for score in ("loss", "accuracy"))
    assert best_cells(config, by_loss, outcomes) == best_cells(config, by_accuracy, outcomes)
    assert analyse(config, outcomes, "validation", "loss") is None


def test_a_rate_at_which_a_seed_diverged_is_not_the_best(tmp_path):
    config = study_config(tmp_path, workers=[1, 2], seeds=2)
    outcomes = simulated(config, lambda workers: math.log2(workers), 0.0)
    outcomes[Cell(1, 0, 1)] = Outcome(Cell(1, 0, 1), True, {})
    study = analyse(config, outcomes, "training", "accuracy")
    assert {cell.power for cell in best_cells(config, study, outcomes)[1]} != {0}


def test_a_lucky_seed_does_not_make_the_best_rate(tmp_path):
    config = study_config(tmp_path, workers=[1, 2], seeds=2)
    outcomes = simulated(config, lambda workers: math.log2(workers), 0.0)
    (lucky,) = (cell for cell in outcomes if (cell.workers, cell.power) == (1, 2))
    outcomes[lucky] = Outcome(lucky, False, {"training": {"accuracy": 0.99, "loss": 0.01}})
    study = analyse(config, outcomes, "training", "accuracy")
    assert [(cell.power, cell.seed) for cell in best_cells(config, study, outcomes)[1]] == [(0, 0), (0, 1)]


def test_results_are_written_once(tmp_path):
    config = study_config(tmp_path, extensions=0)
    outcomes = simulated(config, broken, 0.002)
    outcomes[Cell(1, 2, 0)] = Outcome(Cell(1, 2, 0), True, {})
    folder = write_results(config, outcomes)
    assert imread(folder / "lr_study.png").std() > 0.05
    found = json.loads((folder / "lr_study.json").read_text())["by_score"]
    assert [(study["judged_on"], study["score"]) for study in found] == [("training", "accuracy"), ("training", "loss")]
    assert found[0]["exponents"]["below"]["low"] < 1.2
    rows = list(csv.DictReader((folder / "lr_study.csv").open()))
    assert len(rows) == len(outcomes)
    assert [row["training_accuracy"] for row in rows if row["diverged"] == "True"] == [""]
    page = (folder / "lr_study.md").read_text()
    assert "Up to 16 workers the exponent is" in page
    assert "paper" in page
    (folder / "lr_study.png").write_bytes(b"kept")
    write_results(config, outcomes)
    assert (folder / "lr_study.png").read_bytes() == b"kept"


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (-0.5, 1.4, "too wide an interval to tell linear (1) from square-root scaling (0.5); the paper has 1"),
        (0.8, 1.2, "this agrees with the paper's 1"),
        (0.3, 0.6, "this does not agree with the paper's 1"),
        (0.1, 0.4, "this does not agree with the paper's 1"),
    ],
)
def test_the_page_does_not_take_a_wide_interval_for_agreement(low, high, words):
    assert words in against_the_paper("Up to 16 workers", Fit(0.5 * (low + high), low, high, 0.0, 5), 1.0)


def test_a_study_in_which_everything_diverged_says_so(tmp_path):
    config = study_config(tmp_path, workers=[1, 2])
    cells = [Cell(n, power, 0) for n in (1, 2) for power in first_powers(config.study.lr_study, n)]
    with pytest.raises(DataError, match="all diverged"):
        write_results(config, {cell: Outcome(cell, True, {}) for cell in cells})
