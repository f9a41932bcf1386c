"""Fills of pairs side by side: batches are shared, and neither batches nor their size show in what is found."""

import json
from dataclasses import asdict, replace
from functools import cache

import numpy as np
import pytest
import rods
from flooding import Batches, ConnectedNetwork

from ffn.agglomeration.pairs import largest_fill
from ffn.agglomeration.refill import Refill, refill_pairs
from ffn.config import parse_config
from ffn.errors import ConfigError
from ffn.runs import RunPaths
from ffn.volumes import open_image, open_labels

OFF = {"radius": None, "analysis_radius": None, "exclusion_radius": None}


@pytest.fixture
def run(tmp_path):
    rods.make_inputs(tmp_path)
    return tmp_path


@cache
def found_pairs(folder):
    """The pairs of the run, in the order in which they are tried."""
    return rods.find_pairs(parse_config(rods.values(folder)), folder / "pairs")


def refilled(folder, batch_size, concurrent, network=None, pairs=None, **sections):
    """The records in the order in which they came, and the network that was asked."""
    config = parse_config(rods.values(folder, **sections))
    batches = Batches(network or ConnectedNetwork(), batch_size)
    records = []
    image = open_image(config.data.test.image, box=config.data.test.bounds)
    with image, open_labels(RunPaths.of(config).assembled) as labels:
        chosen = found_pairs(folder) if pairs is None else pairs
        refill_pairs(Refill(config, image, labels, rods.VOXELS), chosen, batches, concurrent, records.append)
    return records, batches


def test_batches_do_not_show(run):
    expected, alone = refilled(run, 1, 1)
    assert len(expected) == 3
    assert set(alone.sizes) == {1}
    for batch_size, concurrent in ((2, 2), (4, 8), (3, 5), (16, 16)):
        found, batches = refilled(run, batch_size, concurrent)
        assert found == expected
        assert max(batches.sizes) == min(batch_size, concurrent, 2 * len(expected))
        assert batches.network.calls == alone.network.calls


def test_both_fills_of_a_pair_share_batches(run):
    _, batches = refilled(run, 2, 2, pairs=found_pairs(run)[:1])
    assert batches.sizes.count(2) > len(batches.sizes) / 2


def test_records_come_in_the_order_of_the_pairs(run):
    """Also where later ones end earlier: segments without a voxel here have no fills."""
    one, other, _ = found_pairs(run)
    absent = replace(one, point=replace(one.point, a=98, b=99))
    records, _ = refilled(run, 8, 8, pairs=[one, absent, other])
    assert [(record["a"], record["fovs"] > 0) for record in records] == [(1, True), (98, False), (1, True)]
    assert records[1]["reason"] == "no_seed_a"


def test_quality_holds_for_fills_too(run):
    exact, _ = refilled(run, 1, 1)
    fewer, _ = refilled(run, 1, 1, inference={"checkpoint": "unused", "quality": "balanced"})
    assert sum(record["fovs"] for record in fewer) < 0.7 * sum(record["fovs"] for record in exact)
    assert [record["joined"] for record in fewer] == [record["joined"] for record in exact]


def test_large_segments_are_not_joined(run):
    expected, _ = refilled(run, 1, 1)
    smaller = [min(record["voxels_a"], record["voxels_b"]) for record in expected if record["joined"]]
    assert smaller
    settings = rods.values(run)["agglomeration"]
    found, _ = refilled(run, 1, 1, agglomeration={**settings, "max_smaller_segment": min(smaller) - 1})
    withheld = {"joined": False, "reason": "max_smaller_segment", "margin": 0.0}
    assert found == [{**record, **(withheld if record["joined"] else {})} for record in expected]
    same, _ = refilled(run, 1, 1, agglomeration={**settings, "max_smaller_segment": max(smaller)})
    assert same == expected


def test_the_faces_of_a_fill_are_no_faces_of_the_volume(run):
    # Mirrored faces of sub-volumes are none either, so that setting makes no difference here.
    values = {"checkpoint": "unused", "min_unseen": 0.4}
    inside, _ = refilled(run, 1, 1, inference=values)
    mirrored, _ = refilled(run, 1, 1, inference={**values, "mirror": True})
    assert inside == mirrored


@pytest.mark.parametrize(
    ("network", "expected"),
    [
        ({"fov": [17, 33, 33], "deltas": [4, 8, 8]}, ((16, 32, 32), (11, 22, 22), (4, 8, 8))),
        ({"fov": [33, 33, 33], "deltas": [8, 8, 8]}, ((32, 32, 32), (22, 22, 22), (8, 8, 8))),
        ({"fov": [1, 33, 33], "deltas": [0, 8, 8]}, ((0, 32, 32), (0, 22, 22), (0, 8, 8))),
    ],
)
def test_radii_follow_from_the_network(run, network, expected):
    values = rods.values(run, network=network, agglomeration=OFF)
    values["data"]["test"]["box"] = None
    config = parse_config(values)
    assert tuple(asdict(config.radii).values()) == expected
    filled, compared, _ = (np.array(radius) for radius in expected)
    assert (filled - np.array(network["fov"]) // 2 >= 2 * np.array(network["deltas"])).all()
    assert (compared <= filled).all()


def test_radii_hold_two_steps_of_any_step(run):
    for deltas in ([1, 4, 4], [4, 4, 4], [0, 2, 4]):
        config = parse_config(rods.values(run, agglomeration=OFF, inference={"checkpoint": "unused", "deltas": deltas}))
        assert all(radius >= 4 + 2 * delta for radius, delta in zip(config.radii.filled, deltas, strict=True)), (
            config.radii
        )
        assert largest_fill(config) >= 5 ** sum(delta > 0 for delta in deltas)


def test_a_given_radius_decides_what_is_compared(run):
    values = rods.values(run, agglomeration={**OFF, "radius": [10, 12, 16]})
    assert parse_config(values).radii.compared == (7, 8, 11)
    values["agglomeration"]["analysis_radius"] = [7, 8, 17]
    with pytest.raises(ConfigError, match="analysis_radius 17 along x reaches beyond radius 16"):
        parse_config(values)


def test_radii_are_judged_by_the_network_of_the_first_pass(run):
    passes = [{"network": {"fov": [21, 21, 21]}}, {"turn": 1}]
    values = rods.values(run, inference={"checkpoint": "unused", "passes": passes})
    with pytest.raises(ConfigError, match=r"radius 10 along z holds no fov 21 .* at least 12"):
        parse_config(values)
    values["agglomeration"] = {**values["agglomeration"], **OFF}
    assert parse_config(values).of_pass(0).radii.filled == (14, 14, 14)


def test_records_are_what_json_holds(run):
    records, _ = refilled(run, 4, 4)
    assert json.loads(json.dumps(records)) == records
