"""Objects that reach far into each other become one."""

import json
from dataclasses import replace

import numpy as np
import pytest
from flooding import Batches, SmallNetwork, blobs, flooded, options

from ffn.config import parse_config
from ffn.geometry import Box
from ffn.inference.canvas import Growth
from ffn.inference.drive import drive
from ffn.inference.joining import joined_ids, part_of
from ffn.inference.results import write_results
from ffn.inference.scene import Scene
from ffn.model.orientation import Orientation
from ffn.volumes import create_hdf5, open_volume


def test_the_segment_in_which_most_of_an_object_lies():
    assert part_of(((1, 55), (2, 5)), 40, 0.5) == 1
    assert part_of(((1, 5), (2, 60)), 35, 0.6) == 2
    assert part_of(((1, 5), (2, 59)), 36, 0.6) is None
    assert part_of((), 100, 0.5) is None


def test_objects_stay_apart_at_1_and_where_they_add_nothing():
    assert part_of(((1, 10**9),), 1, 1.0) is None
    assert part_of(((1, 100),), 0, 0.5) is None


def test_given_segments_stay_as_they_are():
    assert part_of(((1, 90), (3, 5)), 5, 0.6, given=2) is None
    np.testing.assert_array_equal(joined_ids([((), 9), (((1, 90),), 5), (((3, 90),), 5)], 0.6, 2), [0, 1, 2, 3, 4, 3])


def test_parts_of_parts_have_the_id_of_the_first():
    objects = [((), 10), (((1, 90),), 10), (((1, 5), (2, 90)), 10), (((3, 50),), 50)]
    np.testing.assert_array_equal(joined_ids(objects, 0.6), [0, 1, 1, 1, 4])


def test_two_earlier_segments_are_never_joined():
    rng = np.random.default_rng(4)
    for _ in range(50):
        objects = []
        for number in range(1, 30):
            reached = sorted(set(rng.integers(1, number + 1, 3).tolist()) - {number})
            objects.append((tuple((n, int(rng.integers(1, 100))) for n in reached), int(rng.integers(1, 40))))
        ids = joined_ids(objects, 0.5)
        for number in range(1, 30):
            np.testing.assert_array_equal(joined_ids(objects[:number], 0.5), ids[: number + 1])


@pytest.mark.parametrize(("join_share", "segments"), [(1.0, 1), (0.5, 2), (0.6, 1)])
def test_a_small_rest_is_kept_if_it_belongs_to_an_earlier_object(join_share, segments):
    chosen = options(deltas=(0, 0, 0), min_segment_size=500, min_boundary_dist=(0, 0, 0), join_share=join_share)

    def network(image, object_map):
        return np.where(image == 1, np.float32(-3), np.float32(3))

    # One field of view each: the second reaches 4 of the first's 9 sections, and 3 that are free.
    image = np.zeros((9, 9, 14), np.float32)
    image[:, :, 12:] = 1
    canvas = flooded(image, chosen, np.array([[4, 4, 4], [4, 4, 9]]), network)
    assert len(canvas.segments) == segments
    assert canvas.counters["objects_small"] == 2 - segments
    if segments == 2:
        assert canvas.segments[1].overlaps == ((1, 4 * 81),)
        assert canvas.segments[1].voxels == 3 * 81


def test_what_is_small_with_all_it_reaches_is_dropped():
    chosen = options(min_segment_size=730, min_boundary_dist=(0, 0, 0), join_share=0.5)
    canvas = flooded(blobs(1), chosen, np.array([[10, 10, 10]]), lambda _, object_map: np.full_like(object_map, -9))
    canvas.labels[6:15, 6:15, 6:14] = 1
    canvas.object_map[6:15, 6:15, 6:15] = 3
    growth = Growth((10, 10, 10), canvas.movement((10, 10, 10)), (10, 10, 10), (10, 10, 10), fovs=1)
    canvas._keep_or_reject(growth)
    assert canvas.counters["objects_small"] == 1
    canvas.options = options(min_segment_size=729, min_boundary_dist=(0, 0, 0), join_share=0.5)
    canvas._keep_or_reject(growth)
    assert canvas.segments[-1].voxels == 81


@pytest.mark.parametrize("turn", [0, 3])
def test_files_hold_the_joined_ids_and_what_was_joined(tmp_path, turn):
    shape = (34, 36, 38)
    with create_hdf5(tmp_path / "image.h5", "image", shape, np.uint8, (10.0, 10.0, 10.0)) as volume:
        volume.write(Box.of_shape(shape), np.clip(128 + 33 * blobs(1, shape), 0, 255).astype(np.uint8))

    def filled(**inference):
        config = parse_config(
            {
                "run": "joined",
                "data": {"test": {"image": "unused"}},
                "network": {"depth": 2, "features": 2, "fov": [9, 9, 9], "deltas": [2, 2, 2]},
                "inference": {"checkpoint": "unused", "min_segment_size": 60, **inference},
            }
        )
        scene = Scene.of(config, f"{tmp_path / 'image.h5'}:image", Box.of_shape(shape), turn)
        canvas = scene.canvas
        drive([canvas.segment_all(scene.seeds(0))], Batches(SmallNetwork(4)))
        canvas.segments[2] = replace(canvas.segments[2], overlaps=((1, 9 * canvas.segments[2].voxels),))
        output = tmp_path / "-".join(f"{key}{value}" for key, value in inference.items())
        output.mkdir()
        covered = write_results(output, scene, {})
        with open_volume(f"{output / 'segmentation.h5'}:labels") as volume:
            labels = volume[...]
        assert covered == np.count_nonzero(labels)
        return canvas, labels, json.loads((output / "origins.json").read_text())

    canvas, _, origins = filled(join_share=1)
    assert not any("joined" in record for record in origins)
    canvas, labels, origins = filled(join_share=0.8)
    assert [(record["id"], record["joined"]) for record in origins if "joined" in record] == [(3, 1)]
    assert [record["voxels"] for record in origins] == [np.count_nonzero(labels == r["id"]) for r in origins]
    assert origins[2]["voxels"] == 0
    before = Orientation.listed("zyx")[turn].undo(canvas.finished_labels())
    np.testing.assert_array_equal(labels, np.where(before == 3, 1, before))
