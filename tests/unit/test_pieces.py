"""Objects of an assembled volume that do not hang together, and small ones."""

import cc3d
import numpy as np
import pytest
from tiled import local_ids, reassembled, stored_tiles

from ffn.geometry import Box, overlapping_tiles

SHAPE = (21, 26, 31)


def scattered(seed, labels=4, filled=0.35):
    """Few labels in many pieces that touch over faces, edges and corners."""
    rng = np.random.default_rng(seed)
    return np.where(rng.random(SHAPE) < filled, rng.integers(1, labels + 1, SHAPE), 0).astype(np.uint64)


def components(labels, connectivity, min_size=0):
    """Numbered by their first voxel, of the whole volume at once."""
    found = cc3d.connected_components(labels, connectivity=connectivity).ravel()
    ids, first, sizes = np.unique(found, return_index=True, return_counts=True)
    kept = ids[(ids > 0) & (sizes >= min_size)]
    table = np.zeros(ids.max() + 1, np.uint64)
    table[kept[np.argsort(first[kept])]] = np.arange(1, len(kept) + 1)
    return table[found].reshape(labels.shape)


def whole(folder, labels, **rule):
    """Assembly of one sub-volume that holds everything."""
    box = Box.of_shape(labels.shape).shifted((3, 4, 5))
    return reassembled(folder, stored_tiles(folder, [box], [labels]), box, **rule)


@pytest.mark.parametrize("connectivity", [6, 18, 26])
@pytest.mark.parametrize("block", [(64, 64, 64), (8, 8, 8), (5, 7, 31), (1, 2, 3)])
def test_pieces_are_those_of_the_whole_volume(tmp_path, block, connectivity):
    labels = scattered(1) if block != (1, 2, 3) else scattered(1)[:5, :6, :7]
    result = whole(tmp_path, labels, block=block, disconnected="split", connectivity=connectivity)
    np.testing.assert_array_equal(result, components(labels, connectivity))


@pytest.mark.parametrize("seed", range(4))
def test_random_volumes_and_blocks(tmp_path, seed):
    rng = np.random.default_rng(seed)
    labels, connectivity = scattered(seed, filled=rng.uniform(0.1, 0.9)), int(rng.choice([6, 18, 26]))
    block, least = tuple(rng.integers(3, 20, 3).tolist()), int(rng.integers(0, 6))
    rule = {"block": block, "disconnected": "split", "connectivity": connectivity, "min_size": least}
    np.testing.assert_array_equal(whole(tmp_path, labels, **rule), components(labels, connectivity, least))


def test_a_ring_through_all_blocks_is_one_object(tmp_path):
    labels = np.zeros(SHAPE, np.uint64)
    labels[10, 2:24, 3:28] = 1
    labels[10, 4:22, 5:26] = 0
    labels[0, 0, 0] = 1
    result = whole(tmp_path, labels, block=(8, 8, 8), disconnected="split")
    assert result[0, 0, 0] == 1
    assert np.unique(result).tolist() == [0, 1, 2]
    np.testing.assert_array_equal(result[10] != 0, labels[10] != 0)


def test_disconnected_pieces_stay_one_object_unless_asked(tmp_path):
    labels = scattered(2)
    np.testing.assert_array_equal(whole(tmp_path, labels, block=(8, 8, 8)), labels)


def test_small_objects_are_dropped_and_the_others_renumbered(tmp_path):
    labels = np.zeros(SHAPE, np.uint64)
    labels[:10, 0, 0], labels[:, 5, :20], labels[:5, 9, 9], labels[0, 20, 20] = 1, 2, 3, 4
    result = whole(tmp_path, labels, block=(8, 8, 8), min_size=10)
    expected = np.where(labels <= 2, labels, 0)
    np.testing.assert_array_equal(result, expected)
    np.testing.assert_array_equal(whole(tmp_path, labels, block=(8, 8, 8), min_size=11) != 0, labels == 2)
    assert not whole(tmp_path, labels, min_size=10_000).any()


def test_objects_are_joined_before_they_are_split(tmp_path):
    """Across sub-volumes that number them differently, and by voxels that lie in several blocks."""
    truth, rng = scattered(3, labels=2, filled=0.25), np.random.default_rng(1)
    box = Box.of_shape(SHAPE)
    boxes = overlapping_tiles(box, (14, 15, 16), (7, 6, 5))
    tiles = stored_tiles(tmp_path, boxes, [local_ids(truth[tile.slices], rng) for tile in boxes])
    result = reassembled(tmp_path, tiles, box, block=(6, 6, 6), disconnected="split", connectivity=18)
    np.testing.assert_array_equal(result, components(truth, 18))


def test_nothing_is_left_of_the_pieces(tmp_path):
    whole(tmp_path, scattered(1), block=(8, 8, 8), disconnected="split")
    (made,) = tmp_path.glob("assemble-*")
    names = ["done.json", "equivalences.h5", "equivalences.json", "segmentation.zarr", "started.json"]
    assert sorted(path.name for path in made.iterdir()) == names
