from itertools import product

import numpy as np
import pytest

from ffn.config import Network
from ffn.model.faces import face_moves
from ffn.model.logits import logit
from ffn.training.metrics import Tally
from ffn.training.moves import FixedMoves, MaxPredMoves, Moves, NoStep, fixed_offsets

NETWORK = Network(fov=(9, 9, 9), deltas=(2, 2, 2))
PATCH = (17, 17, 17)
YES, NO = logit(0.95), logit(0.05)


def canvas(value: np.float32 = NO, shape: tuple[int, int, int] = PATCH) -> np.ndarray:
    return np.full(shape, value, np.float32)


def labels(value: float = 0.95, shape: tuple[int, int, int] = PATCH) -> np.ndarray:
    return np.full(shape, value, np.float32)


def visit(moves: Moves, at: np.ndarray, truth: np.ndarray, tally: Tally | None = None) -> list[tuple[int, int, int]]:
    visited = []
    while (offset := moves.next(at, truth, tally or Tally())) is not None:
        visited.append(offset)
    return visited


def test_fixed_list_has_x_outermost_and_z_innermost() -> None:
    offsets = fixed_offsets((8, 8, 8))
    assert len(offsets) == len(set(offsets)) == 27
    assert offsets[:5] == [(0, 0, 0), (-8, -8, -8), (0, -8, -8), (8, -8, -8), (-8, 0, -8)]
    assert offsets[9:12] == [(8, 8, -8), (-8, -8, 0), (0, -8, 0)]
    assert offsets[-1] == (8, 8, 8)
    reference = [(z, y, x) for x in (-8, 0, 8) for y in (-8, 0, 8) for z in (-8, 0, 8) if (z, y, x) != (0, 0, 0)]
    assert offsets[1:] == reference


def test_flat_networks_have_each_offset_once() -> None:
    assert fixed_offsets((0, 3, 3)) == [
        (0, 0, 0), (0, -3, -3), (0, 0, -3), (0, 3, -3), (0, -3, 0), (0, 3, 0), (0, -3, 3), (0, 0, 3), (0, 3, 3),
    ]  # fmt: skip


def test_fixed_visits_all_offsets_of_a_full_map_once_in_order() -> None:
    assert visit(FixedMoves(NETWORK), canvas(YES), labels()) == fixed_offsets((2, 2, 2))


def test_fixed_asks_the_map_at_the_moment_of_each_turn() -> None:
    at, moves, tally = canvas(), FixedMoves(NETWORK), Tally()
    at[8, 8, 8] = YES
    assert moves.next(at, labels(), tally) == (0, 0, 0)
    at[8 + 2, 8 - 2, 8 - 2] = YES
    assert moves.next(at, labels(), tally) == (2, -2, -2)
    at[8 - 2, 8 - 2, 8 - 2] = YES  # its turn is over
    assert moves.next(at, labels(), tally) is None
    assert (tally["moves_correct"], tally["moves_missed"], tally["moves_spurious"]) == (2, 25, 0)


def test_threshold_is_the_configured_one_and_inclusive() -> None:
    network = NETWORK.model_copy(update={"move_threshold": 0.6})
    assert len(visit(FixedMoves(network), canvas(logit(0.6)), labels())) == 27
    assert visit(FixedMoves(network), canvas(logit(0.59)), labels()) == []


def test_moves_are_counted_as_correct_missed_and_spurious() -> None:
    at, truth, tally = canvas(), labels(0.05), Tally()
    at[8, 8, 8] = at[8, 8, 10] = YES
    truth[8, 8, 8] = truth[8, 8, 6] = 0.95
    assert visit(FixedMoves(NETWORK), at, truth, tally) == [(0, 0, 0), (0, 0, 2)]
    assert (tally["moves_correct"], tally["moves_missed"], tally["moves_spurious"]) == (1, 1, 1)


def test_moves_to_where_the_label_is_not_known_are_made_but_not_counted() -> None:
    at, truth, tally = canvas(YES), labels(-1.0), Tally()
    truth[8, 8, 8] = 0.95
    assert len(visit(FixedMoves(NETWORK), at, truth, tally)) == 27
    assert (tally["moves_correct"], tally["moves_missed"], tally["moves_spurious"]) == (1, 0, 0)


def test_no_step_stays_at_the_centre() -> None:
    assert visit(NoStep(NETWORK), canvas(YES), labels()) == [(0, 0, 0)]


def test_max_pred_moves_follows_the_highest_face_voxels() -> None:
    moves, at, tally = MaxPredMoves(NETWORK), canvas(YES), Tally()
    assert moves.next(at, labels(), tally) == (0, 0, 0)
    updated = canvas(NO, (9, 9, 9))
    updated[4 + 2, 4, 4 + 1] = 3
    updated[4, 4 - 2, 4] = 4
    moves.ran((0, 0, 0), updated)
    assert moves.next(at, labels(), tally) == (0, -2, 0)
    moves.ran((0, -2, 0), canvas(NO, (9, 9, 9)))
    assert moves.next(at, labels(), tally) == (2, 0, 1)
    moves.ran((2, 0, 1), canvas(NO, (9, 9, 9)))
    assert moves.next(at, labels(), tally) is None


def test_max_pred_moves_counts_moves_out_of_the_object_but_takes_none() -> None:
    moves, at, truth, tally = MaxPredMoves(NETWORK), canvas(YES), labels(0.05), Tally()
    assert moves.next(at, truth, tally) == (0, 0, 0)  # the centre needs no label
    moves.ran((0, 0, 0), canvas(YES, (9, 9, 9)))
    assert moves.next(at, truth, tally) is None
    assert tally["moves_spurious"] == 1 + 4  # equal scores: the first voxel of each face, and three faces share one
    assert tally["moves_correct"] == 0


def test_max_pred_moves_keeps_within_two_steps_and_visits_no_cell_twice() -> None:
    moves, at, visited = MaxPredMoves(NETWORK), canvas(YES), []
    while (offset := moves.next(at, labels(), Tally())) is not None:
        visited.append(offset)
        moves.ran(offset, canvas(YES, (9, 9, 9)))
    cells = [tuple((o + 1) // 2 for o in offset) for offset in visited]
    assert len(set(cells)) == len(cells) > 9
    assert max(abs(o) for offset in visited for o in offset) <= 4


@pytest.mark.parametrize("policy", [FixedMoves, MaxPredMoves])
def test_a_restored_policy_goes_on_as_the_original(policy: type[Moves]) -> None:
    random = np.random.default_rng(1)
    original, at = policy(NETWORK), canvas(YES)
    for _ in range(3):
        offset = original.next(at, labels(), Tally())
        assert offset is not None
        original.ran(offset, random.normal(4, 1, (9, 9, 9)).astype(np.float32))
    restored = policy(NETWORK)
    restored.restore(original.state())
    rest = visit(original, at, labels())
    assert len(rest) > 3
    assert visit(restored, at, labels()) == rest


def test_face_moves_equal_a_voxel_by_voxel_search() -> None:
    random = np.random.default_rng(4)
    for deltas in ((2, 2, 2), (1, 3, 2), (0, 3, 3)):
        for _ in range(20):
            logits = np.round(random.normal(size=(9, 9, 9)), 1).astype(np.float32)
            assert face_moves(logits, deltas, np.float32(0.5)) == slow_face_moves(logits, deltas, np.float32(0.5))


def slow_face_moves(logits: np.ndarray, deltas: tuple[int, int, int], threshold: np.float32) -> list:
    best: dict[tuple[int, int], tuple[float, tuple[int, int, int]]] = {}
    for offset in product(*(range(-d, d + 1) for d in deltas)):
        score = logits[tuple(4 + o for o in offset)]
        for axis in range(3):
            face = (axis, offset[axis])
            if deltas[axis] and abs(offset[axis]) == deltas[axis] and (face not in best or score > best[face][0]):
                best[face] = (score, offset)
    return [offset for score, offset in sorted(set(best.values()), reverse=True) if score >= threshold]
