"""Global ids over the overlaps of sub-volumes."""

import json
import shutil

import numpy as np
import pytest
from tiled import (
    SHAPE,
    found_pairs,
    local_ids,
    reassembled,
    run_with_tiles,
    same_partition,
    stored_tiles,
    tables_of,
    voronoi,
)

from ffn.assembly.labelled import OpenLabels
from ffn.assembly.merge import merged_labels
from ffn.assembly.reconcile import Equivalences, PairTable, count_pairs, equivalences
from ffn.assembly.run import assemble
from ffn.errors import StageError
from ffn.geometry import Box, overlapping_tiles
from ffn.runs import labels_in
from ffn.volumes import open_volume


def ids_of(same):
    return list(zip(same.id_a.tolist(), same.id_b.tolist(), strict=True))


@pytest.mark.parametrize(("size", "overlap"), [((20, 24, 24), (8, 8, 8)), ((30, 36, 25), (0, 0, 12))])
def test_a_volume_cut_into_tiles_comes_back(tmp_path, size, overlap):
    truth, rng = voronoi(), np.random.default_rng(1)
    offset = (5, 6, 7)
    box = Box.of_shape(SHAPE).shifted(offset)
    boxes = overlapping_tiles(box, size, overlap)
    pieces = [local_ids(truth[tile.relative_to(offset).slices], rng) for tile in boxes]
    result = reassembled(tmp_path, stored_tiles(tmp_path, boxes, pieces), box)
    assert result.dtype == np.uint64
    assert same_partition(truth, result)


def test_one_tile_keeps_its_ids(tmp_path):
    truth = local_ids(voronoi(), np.random.default_rng(4))
    box = Box.of_shape(SHAPE)
    np.testing.assert_array_equal(reassembled(tmp_path, stored_tiles(tmp_path, [box], [truth]), box), truth)


def rows(*entries):
    """Equivalences (tile, id, tile, id)."""
    columns = np.array(entries, np.int64).reshape(-1, 4).T
    nines = np.full(len(entries), 9, np.int64)
    return Equivalences(columns[0], columns[2], columns[1], columns[3], nines, nines, nines)


def test_ids_do_not_depend_on_the_order_of_the_comparisons():
    same = [(0, 1, 2, 1), (1, 1, 2, 3), (0, 1, 2, 1), (1, 2, 2, 2)]
    expected = [[0, 1, 2], [0, 3, 4], [0, 1, 4, 3]]
    rng = np.random.default_rng(0)
    for _ in range(10):
        assert [part.tolist() for part in tables_of([2, 2, 3], rows(*rng.permutation(same)))] == expected


def test_tiles_without_segments():
    assert [part.tolist() for part in tables_of([0, 2, 0], rows())] == [[0], [0, 1, 2], [0]]
    assert [part.tolist() for part in tables_of([0, 0], rows())] == [[0], [0]]


def table(rows):
    a, b, common = (np.array(column, np.int64) for column in zip(*rows, strict=True))
    return PairTable(a, b, common)


def test_both_fractions_and_the_number_of_voxels_count():
    rows = [(1, 1, 900), (1, 2, 100), (2, 3, 60), (3, 4, 500), (3, 5, 500), (4, 1, 200)]
    same = equivalences(table(rows), (0, 1), min_voxels=100, min_fraction=0.5)
    # (1,2): all of b but a tenth of a; (4,1): the other way round. (2,3): too few voxels. (3,4), (3,5): exactly half.
    assert ids_of(same) == [(1, 1), (3, 4), (3, 5)]
    assert same.listed(1) == [{"tiles": [0, 1], "ids": [1, 1], "common": 900, "voxels": [1000, 1100]}]
    assert ids_of(equivalences(table(rows), (0, 1), 60, 0.51)) == [(1, 1), (2, 3)]


def test_a_piece_that_leaks_does_not_chain_objects_together(tmp_path):
    # Side by side along y: objects 1 and 2 in the first tile; in the second, 1 took a sliver of 2.
    first, second = np.zeros((10, 10, 20), np.uint64), np.zeros((10, 10, 20), np.uint64)
    first[:, :5], first[:, 5:] = 1, 2
    second[:, :6], second[:, 6:] = 1, 2
    boxes = [Box((0, 0, 0), (10, 10, 20)), Box((0, 0, 10), (10, 10, 30))]
    assert ids_of(found_pairs(stored_tiles(tmp_path, boxes, [first, second]))) == [(1, 1), (2, 2)]


def test_voxels_that_one_tile_left_empty_do_not_count_against_a_pair(tmp_path):
    first, second = np.ones((10, 10, 20), np.uint64), np.zeros((10, 10, 20), np.uint64)
    second[:, :3] = 1
    boxes = [Box((0, 0, 0), (10, 10, 20)), Box((0, 0, 10), (10, 10, 30))]
    same = found_pairs(stored_tiles(tmp_path, boxes, [first, second]))
    assert same.listed(9) == [{"tiles": [0, 1], "ids": [1, 1], "common": 300, "voxels": [300, 300]}]


@pytest.mark.parametrize("block", [(4, 5, 6), (64, 64, 64)])
def test_counts_do_not_depend_on_the_block(tmp_path, block):
    rng = np.random.default_rng(5)
    labels = [rng.integers(0, 4, (12, 12, 12)).astype(np.uint64) for _ in range(2)]
    boxes = (Box((3, 0, 0), (15, 12, 12)), Box((0, 4, 2), (12, 16, 14)))
    shared = boxes[0].intersection(boxes[1])
    counted = count_pairs(OpenLabels(stored_tiles(tmp_path, boxes, labels), []), (0, 1), shared, block)
    a = labels[0][shared.relative_to(boxes[0].start).slices].ravel()
    b = labels[1][shared.relative_to(boxes[1].start).slices].ravel()
    expected = [(i, j, int(((a == i) & (b == j)).sum())) for i in (1, 2, 3) for j in (1, 2, 3)]
    assert list(zip(counted.a, counted.b, counted.common, strict=True)) == expected


def test_the_middle_of_an_overlap_is_the_border(tmp_path):
    boxes = [Box((0, 0, 0), (4, 4, 10)), Box((0, 0, 6), (4, 4, 16))]
    ones = np.ones((4, 4, 10), np.uint64)
    second = ones.copy()
    second[0, 0, 3] = 0
    first = ones.copy()
    first[1, 1, 6] = 0
    tables = [np.array([0, number], np.uint64) for number in (7, 9)]
    labelled = OpenLabels(stored_tiles(tmp_path, boxes, [first, second]), tables)
    whole = merged_labels(labelled, Box((0, 0, 0), (4, 4, 16)))
    expected = np.full((4, 4, 16), 7, np.uint64)
    expected[:, :, 8:] = 9
    expected[0, 0, 9] = 7  # empty in the second, so the first fills it
    expected[1, 1, 6] = 9
    np.testing.assert_array_equal(whole, expected)
    np.testing.assert_array_equal(merged_labels(labelled, Box((1, 0, 5), (3, 4, 12))), expected[1:3, :, 5:12])


def test_equal_distances_go_to_the_first_tile(tmp_path):
    boxes = [Box((0, 0, 0), (4, 4, 10)), Box((0, 0, 5), (4, 4, 15))]
    tables = [np.array([0, number], np.uint64) for number in (7, 9)]
    labelled = OpenLabels(stored_tiles(tmp_path, boxes, [np.ones((4, 4, 10), np.uint64)] * 2), tables)
    assert merged_labels(labelled, Box((0, 0, 0), (1, 1, 15))).ravel().tolist() == [7] * 8 + [9] * 7


def test_stage(tmp_path):
    config, truth, infer = run_with_tiles(tmp_path)
    assemble(config)
    output = infer.parent / "assemble"
    with open_volume(labels_in(output)) as volume:
        assert same_partition(truth, volume[...])
        assert volume.voxel_size == (10.0, 10.0, 10.0)
    facts = json.loads((output / "equivalences.json").read_text())
    assert facts["objects"] == 12
    assert facts["equivalences"] == len(facts["pairs"]) > 0
    assert set(facts["pairs"][0]) == {"tiles", "ids", "common", "voxels"}
    before = {path.name: path.stat().st_mtime_ns for path in output.rglob("*")}
    assemble(config)
    assert {path.name: path.stat().st_mtime_ns for path in output.rglob("*")} == before


def test_stage_refuses_unfinished_and_changed_tiles(tmp_path):
    config, _, infer = run_with_tiles(tmp_path, how={"leaves_out": (1,)})
    with pytest.raises(StageError, match=r"Sub-volume 1 .* is not finished.*--tile 1"):
        assemble(config)
    shutil.rmtree(infer)
    run_with_tiles(tmp_path)
    assemble(config)
    shutil.rmtree(infer)
    run_with_tiles(tmp_path, how={"checkpoint_sha256": "another"})
    with pytest.raises(StageError, match="holds results of another configuration"):
        assemble(config)
    marker = infer / "pass-0" / "started.json"
    marker.write_text(marker.read_text().replace("2:30,", "0:1,"))
    with pytest.raises(StageError, match=r"made with other settings \(box: there '0:1,"):
        assemble(config)
