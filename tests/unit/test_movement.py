"""Where the field of view goes."""

import numpy as np
import pytest

from ffn.inference.movement import FaceMaxMovement, UnseenMovement
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
    return UnseenMovement((0, 0, 0), (1, 1, 1), THRESHOLD, unseen.__getitem__, lambda _: least)


def test_offers_keep_their_order_and_little_unseen_is_left_out():
    places = {(0, 0, n): count for n, count in enumerate([9, 3, 5, 4, 7])}
    movement = seeing(places, least=5)
    movement.restore(list(places), [])
    assert [movement.pop(lambda _: True) for _ in range(4)] == [(0, 0, n) for n in (0, 2, 4)] + [None]


def test_what_counts_is_what_is_unseen_when_its_turn_comes():
    places = {(0, 0, n): 10 for n in range(4)}
    movement = seeing(places, least=5)
    movement.restore(list(places), [])
    assert movement.pop(lambda _: True) == (0, 0, 0)
    places[0, 0, 1] = 4
    assert [movement.pop(lambda _: True) for _ in range(3)] == [(0, 0, 2), (0, 0, 3), None]


def test_what_is_left_out_is_not_asked_for():
    movement = seeing({(0, 0, 1): 1, (0, 0, 2): 2}, least=2)
    movement.restore([(0, 0, 1), (0, 0, 2)], [])
    asked = []
    assert movement.pop(lambda position: asked.append(position)) is None
    assert asked == [(0, 0, 2)]


def test_of_the_next_offers_the_one_that_shows_most_goes_first_and_of_equal_ones_the_earliest():
    places = {(0, 0, n): count for n, count in enumerate([5, 7, 6, 7, 9, 8, 1])}
    movement = UnseenMovement((0, 0, 0), (1, 1, 1), THRESHOLD, places.__getitem__, least=lambda _: 2, compared=3)
    movement.restore(list(places), [])
    order = []
    while (position := movement.pop(lambda _: True)) is not None:
        order.append(position[2])
        movement.done.add(movement._cell(position))
    assert order == [1, 3, 4, 5, 2, 0]


def test_offers_that_were_compared_and_not_taken_keep_their_places():
    places = {(0, 0, n): n for n in range(6)}
    movement = UnseenMovement((9, 9, 9), (1, 1, 1), THRESHOLD, places.__getitem__, lambda _: 0, compared=3)
    movement.restore(list(places), [])
    assert movement.pop(lambda position: position != (0, 0, 1)) == (0, 0, 3)
    assert movement.waiting() == [(0, 0, n) for n in (0, 2, 4, 5)]


def test_the_least_may_depend_on_the_place():
    places = {(0, 0, n): 10 - n for n in range(6)}
    movement = UnseenMovement(
        (0, 0, 0), (1, 1, 1), THRESHOLD, places.__getitem__, lambda position: 7 if position[2] < 5 else 2
    )
    movement.restore(list(places), [])
    assert [movement.pop(lambda _: True) for _ in range(6)] == [(0, 0, n) for n in (0, 1, 2, 3, 5)] + [None]


def test_farther_faces_make_offers_too():
    logits = np.zeros((17, 17, 17), np.float32)
    logits[8, 8, 10], logits[8, 8, 13], logits[8, 8, 16] = 2, 3, 4
    movement = UnseenMovement((0, 0, 0), (2, 2, 2), THRESHOLD, lambda _: 1, lambda _: 0)
    assert movement.pop(lambda _: True) == (0, 0, 0)
    movement.push(logits, (0, 0, 0))
    # At 2 and, halfway to the border at 8, at 5.
    assert movement.waiting() == [(0, 0, 2), (0, 0, 5)]
    flat = UnseenMovement((0, 0, 0), (0, 2, 2), THRESHOLD, lambda _: 1, lambda _: 0)
    flat.push(np.full((1, 9, 9), 2, np.float32), (0, 0, 0))
    assert {z for z, _, _ in flat.waiting()} == {0}


def test_the_seed_is_visited_however_much_has_to_be_unseen():
    movement = UnseenMovement((5, 5, 5), (2, 2, 2), THRESHOLD, unseen=lambda _: 728, least=lambda _: 729)
    assert movement.pop(lambda _: True) == (5, 5, 5)
    movement.push(prediction(at246=3), (5, 5, 5))
    assert movement.pop(lambda _: True) is None
