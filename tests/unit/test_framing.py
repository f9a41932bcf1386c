"""What each pass sees of a sub-volume, and that its labels come back to where the image was."""

import numpy as np
import pytest

from ffn.config import parse_config
from ffn.geometry import Box
from ffn.inference.fine import FineLabels
from ffn.inference.framing import Framing
from ffn.inference.options import FloodOptions
from ffn.model.logits import logit
from ffn.volumes import create_hdf5, open_volume

SIZE = (27, 30, 33)


def configured(factors, **inference):
    return parse_config(
        {
            "run": "frames",
            "data": {"test": {"image": "i.h5:image"}},
            "network": {"fov": [5, 5, 5], "deltas": [1, 1, 1], "downsample": factors},
            "inference": {"checkpoint": "unused", "passes": 8, **inference},
        }
    )


@pytest.fixture
def block(tmp_path):
    """A bright block in the dark, as a volume, and where it is."""
    inside = np.zeros(SIZE, bool)
    inside[6:19, 9:20, 12:28] = True
    uri = f"{tmp_path / 'v.h5'}:image"
    with create_hdf5(tmp_path / "v.h5", "image", SIZE, np.uint8, (10.0, 10.0, 10.0)) as volume:
        volume.write(Box.of_shape(SIZE), np.where(inside, 200, 0).astype(np.uint8))
    with open_volume(uri) as opened:
        yield opened, inside


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("factors", [(1, 1, 1), (2, 2, 2), (1, 2, 2), (3, 3, 3)])
def test_labels_come_back_to_the_image(block, factors, mirror):
    volume, inside = block
    config = configured(list(factors), mirror=mirror)
    seen = []
    for number in range(8):
        framing = Framing.of(config, number, volume.shape, volume.voxel_size)
        grey = framing.turned(framing.pooled(volume)[...].astype(np.float32))
        fine = FineLabels(grey.shape, framing.orientation.reordered(framing.factors), logit(0.5))
        everything = tuple(slice(0, n) for n in grey.shape)
        fine.claim(1, everything, np.where(grey > 100, 5, np.where(grey == 100, 0, -5)).astype(np.float32))
        labels = framing.labels(fine.labels)
        assert labels.shape == SIZE
        # A network voxel that the boundary crosses is decided as a whole: each face may be off by half of one.
        where, truth = np.argwhere(labels), np.argwhere(inside)
        off = [where.min(0) - truth.min(0), where.max(0) - truth.max(0)]
        assert (np.abs(off) <= np.array(factors) // 2).all()
        seen.append(grey)
    alike = [(a, b) for a in range(8) for b in range(a) if np.array_equal(seen[a], seen[b])]
    assert not alike


def test_passes_begin_at_all_voxels_of_a_network_voxel():
    config = configured([2, 2, 2])
    begins = [Framing.of(config, number, SIZE, (10.0, 10.0, 10.0)).phase for number in range(8)]
    assert begins[0] == (0, 0, 0)
    assert len(set(begins)) == 8
    assert all(tuple(np.add(a, b)) == (1, 1, 1) for a, b in zip(begins[::2], begins[1::2], strict=True))
    undivided = configured([1, 1, 1])
    assert {Framing.of(undivided, number, SIZE, (10.0, 10.0, 10.0)).phase for number in range(8)} == {(0, 0, 0)}


@pytest.mark.parametrize("number", range(8))
def test_seeds_come_back_to_the_image(number):
    framing = Framing.of(configured([1, 2, 2], mirror=True), number, SIZE, (20.0, 10.0, 10.0))
    all_voxels = np.argwhere(np.ones(framing.shape, bool))
    seen = framing.seeds(all_voxels)
    before = framing.seeds_before(seen)
    np.testing.assert_array_equal(np.unique(before, axis=0), all_voxels)
    image = np.arange(np.prod(framing.shape), dtype=np.float32).reshape(framing.shape)
    np.testing.assert_array_equal(framing.turned(image)[tuple(seen.T)], image[tuple(before.T)])
    for position in before:
        voxel = framing.in_image(position.tolist())
        assert all(0 <= v < n for v, n in zip(voxel, SIZE, strict=True))
        assert [(v + p) // f for v, p, f in zip(voxel, framing.phase, (1, 2, 2), strict=True)] == position.tolist()


def test_flood_fill_has_its_own_steps_and_threshold():
    config = configured([2, 2, 2], deltas=[2, 2, 0], move_threshold=0.75)
    options = FloodOptions.of(config.network, config.inference)
    assert (options.deltas, options.move) == ((2, 2, 0), logit(0.75))
    config = configured([2, 2, 2])
    options = FloodOptions.of(config.network, config.inference)
    assert (options.deltas, options.move) == ((1, 1, 1), logit(config.network.move_threshold))
