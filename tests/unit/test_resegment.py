"""Filling a pair again, and the merge rule, on rods whose answer is known."""

from dataclasses import astuple, replace

import numpy as np
import pytest
from flooding import ConnectedNetwork, options

from ffn.agglomeration.flood import flood
from ffn.agglomeration.resegment import Resegmentation, Scene, resegment
from ffn.agglomeration.score import Scores, Verdict, scores_of, verdict_of, withheld
from ffn.config import Agglomeration, Radii
from ffn.model.logits import logit

SHAPE = (21, 21, 41)
OPTIONS = options(fov=(9, 9, 9), deltas=(2, 2, 2))
SETTINGS = Agglomeration()
RADII = Radii(filled=(10, 10, 20), compared=(8, 8, 12), excluded=(2, 2, 2))
LEVELS = logit(0.8), logit(0.5)


def rod(gap=0):
    """A bright rod along x with dark voxels across it at x = 20, and the labels 1 and 2 of its halves."""
    image = np.full(SHAPE, -1, np.float32)
    image[7:14, 7:14] = 1
    image[:, :, 20 : 20 + gap] = -1
    labels = np.zeros(SHAPE, np.uint64)
    labels[7:14, 7:14, :20], labels[7:14, 7:14, 20 + gap :] = 1, 2
    return Scene(image, labels, (10, 10, 20), (10.0, 10.0, 10.0))


def answered(asking, network):
    """The result of a generator whose looks a network answers."""
    try:
        look = next(asking)
        while True:
            look = asking.send(network(look.image.copy(), look.object_map.copy()))
    except StopIteration as end:
        return end.value


def filled_again(scene, segment=1, settings=SETTINGS, network=None):
    asking = resegment(scene, segment, 3 - segment, settings, RADII, OPTIONS)
    return answered(asking, network or ConnectedNetwork())


def both(scene, settings=SETTINGS, network=None):
    a, b = (filled_again(scene, segment, settings, network) for segment in (1, 2))
    region = scene.around(scene.point, RADII.compared)
    scores = scores_of(a, b, scene.labels[region] == 1, scene.labels[region] == 2)
    return a, b, scores, verdict_of(a, b, scores, settings)


def test_halves_of_one_object_come_back_as_one():
    a, _, scores, verdict = both(rod())
    assert scores == Scores(1, 1, 1, 1, 1, 0, 0, 1, 1)
    assert (verdict.joined, verdict.margin) == (True, 1.0)
    # The middle of the rod's half, as far from its end as from its sides.
    assert a.seed[:2] == (10, 10)
    assert 4 <= a.seed[2] < 20
    assert (a.attempts, a.max_edt_nm) == (1, 40.0)
    # The flood reaches both ends of the rod, but for corners.
    assert 0.95 * 7 * 7 * 41 < a.voxels <= 7 * 7 * 41


def test_two_objects_come_back_as_two():
    _, _, scores, verdict = both(rod(gap=2))
    assert astuple(scores) == pytest.approx((0, 1, 0, 0, 1, 0, 0, 1, 1), abs=0.05)
    assert (scores.iou, scores.from_a_in_b, scores.from_b_in_a) == (0, 0, 0)
    assert (verdict.joined, verdict.reason, verdict.margin) == (False, "iou", -1.0)


def test_other_segments_are_not_entered():
    scene = rod()
    # The bridge between the halves belongs to a third segment.
    scene.labels[7:14, 7:14, 12:28] = 3
    a = filled_again(scene)
    free = filled_again(replace(scene, labels=np.where(scene.labels == 3, 0, scene.labels)))
    assert a.fovs < free.fovs
    # The analysed region begins at x = 8. The map reaches into the bridge, but its voxels are not the fill's.
    assert a.reached[:, :, : 12 - 8].any()
    assert not a.reached[:, :, 12 - 8 :].any()
    assert free.reached[:, :, 12 - 8 :].any()
    assert a.voxels <= 7 * 7 * 12


def test_a_seed_that_fails_is_followed_by_another():
    scene = rod()

    class Deaf(ConnectedNetwork):
        """Says no to everything the first two times."""

        def __call__(self, image, object_map):
            updated = super().__call__(image, object_map)
            return np.full_like(updated, -4) if self.calls <= 2 else updated

    a = filled_again(scene, network=Deaf())
    assert (a.attempts, a.recovered) == (3, 1.0)
    first = filled_again(scene).seed
    assert max(abs(p - q) for p, q in zip(a.seed, first, strict=True)) > 2
    given_up = filled_again(scene, settings=SETTINGS.model_copy(update={"max_retry_iters": 2}), network=Deaf())
    assert (given_up.attempts, given_up.recovered, given_up.voxels) == (2, 0.0, 0)


def test_what_does_not_come_back_is_not_joined():
    def deaf(image, object_map):
        return np.full_like(object_map, -4)

    _, _, _, verdict = both(rod(), network=deaf)
    assert (verdict.joined, verdict.reason, verdict.margin) == (False, "recovered_a", -1.0)


def test_seeds_keep_away_from_the_point_and_from_the_faces():
    scene = rod()
    away = SETTINGS.model_copy(update={"seed_distance": (20, 20, 12)})
    a, b, _, verdict = both(scene, away)
    assert 4 <= a.seed[2] < 8
    assert 32 < b.seed[2] <= 36
    assert verdict.joined
    _, _, _, verdict = both(scene, SETTINGS.model_copy(update={"seed_distance": (20, 20, 20)}))
    assert (verdict.joined, verdict.reason) == (False, "no_seed_a")


def test_a_segment_that_is_not_there_has_no_seed():
    a = filled_again(rod(), 99)
    assert (a.seed, a.attempts, a.fovs, a.recovered) == (None, 0, 0, 0.0)


def test_a_segment_that_fills_the_scene_has_a_finite_depth():
    scene = rod()
    scene.labels[:] = 1
    assert filled_again(scene).max_edt_nm == 410.0


def test_deletions_are_counted_where_the_network_changes_its_mind():
    image = np.ones((9, 9, 13), np.float32)
    answers = []

    def network(grey, object_map):
        answers.append(object_map.copy())
        updated = np.full(grey.shape, 1.5, np.float32)
        updated[4, 4] = 4
        if len(answers) == 2:
            updated[0] = logit(0.49)
            updated[1] = logit(0.51)
        return updated

    filled = answered(flood(image, np.zeros(image.shape, bool), (4, 4, 4), OPTIONS, *LEVELS), network)
    assert filled.fovs == 3
    # The second field of view is two voxels on: 7 of its 9 columns had been predicted.
    assert filled.deleted == 9 * 7
    assert not np.isnan(filled.logits).any()


def test_flood_leaves_what_it_did_not_see():
    image = np.full((9, 9, 20), -1, np.float32)
    filled = answered(flood(image, np.zeros(image.shape, bool), (4, 4, 10), OPTIONS, *LEVELS), ConnectedNetwork())
    assert np.isnan(filled.logits).any(axis=(0, 1)).tolist() == [True] * 6 + [False] * 9 + [True] * 5
    for seed, taken in (((4, 4, 1), False), ((4, 4, 10), True)):
        nothing = answered(flood(image, np.full(image.shape, taken), seed, OPTIONS, *LEVELS), ConnectedNetwork())
        assert (nothing.fovs, np.isnan(nothing.logits).all()) == (0, True)


GOOD = Scores(0.9, 0.9, 0.9, 0.9, 0.9, 0.001, 0.001, 0.9, 0.9)


@pytest.mark.parametrize(
    ("change", "joined", "reason"),
    [
        ({}, True, "iou"),
        ({"iou": 0.8}, False, "iou"),
        ({"iou": 0.81}, True, "iou"),
        ({"from_a_in_b": 0.6}, False, "from_a_in_b"),
        ({"from_b_in_b": 0.61}, True, "from_b_in_b"),
        ({"deleted_a": 0.5}, True, "iou"),
        ({"deleted_a": 0.5, "deleted_b": 0.02}, False, "deleted"),
        ({"deleted_a": 0.5, "deleted_b": 0.019}, True, "deleted"),
        ({"recovered_b": 0.6}, True, "recovered_b"),
        ({"recovered_b": 0.59}, False, "recovered_b"),
        ({"iou": 0.4, "from_a_in_b": 0.1}, False, "from_a_in_b"),
    ],
)
def test_merge_rule(change, joined, reason):
    fill = Resegmentation((1, 1, 1), 1, 1, 0.9, 100, 0, 1.0, np.ones((1, 1, 1), bool))
    verdict = verdict_of(fill, fill, replace(GOOD, **change), SETTINGS)
    assert (verdict.joined, verdict.reason) == (joined, reason)
    assert (verdict.margin > 0) == joined or verdict.margin == 0


def test_two_large_segments_are_left_to_a_proofreader():
    joined, apart = Verdict(True, "iou", 0.7), Verdict(False, "iou", -0.7)
    assert [withheld(joined, voxels, 100) for voxels in (99, 100)] == [joined] * 2
    assert withheld(joined, 10**9, None) == joined
    assert withheld(joined, 101, 100) == Verdict(False, "max_smaller_segment", 0.0)
    assert withheld(apart, 101, 100) == apart


def test_margin_is_a_part_of_what_is_possible():
    fill = Resegmentation((1, 1, 1), 1, 1, 0.9, 100, 0, 1.0, np.ones((1, 1, 1), bool))
    margins = [verdict_of(fill, fill, replace(GOOD, iou=iou), SETTINGS).margin for iou in (0.0, 0.4, 0.8, 0.85)]
    assert margins == pytest.approx([-1.0, -0.5, 0.0, 0.25])
