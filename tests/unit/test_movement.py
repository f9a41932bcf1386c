"""Where the field of view goes."""

import numpy as np
import pytest

from ffn.inference.movement import FaceMaxMovement, UnseenFirstMovement
from ffn.model.faces import face_moves

THRESHOLD = np.float32(1.0)


def prediction(shape=(9, 9, 9), **values):
    logits = np.zeros(shape, np.float32)
    for key, value in values.items():
        z, y, x = (int(c) for c in key.removeprefix("at"))
        logits[z, y, x] = value
    return logits


def test_faces_offer_their_maximum_and_the_best_comes_first():
    logits = prediction(at243=3, at644=2, at426=4, at442=5)
    assert face_moves(logits, (2, 2, 2), THRESHOLD) == [(0, 0, -2), (0, -2, 2), (-2, 0, -1), (2, 0, 0)]


def test_an_edge_that_two_faces_share_is_offered_once():
    assert face_moves(prediction(at226=3), (2, 2, 2), THRESHOLD) == [(-2, -2, 2)]


def test_only_the_window_within_deltas_counts():
    logits = prediction(at144=9, at247=9, at444=9, at233=2)
    assert face_moves(logits, (2, 2, 2), THRESHOLD) == [(-2, -1, -1)]


def test_threshold_itself_is_reached_in_float32():
    threshold = np.float32(2.1972246)
    logits = prediction(at244=threshold)
    assert face_moves(logits, (2, 2, 2), threshold) == [(-2, 0, 0)]
    logits[2, 4, 4] = np.nextafter(threshold, np.float32(0))
    assert face_moves(logits, (2, 2, 2), threshold) == []


def test_first_of_equal_voxels_and_largest_of_equal_faces():
    logits = np.full((9, 9, 9), 2, np.float32)
    assert face_moves(logits, (2, 2, 2), THRESHOLD) == [
        (2, -2, -2),
        (-2, 2, -2),
        (-2, -2, 2),
        (-2, -2, -2),
    ]


def test_zero_delta_stays_in_the_section():
    logits = np.full((5, 9, 9), 2, np.float32)
    assert face_moves(logits, (0, 3, 3), THRESHOLD) == [(0, 3, -3), (0, -3, 3), (0, -3, -3)]
    logits = prediction((1, 9, 9), at017=3, at041=2)
    assert face_moves(logits, (0, 3, 3), THRESHOLD) == [(0, -3, 3), (0, 0, -3)]


@pytest.mark.parametrize("deltas", [(2, 2, 2), (0, 2, 3), (1, 4, 0)])
def test_same_moves_as_the_definition(deltas):
    rng = np.random.default_rng(3)
    for _ in range(50):
        # Few distinct values, so that ties are common.
        logits = rng.integers(-1, 4, (9, 9, 9)).astype(np.float32)
        offers = []
        for axis in range(3):
            for sign in (-1, 1):
                if deltas[axis] == 0:
                    continue
                spans = [range(-d, d + 1) for d in deltas]
                spans[axis] = [sign * deltas[axis]]
                places = [(z, y, x) for z in spans[0] for y in spans[1] for x in spans[2]]
                scores = [logits[4 + z, 4 + y, 4 + x] for z, y, x in places]
                best = max(scores)
                if best >= THRESHOLD:
                    offers.append((best, places[scores.index(best)]))
        expected = [place for _, place in sorted(set(offers), reverse=True)]
        assert face_moves(logits, deltas, THRESHOLD) == expected


def test_queue_is_first_in_first_out_and_cells_are_visited_once():
    movement = FaceMaxMovement((20, 20, 20), (4, 4, 4), THRESHOLD)
    assert movement.pop(lambda _: True) == (20, 20, 20)
    logits = np.zeros((9, 9, 9), np.float32)
    logits[0, 4, 4], logits[8, 4, 4] = 2, 3
    movement.push(logits, (20, 20, 20))
    assert movement.waiting() == [(24, 20, 20), (16, 20, 20)]
    assert movement.pop(lambda _: True) == (24, 20, 20)
    # From 24 back to 20 and on to 28: they join behind 16, and 20 is done already.
    movement.push(logits, (24, 20, 20))
    assert movement.waiting() == [(16, 20, 20), (28, 20, 20), (20, 20, 20)]
    assert [movement.pop(lambda _: True) for _ in range(3)] == [(16, 20, 20), (28, 20, 20), None]


def test_positions_within_half_a_delta_are_the_same_cell():
    movement = FaceMaxMovement((20, 20, 20), (4, 4, 0), THRESHOLD)
    movement.push(np.zeros((9, 9, 9), np.float32), (20, 20, 20))
    movement.restore([(18, 20, 20), (21, 21, 20), (22, 20, 20), (20, 17, 20), (20, 20, 21)], movement.done)
    assert [movement.pop(lambda _: True) for _ in range(4)] == [(22, 20, 20), (20, 17, 20), (20, 20, 21), None]


def test_a_refused_position_is_not_done():
    movement = FaceMaxMovement((20, 20, 20), (4, 4, 4), THRESHOLD)
    movement.restore([(20, 20, 20), (24, 20, 20)], [])
    assert movement.pop(lambda position: position != (20, 20, 20)) == (24, 20, 20)
    movement.restore([(20, 20, 20)], [])
    assert movement.pop(lambda _: True) == (20, 20, 20)


def seeing(unseen, least=0):
    return UnseenFirstMovement((0, 0, 0), (1, 1, 1), THRESHOLD, unseen.__getitem__, lambda _: least)


def test_most_unseen_goes_first_and_of_equal_ones_the_earliest():
    places = {(0, 0, n): count for n, count in enumerate([9, 3, 5, 5, 7])}
    movement = seeing(places)
    movement.restore(list(places), [])
    assert [movement.pop(lambda _: True) for _ in range(6)] == [(0, 0, n) for n in (0, 4, 2, 3, 1)] + [None]


def test_what_is_seen_meanwhile_falls_back_and_below_the_least_it_is_left_out():
    places = {(0, 0, n): 10 + n for n in range(4)}
    movement = seeing(places, least=5)
    movement.restore(list(places), [])
    places[0, 0, 3], places[0, 0, 1] = 11, 4
    assert [movement.pop(lambda _: True) for _ in range(4)] == [(0, 0, 2), (0, 0, 3), (0, 0, 0), None]


def test_the_least_may_depend_on_the_place():
    places = {(0, 0, n): 10 - n for n in range(6)}
    movement = UnseenFirstMovement(
        (0, 0, 0), (1, 1, 1), THRESHOLD, places.__getitem__, lambda position: 7 if position[2] < 5 else 2
    )
    movement.restore(list(places), [])
    assert [movement.pop(lambda _: True) for _ in range(6)] == [(0, 0, n) for n in (0, 1, 2, 3, 5)] + [None]


def test_the_order_does_not_depend_on_when_a_state_was_saved():
    rng = np.random.default_rng(0)
    for _ in range(20):
        places = {(0, 0, n): int(count) for n, count in enumerate(rng.integers(0, 6, 30))}
        order = []
        seen_later = [int(n) for n in rng.integers(0, 30, 30)]
        whole = dict(places)
        movement = seeing(whole, least=1)
        movement.restore(list(whole), [])
        saved = None
        for step in range(30):
            position = movement.pop(lambda _: True)
            order.append(position)
            if position is None:
                break
            movement.done.add(movement._cell(position))
            whole[0, 0, seen_later[step]] = max(whole[0, 0, seen_later[step]] - 2, 0)
            if step == 5:
                saved = movement.waiting(), set(movement.done), dict(whole)
        waiting, done, places = saved
        resumed, again = seeing(places, least=1), []
        resumed.restore(waiting, done)
        for step in range(6, 30):
            position = resumed.pop(lambda _: True)
            again.append(position)
            if position is None:
                break
            resumed.done.add(resumed._cell(position))
            places[0, 0, seen_later[step]] = max(places[0, 0, seen_later[step]] - 2, 0)
        assert again == order[6:]


def test_farther_faces_make_offers_too():
    logits = np.zeros((17, 17, 17), np.float32)
    logits[8, 8, 10], logits[8, 8, 13], logits[8, 8, 16] = 2, 3, 4
    movement = UnseenFirstMovement((0, 0, 0), (2, 2, 2), THRESHOLD, lambda _: 1, lambda _: 0)
    assert movement.pop(lambda _: True) == (0, 0, 0)
    movement.push(logits, (0, 0, 0))
    # At 2 and, halfway to the border at 8, at 5.
    assert movement.waiting() == [(0, 0, 2), (0, 0, 5)]
    flat = UnseenFirstMovement((0, 0, 0), (0, 2, 2), THRESHOLD, lambda _: 1, lambda _: 0)
    flat.push(np.full((1, 9, 9), 2, np.float32), (0, 0, 0))
    assert {z for z, _, _ in flat.waiting()} == {0}


def test_the_seed_is_visited_however_much_has_to_be_unseen():
    movement = UnseenFirstMovement((5, 5, 5), (2, 2, 2), THRESHOLD, unseen=lambda _: 728, least=lambda _: 729)
    assert movement.pop(lambda _: True) == (5, 5, 5)
    movement.push(prediction(at246=3), (5, 5, 5))
    assert movement.pop(lambda _: True) is None
