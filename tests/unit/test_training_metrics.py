import math

import numpy as np

from ffn.model.logits import logit
from ffn.training.metrics import Measures, Tally


def test_voxels_are_judged_at_logit_of_point_nine_against_labels_over_one_half() -> None:
    canvas = np.array([[[logit(0.9), logit(0.89), logit(0.95), logit(0.05), logit(0.05)]]], np.float32)
    labels = np.array([[[0.95, 0.95, 0.05, 0.05, 0.05]]], np.float32)
    tally = Tally()
    tally.count_voxels(canvas, labels)
    assert [tally[name] for name in ("true_positive", "false_negative", "false_positive", "true_negative")] == [
        1,
        1,
        1,
        2,
    ]
    measures = Measures.of(tally)
    assert (measures.accuracy, measures.precision, measures.recall, measures.f1) == (0.6, 0.5, 0.5, 0.5)


def test_tallies_add_up() -> None:
    random = np.random.default_rng(0)
    parts, whole = [Tally(), Tally()], Tally()
    for number in range(6):
        canvas = random.normal(2, 2, (5, 5, 5)).astype(np.float32)
        labels = random.choice([0.05, 0.95], (5, 5, 5)).astype(np.float32)
        for tally in (parts[number % 2], whole):
            tally.count_voxels(canvas, labels)
            tally.count_move(wanted=number % 2 == 0, executed=number % 3 == 0)
            tally.count_loss(float(number))
    assert Measures.of(Tally(parts[0].values + parts[1].values)) == Measures.of(whole)
    assert whole["moves_correct"] + whole["moves_missed"] + whole["moves_spurious"] == 4
    assert Measures.of(whole).loss == 2.5


def test_losses_weigh_by_their_fields_of_view() -> None:
    tally = Tally()
    tally.count_loss(1.0)
    tally.count_loss(4.0, fovs=2)
    assert Measures.of(tally).loss == 3.0


def test_f1_is_the_harmonic_mean_and_zero_without_a_hit() -> None:
    tally = Tally()
    tally.values[2:6] = 30, 10, 60, 900
    measures = Measures.of(tally)
    assert math.isclose(measures.f1, 2 * 0.75 * (1 / 3) / (0.75 + 1 / 3))
    tally.values[2] = 0
    assert Measures.of(tally).f1 == 0


def test_measures_of_nothing_are_unknown() -> None:
    measures = Measures.of(Tally()).as_dict()
    assert measures.pop("skipped") == 0
    assert all(math.isnan(value) for value in measures.values())
