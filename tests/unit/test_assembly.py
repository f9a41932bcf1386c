"""Global ids over the overlaps of sub-volumes."""

import json
from itertools import permutations

import numpy as np
import pytest

from ffn.assembly.reconcile import Equivalence, PairTable, count_pairs, equivalences, global_ids
from ffn.assembly.run import assemble, find_equivalences
from ffn.assembly.write import LabelledTile, merged_labels, write_segmentation
from ffn.config import parse_config
from ffn.errors import StageError
from ffn.files import write_json
from ffn.geometry import Box, overlapping_tiles
from ffn.stages import Stage
from ffn.volumes import create_hdf5, open_volume

SHAPE = (30, 36, 42)


def voronoi(seed=0, objects=12, shape=SHAPE):
    """uint64 labels: convex objects, so that every object is one piece in every tile; 0 between them."""
    rng = np.random.default_rng(seed)
    centres = rng.uniform(0, shape, (objects, 3))
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    distance = np.linalg.norm(grid[..., None, :] - centres, axis=-1)
    near = np.sort(distance, axis=-1)
    labels = distance.argmin(axis=-1) + 1
    labels[near[..., 1] - near[..., 0] < 1] = 0
    return labels.astype(np.uint64)


def local_ids(piece, rng):
    """The same objects with ids 1..n in random order."""
    ids = np.unique(piece[piece != 0])
    table = np.zeros(int(piece.max()) + 1, np.uint64)
    table[ids] = rng.permutation(len(ids)) + 1
    return table[piece]


def store(folder, index, labels, box):
    path = folder / f"tile-{index:04d}" / "segmentation.h5"
    with create_hdf5(path, "labels", labels.shape, np.uint64, (10.0, 10.0, 10.0), offset=box.start) as volume:
        volume.write(Box.of_shape(labels.shape), labels)
    return f"{path}:labels"


def same_partition(a, b):
    """Whether two label volumes are equal up to the names of the labels (and in where they are 0)."""
    pairs = np.unique(np.stack([a.ravel(), b.ravel()]), axis=1)
    return (pairs[0] == 0).sum() == 1 and len(np.unique(pairs[0])) == len(np.unique(pairs[1])) == pairs.shape[1]


def reassembled(folder, boxes, uris, counts, box, min_voxels=1, block=(16, 16, 16)):
    same = find_equivalences(boxes, uris, min_voxels, 0.5, block)
    labelled = [LabelledTile(*parts) for parts in zip(boxes, uris, global_ids(counts, same), strict=True)]
    write_segmentation(folder / "out.h5", labelled, box, block, None)
    with open_volume(f"{folder / 'out.h5'}:labels") as volume:
        return volume[...]


@pytest.mark.parametrize(("size", "overlap"), [((20, 24, 24), (8, 8, 8)), ((30, 36, 25), (0, 0, 12))])
def test_a_volume_cut_into_tiles_comes_back(tmp_path, size, overlap):
    truth, rng = voronoi(), np.random.default_rng(1)
    offset = (5, 6, 7)
    box = Box.of_shape(SHAPE).shifted(offset)
    boxes = overlapping_tiles(box, size, overlap)
    pieces = [local_ids(truth[tile.relative_to(offset).slices], rng) for tile in boxes]
    uris = [store(tmp_path, i, piece, tile) for i, (piece, tile) in enumerate(zip(pieces, boxes, strict=True))]
    result = reassembled(tmp_path, boxes, uris, [int(piece.max()) for piece in pieces], box)
    assert same_partition(truth, result)
    with open_volume(f"{tmp_path / 'out.h5'}:labels") as volume:
        assert volume.dtype == np.uint64


def test_one_tile_keeps_its_ids(tmp_path):
    truth = local_ids(voronoi(), np.random.default_rng(4))
    box = Box.of_shape(SHAPE)
    result = reassembled(tmp_path, [box], [store(tmp_path, 0, truth, box)], [int(truth.max())], box)
    np.testing.assert_array_equal(result, truth)


def test_ids_do_not_depend_on_the_order_of_the_comparisons():
    same = [
        Equivalence((0, 1), (2, 1), 9, (9, 9)),
        Equivalence((1, 2), (1, 3), 9, (9, 9)),
        Equivalence((0, 2), (1, 1), 9, (9, 9)),
        Equivalence((1, 2), (2, 2), 9, (9, 9)),
    ]
    expected = [[0, 1, 2], [0, 2, 3], [0, 1, 3, 2]]
    for order in permutations(same):
        assert [table.tolist() for table in global_ids([2, 2, 3], order)] == expected


def test_tiles_without_segments():
    assert [table.tolist() for table in global_ids([0, 2, 0], [])] == [[0], [0, 1, 2], [0]]
    assert [table.tolist() for table in global_ids([0, 0], [])] == [[0], [0]]


def table(rows):
    a, b, common = (np.array(column, np.int64) for column in zip(*rows, strict=True))
    return PairTable(a, b, common)


def test_both_fractions_and_the_number_of_voxels_count():
    rows = [(1, 1, 900), (1, 2, 100), (2, 3, 60), (3, 4, 500), (3, 5, 500), (4, 1, 200)]
    same = equivalences(table(rows), (0, 1), min_voxels=100, min_fraction=0.5)
    # (1,2): all of b but a tenth of a; (4,1): the other way round. (2,3): too few voxels. (3,4), (3,5): exactly half.
    assert [pair.ids for pair in same] == [(1, 1), (3, 4), (3, 5)]
    assert same[0] == Equivalence((0, 1), (1, 1), 900, (1000, 1100))
    assert [pair.ids for pair in equivalences(table(rows), (0, 1), 60, 0.51)] == [(1, 1), (2, 3)]


def test_a_piece_that_leaks_does_not_chain_objects_together(tmp_path):
    # Side by side along y: objects 1 and 2 in the first tile; in the second, 1 took a sliver of 2.
    first, second = np.zeros((10, 10, 20), np.uint64), np.zeros((10, 10, 20), np.uint64)
    first[:, :5], first[:, 5:] = 1, 2
    second[:, :6], second[:, 6:] = 1, 2
    boxes = [Box((0, 0, 0), (10, 10, 20)), Box((0, 0, 10), (10, 10, 30))]
    uris = [store(tmp_path, i, labels, box) for i, (labels, box) in enumerate(zip((first, second), boxes, strict=True))]
    same = find_equivalences(boxes, uris, 100, 0.5, (16, 16, 16))
    assert [pair.ids for pair in same] == [(1, 1), (2, 2)]


def test_voxels_that_one_tile_left_empty_do_not_count_against_a_pair(tmp_path):
    first, second = np.ones((10, 10, 20), np.uint64), np.zeros((10, 10, 20), np.uint64)
    second[:, :3] = 1
    boxes = [Box((0, 0, 0), (10, 10, 20)), Box((0, 0, 10), (10, 10, 30))]
    uris = [store(tmp_path, i, labels, box) for i, (labels, box) in enumerate(zip((first, second), boxes, strict=True))]
    assert find_equivalences(boxes, uris, 100, 0.5, (16, 16, 16)) == [Equivalence((0, 1), (1, 1), 300, (300, 300))]


@pytest.mark.parametrize("block", [(4, 5, 6), (64, 64, 64)])
def test_counts_do_not_depend_on_the_block(tmp_path, block):
    rng = np.random.default_rng(5)
    labels = [rng.integers(0, 4, (12, 12, 12)).astype(np.uint64) for _ in range(2)]
    boxes = (Box((3, 0, 0), (15, 12, 12)), Box((0, 4, 2), (12, 16, 14)))
    uris = [store(tmp_path, i, array, box) for i, (array, box) in enumerate(zip(labels, boxes, strict=True))]
    shared = boxes[0].intersection(boxes[1])
    with open_volume(uris[0]) as first, open_volume(uris[1]) as second:
        counted = count_pairs(first, second, boxes, shared, block)
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
    uris = [store(tmp_path, i, labels, box) for i, (labels, box) in enumerate(zip((first, second), boxes, strict=True))]
    labelled = [
        LabelledTile(box, uri, np.array([0, number], np.uint64))
        for box, uri, number in zip(boxes, uris, (7, 9), strict=True)
    ]
    whole = merged_labels(labelled, Box((0, 0, 0), (4, 4, 16)))
    expected = np.full((4, 4, 16), 7, np.uint64)
    expected[:, :, 8:] = 9
    expected[0, 0, 9] = 7  # empty in the second, so the first fills it
    expected[1, 1, 6] = 9
    np.testing.assert_array_equal(whole, expected)
    np.testing.assert_array_equal(merged_labels(labelled, Box((1, 0, 5), (3, 4, 12))), expected[1:3, :, 5:12])


def test_equal_distances_go_to_the_first_tile(tmp_path):
    boxes = [Box((0, 0, 0), (4, 4, 10)), Box((0, 0, 5), (4, 4, 15))]
    uris = [store(tmp_path, i, np.ones((4, 4, 10), np.uint64), box) for i, box in enumerate(boxes)]
    labelled = [
        LabelledTile(box, uri, np.array([0, number], np.uint64))
        for box, uri, number in zip(boxes, uris, (7, 9), strict=True)
    ]
    assert merged_labels(labelled, Box((0, 0, 0), (1, 1, 15))).ravel().tolist() == [7] * 8 + [9] * 7


def run_with_tiles(tmp_path, overlap=8):
    """A run whose sub-volumes are finished, with known labels."""
    with create_hdf5(tmp_path / "image.h5", "image", SHAPE, np.uint8, (10.0, 10.0, 10.0)):
        pass
    config = parse_config(
        {
            "run": "joined",
            "results": str(tmp_path / "results"),
            "data": {"test": {"image": f"{tmp_path / 'image.h5'}:image", "box": "2:30,0:36,0:42"}},
            "network": {"fov": [9, 9, 9], "deltas": [2, 2, 2]},
            "inference": {
                "checkpoint": "unused",
                "subvolume_size": [28, 24, 24],
                "subvolume_overlap": [overlap] * 3,
            },
            "assembly": {"min_overlap_voxels": 5, "block": [16, 16, 16]},
        }
    )
    truth, rng = voronoi()[2:], np.random.default_rng(1)
    infer = tmp_path / "results" / "joined" / "infer"
    for index, box in enumerate(overlapping_tiles(Box((2, 0, 0), SHAPE), (28, 24, 24), (overlap,) * 3)):
        labels = local_ids(truth[box.relative_to((2, 0, 0)).slices], rng)
        store(infer, index, labels, box)
        folder = infer / f"tile-{index:04d}"
        write_json(folder / "origins.json", [{"id": i + 1} for i in range(int(labels.max()))])
        Stage(folder, {"box": str(box)}).finish()
    return config, truth, infer


def test_stage(tmp_path):
    config, truth, infer = run_with_tiles(tmp_path)
    assemble(config)
    output = infer.parent / "assemble"
    with open_volume(f"{output / 'segmentation.h5'}:labels") as volume:
        assert same_partition(truth, volume[...])
        assert volume.voxel_size == (10.0, 10.0, 10.0)
    facts = json.loads((output / "equivalences.json").read_text())
    assert facts["objects"] == 12
    assert facts["equivalences"] == len(facts["pairs"]) > 0
    assert set(facts["pairs"][0]) == {"tiles", "ids", "common", "voxels"}
    before = {path.name: path.stat().st_mtime_ns for path in output.iterdir()}
    assemble(config)
    assert {path.name: path.stat().st_mtime_ns for path in output.iterdir()} == before


def test_stage_refuses_unfinished_and_changed_tiles(tmp_path):
    config, _, infer = run_with_tiles(tmp_path)
    marker = infer / "tile-0001" / "done.json"
    content = marker.read_text()
    marker.unlink()
    with pytest.raises(StageError, match=r"Sub-volume 1 .* is not finished.*--tile 1"):
        assemble(config)
    marker.write_text(content)
    assemble(config)
    marker.write_text(content.replace('"hash": "', '"hash": "0'))
    with pytest.raises(StageError, match="holds results of another configuration"):
        assemble(config)
    marker.unlink()
    Stage(marker.parent, {"box": "0:1,0:1,0:1"}).finish()
    with pytest.raises(StageError, match="holds the box 0:1,0:1,0:1"):
        assemble(config)
