"""The canvas against a literal implementation, and its finer points one by one."""

from collections import Counter

import numpy as np
import pytest
from flooding import Batches, SmallNetwork, blobs, flooded, literal_flood, options
from scipy import ndimage

from ffn.config import Inference, Network
from ffn.inference.canvas import COUNTERS, Canvas
from ffn.inference.drive import drive
from ffn.inference.options import FloodOptions
from ffn.inference.probability import quantised

VARIANTS = {
    "isotropic": {},
    "without holding down": {"disco": -1.0},
    "holding down large predictions only": {"disco": 0.3},
    "anisotropic": {"fov": (5, 9, 11), "deltas": (1, 2, 3), "min_boundary_dist": (0, 1, 2)},
    "two-dimensional": {"fov": (1, 9, 9), "deltas": (0, 3, 3), "min_segment_size": 20},
    "thin": {"fov": (3, 9, 9), "deltas": (0, 2, 2), "min_segment_size": 20},
    "loose move threshold": {"move": np.float32(1.0), "pad": np.float32(0.0)},
    "large steps": {"deltas": (4, 4, 4)},
}


def random_seeds(seed, shape, count=60):
    return np.random.default_rng(seed).integers(0, shape, (count, 3))


def random_masks(seed, shape):
    """Where a field of view may not be centred, and where no object may start: smooth patches."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed + 100).normal(size=(2, *shape)), (0, 3, 3, 3))
    return tuple(field > np.quantile(field, 0.8) for field in noise)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("variant", VARIANTS)
def test_equal_to_the_literal_algorithm(variant, masked):
    chosen = options(**VARIANTS[variant])
    moved = 0
    for seed in range(4):
        image = blobs(seed)
        seeds = random_seeds(seed, image.shape)
        no_move, no_seed = random_masks(seed, image.shape) if masked else (None, None)
        canvas = flooded(image, chosen, seeds, SmallNetwork(seed), no_move=no_move, no_seed=no_seed)
        labels, origins, overlaps, count = literal_flood(image, seeds, chosen, SmallNetwork(seed), no_move, no_seed)
        np.testing.assert_array_equal(canvas.finished_labels(), labels)
        assert [(s.id, s.seed, s.fovs, s.voxels) for s in canvas.segments] == origins
        assert {s.id: dict(s.overlaps) for s in canvas.segments} == overlaps
        assert {key: canvas.counters[key] for key in count} == count
        moved += canvas.counters["fovs"] - canvas.counters["objects_started"]
        assert np.isnan(canvas.object_map).all()
    assert moved > 20


def test_the_comparison_covers_every_counter():
    total = Counter()
    for variant in VARIANTS.values():
        for seed in range(4):
            image = blobs(seed)
            no_move, no_seed = random_masks(seed, image.shape)
            canvas = flooded(
                image,
                options(**variant),
                random_seeds(seed, image.shape),
                SmallNetwork(seed),
                no_move=no_move,
                no_seed=no_seed,
            )
            total.update(canvas.counters)
    assert {key for key in COUNTERS if total[key] == 0} == set()


def flat(shape=(21, 21, 21)):
    return np.zeros(shape, np.float32)


def test_levels_are_reached_when_equal():
    chosen = options(min_segment_size=1)

    def network(image, object_map):
        updated = np.full_like(object_map, np.nextafter(chosen.segment, np.float32(0)))
        updated[4, 4, 4] = chosen.move
        updated[4, 4, 5] = chosen.segment
        return updated

    canvas = flooded(flat(), chosen, np.array([[10, 10, 10]]), network)
    assert np.argwhere(canvas.finished_labels()).tolist() == [[10, 10, 10], [10, 10, 11]]


def test_the_network_sees_the_pad_value_where_nothing_was_predicted():
    chosen, seen = options(), []

    def network(image, object_map):
        seen.append(object_map.copy())
        return object_map

    flooded(flat(), chosen, np.array([[10, 10, 10]]), network)
    expected = np.full(chosen.fov, chosen.pad, np.float32)
    expected[4, 4, 4] = chosen.init
    np.testing.assert_array_equal(seen[0], expected)
    assert seen[0].dtype == np.float32


@pytest.mark.parametrize(
    ("disco", "held"), [(0.0, True), (-1.0, False), (0.9, False), (4.5 / 729, True), (5 / 729, False)]
)
def test_voxels_once_judged_outside_stay_outside(disco, held):
    chosen = options(disco=disco, min_segment_size=1)
    low, high = np.float32(-1), np.float32(5)
    shown = []

    def network(image, object_map):
        shown.append(object_map.copy())
        updated = object_map.copy()
        updated[4, 4, 4:7] = high
        # First call: (10,10,14) is outside. Second, two voxels further along x: it would come back.
        updated[4, 4, 8 if len(shown) == 1 else 6] = low if len(shown) == 1 else high
        return updated

    canvas = flooded(flat(), chosen, np.array([[10, 10, 10]]), network)
    assert canvas.counters["fovs"] > 1
    assert (canvas.finished_labels()[10, 10, 14] == 0) == held


def test_a_weakened_move_is_dropped_when_its_turn_comes():
    chosen = options(min_segment_size=1)
    calls = []

    def network(image, object_map):
        calls.append(1)
        updated = np.full_like(object_map, -5)
        updated[4, 4, 4] = 5
        if len(calls) == 1:
            updated[4, 4, 6] = 4
            updated[4, 6, 4] = 3
        if len(calls) == 2:
            # Seen from (10,10,12): the seed stays strong, the queued (10,12,10) is judged outside.
            updated[4, 4, 2] = 5
        return updated

    canvas = flooded(flat(), chosen, np.array([[10, 10, 10]]), network)
    assert len(calls) == 2
    assert canvas.counters["skip_threshold"] == 1


def test_an_object_whose_seed_fades_is_given_up():
    chosen = options(min_segment_size=1)

    def network(image, object_map):
        updated = np.full_like(object_map, 5)
        updated[4, 4, 4] = -1
        return updated

    canvas = flooded(flat(), chosen, np.array([[10, 10, 10]]), network)
    assert canvas.counters["seed_got_too_weak"] == canvas.counters["objects_weak"] == 1
    assert canvas.counters["fovs"] == 1
    assert not canvas.finished_labels().any()


def test_first_come_first_served():
    chosen = options(deltas=(0, 0, 0), min_segment_size=1, min_boundary_dist=(0, 0, 0))

    def network(image, object_map):
        return np.where(image == 1, np.float32(-3), np.float32(3))

    image = flat((9, 9, 15))
    image[4, 4, 10] = 1
    canvas = flooded(image, chosen, np.array([[4, 4, 4], [4, 4, 10], [4, 4, 9]]), network)
    labels = canvas.finished_labels()
    assert (labels[:, :, :9] == 1).all()
    assert (labels[:, :, 9:14] == 2).sum() == 9 * 9 * 5 - 1
    assert [segment.overlaps for segment in canvas.segments] == [(), ((1, 9 * 9 * 4),)]
    assert canvas.counters["voxels_overlapping"] == 9 * 9 * 4


def test_less_has_to_be_unseen_at_the_faces():
    chosen = options(min_unseen=0.5, min_unseen_at_faces=0.1)
    canvas = Canvas(np.zeros((30, 30, 30), np.float32), chosen)
    # A field of view reaches 4 voxels, and a step is 2: within 4 to 5 of a face nothing comes from beyond.
    assert [canvas._least((15, 15, x)) for x in (4, 5, 6, 23, 24, 25)] == [73, 73, 365, 365, 73, 73]
    flat = Canvas(np.zeros((1, 30, 30), np.float32), options(**VARIANTS["two-dimensional"], min_unseen=0.5))
    assert flat._least((0, 15, 15)) == 41


@pytest.mark.parametrize(("compared", "first"), [(1, (15, 15, 13)), (2, (15, 15, 21)), (3, (23, 15, 15))])
def test_of_the_next_offers_the_one_that_shows_most_goes_first(compared, first):
    canvas = Canvas(np.zeros((30, 30, 30), np.float32), options(min_unseen=0.1, offers_compared=compared))
    canvas.object_map[canvas.box_around((15, 15, 15), (15, 15, 15))] = 3
    movement = canvas.movement((15, 15, 15))
    movement.restore([(15, 15, 13), (15, 15, 21), (23, 15, 15)], [])
    assert movement.pop(lambda _: True) == first


@pytest.mark.parametrize("mirror", [False, True])
def test_mirrored_faces_are_none(mirror):
    network = Network(depth=2, features=2, fov=(9, 9, 9), deltas=(2, 2, 2))
    chosen = FloodOptions.of(network, Inference(min_unseen=0.3, mirror=mirror))
    assert chosen.min_unseen_at_faces == pytest.approx(0.3 if mirror else 0.1)


def test_given_segments_are_kept_and_counted_on_from():
    image, chosen = blobs(0), options()
    seeds = random_seeds(0, image.shape)
    alone = flooded(image, chosen, seeds, SmallNetwork(2))
    given = np.where(alone.labels == 1, np.uint32(1), np.uint32(0)) + np.where(
        alone.labels == 2, np.uint32(2), np.uint32(0)
    )
    canvas = Canvas(image, chosen, given=2)
    canvas.labels[...] = given
    drive([canvas.segment_all(seeds)], Batches(SmallNetwork(2)))
    assert (canvas.labels[given > 0] == given[given > 0]).all()
    assert [segment.id for segment in canvas.segments] == list(range(3, 3 + len(canvas.segments)))
    assert canvas.labels.max() == 2 + len(canvas.segments) > 2


def test_the_probability_of_a_segment_is_that_of_its_map():
    image, chosen, maps = blobs(0), options(), []

    class Kept(Canvas):
        def _wipe(self, growth):
            maps.append(self.object_map.copy())
            super()._wipe(growth)

    canvas = Kept(image, chosen, probability=np.zeros(image.shape, np.uint8))
    drive([canvas.segment_all(random_seeds(0, image.shape))], Batches(SmallNetwork(2)))
    assert len(canvas.segments) > 1
    assert not canvas.probability[canvas.labels == 0].any()
    kept = [grown for grown in maps if np.isfinite(grown).any()]
    for segment in canvas.segments:
        mine = canvas.labels == segment.id
        fits = [np.array_equal(quantised(grown[mine]), canvas.probability[mine]) for grown in kept]
        assert any(fits)
        assert canvas.probability[mine].min() >= np.floor(0.6 * 254)
