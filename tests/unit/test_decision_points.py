"""Where segments meet: literal places, the definition point by point, and any blocks."""

from itertools import product

import fastremap
import numpy as np
import pytest
import rods
from scipy import ndimage

from ffn.agglomeration import finding
from ffn.agglomeration.decision_points import (
    STEPS_PER_NM,
    DecisionPoint,
    first_of_each,
    merged,
    nearest_to_middle,
    shallowest,
    touching,
    with_rim,
)
from ffn.agglomeration.finding import finding_tasks
from ffn.agglomeration.joining import joining_tasks
from ffn.agglomeration.pairs import pairs_of
from ffn.agglomeration.spec import Spec
from ffn.blockwise import BlockwiseStage, Share
from ffn.blockwise.tables import concatenated, find_rows, sorted_by
from ffn.config import parse_config
from ffn.geometry import Box, blocks
from ffn.stages import Stage
from ffn.volumes import create_hdf5

CUBES = (10.0, 10.0, 10.0)


def points_of(labels, distance=40.0, voxel_size=CUBES, block=(64, 64, 64), candidates=None):
    """The decision points, sorted by (a, b): all blocks, and what is in them merged, as the steps of the stage do."""
    labels = labels if candidates is None else fastremap.mask_except(labels, candidates.tolist())
    whole = Box.of_shape(labels.shape)

    def touching_in(part):
        box = with_rim(part, whole, distance, voxel_size)
        return touching(labels[box.slices], part.relative_to(box.start), part.start, distance, voxel_size)

    parts = list(blocks(whole, block))
    seen = [shallowest(touching_in(part)) for part in parts]
    pairs = merged(sorted_by(concatenated(seen), ["a", "b"]))
    nearest = []
    for part, here in zip(parts, seen, strict=True):
        rows, there = find_rows([pairs["a"], pairs["b"]], [here["a"], here["b"]])
        assert there.all()
        found = nearest_to_middle(touching_in(part), here, {n: pairs[n][rows] for n in pairs}, labels.shape)
        nearest.append({"row": rows[found["pair"]], "distance": found["distance"], "place": found["place"]})
    places = first_of_each(sorted_by(concatenated(nearest), ["row", "distance", "place"]), ["row"])["place"]
    zyx = np.transpose(np.unravel_index(places, labels.shape)).tolist()
    columns = (pairs["a"].tolist(), pairs["b"].tolist(), (pairs["depth"] / STEPS_PER_NM).tolist(), map(tuple, zyx))
    return [DecisionPoint(*row) for row in zip(*columns, strict=True)]


def spec_of(folder, labels, distance=40.0, voxel_size=CUBES, block=(64, 64, 64), smallest=1):
    """What the steps of the stage are told, for labels in a file."""
    with create_hdf5(folder / "labels.h5", "labels", labels.shape, np.uint64, voxel_size) as volume:
        volume.write(Box.of_shape(labels.shape), labels)
    sections = {
        "agglomeration": {"max_distance_nm": distance, "min_segment_size": smallest, "max_pairs": None},
        "assembly": {"block": list(block)},
    }
    config = parse_config(rods.values(folder, **sections))
    stage, uri = Stage(folder / "stage", sections), f"{folder / 'labels.h5'}:labels"
    return Spec(config, stage, "unused", uri, Box.of_shape(labels.shape), voxel_size, "unused")


def step_by_step(spec, workers=1):
    """Do all steps up to `rank`, one by one, so that the tables between them stay."""
    stage = BlockwiseStage(spec.stage, [*finding_tasks(spec), *joining_tasks(spec)], "ffn")
    for task in finding_tasks(spec):
        stage.run(workers, Share(task.name))


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


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_steps_find_what_the_whole_finds(tmp_path, workers):
    """Over several shards of the result, each of several blocks."""
    labels = np.zeros((30, 140, 270), np.uint64)
    for seed, corner in enumerate(product((0, 70), (0, 100, 125, 200))):
        piece = pieces(seed)
        there = tuple(slice(c, c + n) for c, n in zip((5, *corner), piece.shape, strict=True))
        labels[there] = np.where(piece == 0, labels[there], piece + 100 * seed)
    spec = spec_of(tmp_path, labels, block=(16, 32, 40))
    step_by_step(spec, workers)
    assert len(spec.grid) == 6
    found = sorted(pair.point for pair in pairs_of(spec.planned.rows(0, len(spec.planned))))
    assert len(found) > 100
    assert found == points_of(labels)


def test_sizes_add_up_over_blocks(tmp_path):
    labels = pieces(0)
    labels[labels == 3] = 2**60
    expected = np.unique(labels[labels != 0], return_counts=True)
    smallest = int(np.median(expected[1]))
    spec = spec_of(tmp_path, labels, block=(7, 8, 9), smallest=smallest)
    step_by_step(spec)
    large = expected[1] >= smallest
    assert 0 < np.count_nonzero(large) < len(large)
    np.testing.assert_array_equal(spec.segments["ids"], expected[0][large])
    np.testing.assert_array_equal(spec.segments["voxels"], expected[1][large])
    assert spec.reduce("segments").facts()["segments"] == len(large)
    assert {
        id_ for pair in pairs_of(spec.planned.rows(0, len(spec.planned))) for id_ in (pair.point.a, pair.point.b)
    } <= set(expected[0][large].tolist())


def test_work_of_a_block_does_not_grow_with_the_volume(tmp_path, monkeypatch):
    """Neither all ids nor all candidates are sorted or looked up again for each block."""
    labels = np.arange(1, 4097, dtype=np.uint64).reshape(1, 64, 64)
    sorted_rows, sought, kept = [], [], []
    sort, find, mask_except = finding.sorted_by, finding.find_rows, fastremap.mask_except

    def counted(table, keys):
        sorted_rows.append(len(table[keys[0]]))
        return sort(table, keys)

    def looked_up(columns, values):
        sought.append(len(values[0]))
        return find(columns, values)

    def masked(values, ids):
        kept.append(len(ids))
        return mask_except(values, ids)

    monkeypatch.setattr(finding, "sorted_by", counted)
    monkeypatch.setattr(finding, "find_rows", looked_up)
    monkeypatch.setattr(fastremap, "mask_except", masked)
    spec = spec_of(tmp_path, labels, block=(1, 4, 4), distance=5.0)
    tasks = {task.name: task for task in finding_tasks(spec)}
    step_by_step(spec)
    assert len(spec.segments) == 4096
    assert set(spec.segments["voxels"].tolist()) == {1}
    assert sum(sorted_rows) < 4 * 4096
    # With the rim of two voxels.
    assert max(kept) <= 64
    sought.clear()
    tasks["contacts"].run(0)
    assert max(sought) <= 64
