"""Where segments meet: literal places, the definition point by point, and any blocks."""

from itertools import product

import fastremap
import numpy as np
import pytest
from scipy import ndimage

from ffn.agglomeration import decision_points as module
from ffn.agglomeration.decision_points import DecisionPoint, decision_points, segment_sizes

CUBES = (10.0, 10.0, 10.0)


def points_of(labels, distance=40.0, voxel_size=CUBES, block=(64, 64, 64), candidates=None):
    found = decision_points(lambda box: labels[box.slices], labels.shape, distance, voxel_size, block, candidates)
    return [found[row] for row in range(len(found))]


def test_touching_segments_meet_in_the_middle_of_their_contact():
    labels = np.full((5, 5, 6), 2**40, np.uint64)
    labels[:, :, 3:] = 9
    assert points_of(labels) == [DecisionPoint(9, 2**40, 0.0, (2, 2, 2))]


def test_a_gap_is_measured_in_its_middle():
    labels = np.zeros((5, 5, 8), np.uint64)
    labels[:, :, :2], labels[:, :, 6:] = 1, 2
    # Four free voxels, of depth 1 2 2 1.
    assert points_of(labels) == [DecisionPoint(1, 2, 20.0, (2, 2, 3))]
    assert points_of(labels, distance=15.0) == []


def test_the_narrowest_place_counts():
    labels = np.zeros((5, 9, 8), np.uint64)
    labels[:, :, :2], labels[:, :, 6:] = 1, 2
    labels[1, 7, :4] = 1
    assert points_of(labels) == [DecisionPoint(1, 2, 10.0, (1, 7, 4))]


def test_distances_are_in_nanometres():
    labels = np.zeros((7, 5, 7), np.uint64)
    labels[0], labels[6] = 1, 2
    assert points_of(labels, voxel_size=(10.0, 30.0, 30.0)) == [DecisionPoint(1, 2, 25.0, (3, 2, 3))]
    assert points_of(labels, voxel_size=(30.0, 10.0, 10.0)) == []


def test_what_is_no_candidate_is_background():
    labels = np.zeros((3, 3, 9), np.uint64)
    labels[:, :, :3], labels[:, :, 4], labels[:, :, 6:] = 1, 2, 3
    assert [(p.a, p.b) for p in points_of(labels)] == [(1, 2), (2, 3)]
    assert points_of(labels, candidates=np.array([1, 3], np.uint64)) == [DecisionPoint(1, 3, 15.0, (1, 1, 4))]


def test_a_corner_is_a_contact_only_along_rising_axes():
    labels = np.zeros((2, 2, 2), np.uint64)
    labels[0, 0, 0], labels[1, 1, 1] = 1, 2
    assert points_of(labels, distance=1.0) == [DecisionPoint(1, 2, 0.0, (0, 0, 0))]
    assert points_of(labels[:, :, ::-1], distance=1.0) == []


@pytest.mark.parametrize("value", [0, 3])
def test_nothing_meets(value):
    assert points_of(np.full((4, 4, 4), value, np.uint64)) == []


def test_nothing_is_a_candidate():
    labels = np.full((4, 4, 4), 2**63 + 1, np.uint64)
    labels[2:] = 2**63
    assert [(p.a, p.b) for p in points_of(labels)] == [(2**63, 2**63 + 1)]
    assert points_of(labels, candidates=np.empty(0, np.uint64)) == []


def pieces(seed, shape=(20, 23, 26)):
    """Convex pieces with gaps of different widths, some of them small."""
    rng = np.random.default_rng(seed)
    centres, radii = rng.uniform(0, shape, (14, 3)), rng.uniform(2, 7, 14)
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    distance = np.linalg.norm(grid[..., None, :] - centres, axis=-1)
    labels = distance.argmin(axis=-1)
    return np.where(distance.min(axis=-1) < radii[labels], labels + 1, 0).astype(np.uint64)


def literal(labels, max_distance, voxel_size):
    """The definition, one pair of voxels after another."""
    depth, nearest = ndimage.distance_transform_edt(labels == 0, voxel_size, return_indices=True)
    extended = np.where(depth <= max_distance, labels[tuple(nearest)], 0)
    places = {}
    for here in np.ndindex(labels.shape):
        for offset in product((0, 1), repeat=3):
            there = tuple(int(p + o) for p, o in zip(here, offset, strict=True))
            if any(p >= n for p, n in zip(there, labels.shape, strict=True)):
                continue
            a, b = sorted((int(extended[here]), int(extended[there])))
            if a not in (0, b):
                places.setdefault((a, b), []).append((round((depth[here] + depth[there]) / 2, 2), here))
    found = []
    for (a, b), listed in sorted(places.items()):
        shallowest = min(listed)[0]
        ties = np.array([place for d, place in listed if d == shallowest])
        away = np.round(((ties - ties.mean(axis=0)) ** 2).sum(axis=1), 9)
        found.append((a, b, shallowest, min(zip(away.tolist(), ties.tolist(), strict=True))[1]))
    return found


@pytest.mark.parametrize("voxel_size", [CUBES, (30.0, 10.0, 15.0)])
def test_equal_to_the_definition(voxel_size):
    for seed in range(3):
        labels = pieces(seed)
        found = [(p.a, p.b, p.distance_nm, list(p.zyx)) for p in points_of(labels, voxel_size=voxel_size)]
        expected = literal(labels, 40.0, voxel_size)
        assert len(expected) > 10
        assert [f[:2] for f in found] == [e[:2] for e in expected]
        assert [f[2] for f in found] == pytest.approx([e[2] for e in expected], abs=0.01)
        assert [f[3] for f in found] == [e[3] for e in expected]


@pytest.mark.parametrize("block", [(7, 8, 9), (20, 5, 26), (16, 16, 16)])
@pytest.mark.parametrize("voxel_size", [CUBES, (40.0, 8.0, 8.0), (33.0, 9.0, 9.0)])
def test_blocks_find_what_the_whole_finds(block, voxel_size):
    for seed in range(4):
        labels = pieces(seed)
        whole = points_of(labels, voxel_size=voxel_size)
        assert len(whole) > 10
        assert points_of(labels, voxel_size=voxel_size, block=block) == whole


def test_sizes_add_up_over_blocks():
    labels = pieces(0)
    labels[labels == 3] = 2**60
    ids, voxels = segment_sizes(lambda box: labels[box.slices], labels.shape, (7, 8, 9))
    expected = np.unique(labels[labels != 0], return_counts=True)
    np.testing.assert_array_equal(ids, expected[0])
    np.testing.assert_array_equal(voxels, expected[1])


def test_work_of_a_block_does_not_grow_with_the_volume(monkeypatch):
    """Neither all ids nor all candidates are sorted or looked up again for each block."""
    labels = np.arange(1, 4097, dtype=np.uint64).reshape(1, 64, 64)
    sorted_rows, kept = [], []
    summed, mask_except = module._summed, fastremap.mask_except

    def counted(tables):
        sorted_rows.append(sum(len(ids) for ids, _ in tables))
        return summed(tables)

    def masked(values, ids):
        kept.append(len(ids))
        return mask_except(values, ids)

    monkeypatch.setattr(module, "_LEAST_ROWS", 16)
    monkeypatch.setattr(module, "_summed", counted)
    monkeypatch.setattr(fastremap, "mask_except", masked)
    ids, voxels = segment_sizes(lambda box: labels[box.slices], labels.shape, (1, 4, 4))
    assert (len(ids), set(voxels.tolist())) == (4096, {1})
    assert sum(sorted_rows) < 4 * 4096
    assert points_of(labels, block=(1, 4, 4), distance=5.0, candidates=ids)
    # With the rim of two voxels.
    assert max(kept) <= 64
