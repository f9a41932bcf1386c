"""Whatever is cut into sub-volumes with ids of their own comes back, however it is cut and in whatever order."""

import cc3d
import numpy as np
import pytest
from scipy import ndimage
from tiled import found_pairs, local_ids, reassembled, same_partition, stored_tiles

from ffn.geometry import Box, overlapping_tiles

SHAPE = (34, 38, 42)


def blobs(rng):
    """Objects of all shapes, each in one piece, that reach through many tiles; uint64, 0 between them."""
    noise = ndimage.gaussian_filter(rng.standard_normal(SHAPE), 2)
    levels = np.digitize(noise, np.quantile(noise, [0.2, 0.45, 0.55, 0.8])) + 1
    levels[levels == 3] = 0
    return cc3d.connected_components(levels, connectivity=26).astype(np.uint64)


def random_boxes(rng):
    """A grid of tiles with overlaps of at least two voxels, some tiles more, in any order."""
    size = tuple(rng.integers(9, 30, 3).tolist())
    overlap = tuple(int(rng.integers(2, n // 2 + 1)) for n in size)
    boxes = overlapping_tiles(Box.of_shape(SHAPE), size, overlap)
    for _ in range(int(rng.integers(0, 4))):
        start = [int(rng.integers(0, n - 8)) for n in SHAPE]
        boxes.append(Box(tuple(start), tuple(a + int(rng.integers(4, 9)) for a in start)))
    return [boxes[i] for i in rng.permutation(len(boxes))]


@pytest.mark.parametrize("seed", range(8))
def test_split_and_assembled_is_the_same(tmp_path, seed):
    rng = np.random.default_rng(seed)
    truth, boxes = blobs(rng), random_boxes(rng)
    assert len(np.unique(truth)) > 10
    pieces = [local_ids(truth[box.slices], rng) for box in boxes]
    block = tuple(rng.integers(8, 40, 3).tolist())
    result = reassembled(tmp_path, stored_tiles(tmp_path, boxes, pieces), Box.of_shape(SHAPE), block=block)
    assert same_partition(truth, result)


def test_pairs_do_not_depend_on_the_order_of_the_tiles(tmp_path):
    rng = np.random.default_rng(9)
    truth, boxes = blobs(rng), overlapping_tiles(Box.of_shape(SHAPE), (20, 20, 20), (6, 6, 6))
    pieces = [local_ids(truth[box.slices], rng) for box in boxes]
    there = found_pairs(stored_tiles(tmp_path / "there", boxes, pieces), min_voxels=1)
    back = found_pairs(stored_tiles(tmp_path / "back", boxes[::-1], pieces[::-1]), min_voxels=1)
    last = len(boxes) - 1
    turned = {
        (last - j, last - i, b, a, common, of_b, of_a)
        for i, j, a, b, common, of_a, of_b in zip(*(getattr(back, name) for name in back.columns()), strict=True)
    }
    assert turned == set(zip(*(getattr(there, name) for name in there.columns()), strict=True))
