"""`ffn plan`: what inference will take, and how large its parts should be."""

import json
from dataclasses import replace
from math import ceil
from pathlib import Path

import numpy as np
import pytest
import yaml
from exported import make_run

from ffn.blockwise.ledger import LedgerWriter
from ffn.cli import main
from ffn.cluster.scatter import Scatter
from ffn.cluster.site import load_site
from ffn.config import parse_config
from ffn.config.inference import FEWER_FOVS, LEAST_UNSEEN
from ffn.errors import PlanError
from ffn.export import export_run, shards
from ffn.geometry import Box, overlapping_tiles
from ffn.planning.advice import advise, require_memory, warnings
from ffn.planning.estimate import (
    Estimate,
    Known,
    Machine,
    configured_machine,
    consensus_mb,
    estimate,
    inference_mb,
    suitable_tiles,
)
from ffn.planning.extent import Extent, extent_of
from ffn.planning.measure import measure_speed
from ffn.planning.memory import PROCESS_BYTES, process_bytes
from ffn.planning.outputs import Cut, outputs
from ffn.planning.rates import Speed, Work, expected_work, known_speed, slowest_pass, store_speed, to_measure
from ffn.planning.table import outlook, table, written
from ffn.runs import RunPaths
from ffn.volumes import create_hdf5

LARGE = {
    "run": "large",
    "data": {"test": {"image": "nowhere.h5:raw", "box": "0:1000,0:1000,0:1000"}, "voxel_size": [10, 10, 10]},
    "inference": {"checkpoint": "nowhere", "subvolume_size": [250, 250, 250], "subvolume_overlap": [32, 32, 32]},
}


def configured(tmp_path: Path, base: dict = LARGE, **sections):
    merged = {key: {**base.get(key, {}), **value} for key, value in sections.items()}
    return parse_config({**base, "results": str(tmp_path / "results"), **merged})


def finished(
    config, index: int, box: str, fovs: int, label_bytes: int, rate: float | None = None, number: int = 0
) -> None:
    """Leave what a finished sub-volume leaves that a plan reads."""
    folder = RunPaths.of(config).infer_pass(number)
    archive = folder / "archives" / "one.tar"
    archive.parent.mkdir(parents=True, exist_ok=True)
    archive.touch()
    facts = {"box": box, "fovs": fovs, "label_bytes": label_bytes, "archive": archive.name, "end": 0}
    if rate is not None:
        facts["fovs_per_s"] = rate
    with LedgerWriter(folder / "ledger" / f"{index}", "settings", 1000) as writer:
        writer.add(index, {}, facts)


def reached(config, name: str, **values) -> None:
    folder = RunPaths.of(config).infer_jobs
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(values))


def known(fovs_per_voxel: float = 1e-3, fovs_per_s: float | None = None, concurrent: int = 1) -> Known:
    return Known(Work(fovs_per_voxel, "here"), None if fovs_per_s is None else Speed(fovs_per_s, concurrent, "here"))


# --- work and speed


def test_work_is_that_of_the_published_run_until_something_is_finished(tmp_path):
    config = configured(tmp_path)
    assert expected_work(config).fovs_per_voxel * 250**3 == pytest.approx(25_799)
    assert "published run" in expected_work(config).basis
    finished(config, 0, "0:10,0:10,0:10", 30, 100)
    finished(config, 1, "0:10,0:10,8:28", 90, 100)
    assert expected_work(config) == Work(120 / 3000, "2 finished sub-volumes of this run")


@pytest.mark.parametrize(
    ("network", "inference", "factor"),
    [
        ({"deltas": [4, 8, 8]}, {}, 2),
        ({}, {"deltas": [16, 16, 8]}, 1 / 4),
        ({"downsample": [2, 2, 2]}, {}, 1 / 8),
        ({"deltas": [0, 8, 8], "fov": [1, 33, 33]}, {}, 8),
        ({}, {"quality": "balanced"}, 1 / FEWER_FOVS["balanced"]),
        ({}, {"quality": "fast"}, 1 / FEWER_FOVS["fast"]),
        ({}, {"min_unseen": LEAST_UNSEEN["balanced"] / 2}, 2 / (1 + FEWER_FOVS["balanced"])),
        ({}, {"min_unseen": 0.9}, 1 / FEWER_FOVS["fast"]),
        # Small steps are only more offers; large ones are what they are.
        ({"deltas": [4, 4, 4]}, {"quality": "fast"}, 1 / FEWER_FOVS["fast"]),
        ({"deltas": [16, 16, 16]}, {"quality": "balanced"}, 1 / 8),
        ({"fov": [17, 33, 33]}, {"quality": "balanced"}, 33 / 17 / FEWER_FOVS["balanced"]),
        ({}, {"passes": [{}, {"quality": "fast"}]}, (1 + 1 / FEWER_FOVS["fast"]) / 2),
        ({}, {"passes": [{}, {"network": {"downsample": [2, 2, 2]}}]}, (1 + 1 / 8) / 2),
    ],
)
def test_published_work_is_scaled(tmp_path, network, inference, factor):
    config = configured(tmp_path, network=network, inference=inference)
    assert expected_work(config).fovs_per_voxel * 250**3 == pytest.approx(25_799 * factor)


def test_work_of_passes_that_differ_is_known_for_each(tmp_path):
    config = configured(tmp_path, inference={"passes": [{}, {"quality": "fast"}]})
    for number, fovs in ((0, 30), (1, 6)):
        finished(config, 0, "0:10,0:10,0:10", fovs, 0, number=number)
        expected = (0.03 + (0.006 if number else 25_799 / 250**3 / FEWER_FOVS["fast"])) / 2
        assert expected_work(config).fovs_per_voxel == pytest.approx(expected)
    assert expected_work(config).basis == "1 finished sub-volume of this run"


def test_speed_of_passes_that_differ_is_that_of_all_their_work(tmp_path):
    config = configured(tmp_path, inference={"passes": [{}, {"checkpoint": "small", "network": {"depth": 5}}]})
    assert to_measure(config) == [config.of_pass(0), config.of_pass(1)]
    store_speed(config, Speed(5.0, 1, "a measurement"))
    assert (known_speed(config), slowest_pass(config)) == (None, 1.0), "nothing is known of the second network"
    store_speed(config.of_pass(1), Speed(15.0, 1, "a measurement"))
    assert known_speed(config) == Speed(pytest.approx(2 / (1 / 5 + 1 / 15)), 1, "a measurement")
    assert slowest_pass(config) == pytest.approx(1.5)
    reached(config, "0000-0007-pass-1-rank-0.json", tiles=8, concurrent=4, fovs=300, seconds=20.0)
    assert known_speed(config).fovs_per_s == pytest.approx(2 / (1 / 5 + 1 / 15))
    assert known_speed(config).basis == "a measurement; 1 job of this run"
    reached(config, "0000-0007-pass-0-rank-0.json", tiles=8, concurrent=4, fovs=100, seconds=100.0)
    assert known_speed(config) == Speed(pytest.approx(2 / (1 + 1 / 15)), 4, "1 job of this run")
    assert known_speed(config, measured=True).fovs_per_s == pytest.approx(2 / (1 / 5 + 1 / 15))
    same = configured(tmp_path, inference={"passes": [{}, {"reverse_seeds": True}]})
    assert to_measure(same) == [same.of_pass(0)]


def test_sub_volumes_without_any_object_tell_nothing_of_the_work(tmp_path):
    config = configured(tmp_path)
    finished(config, 0, "0:10,0:10,0:10", 0, 100)
    store_speed(config, Speed(5.0, 1, "a measurement"))
    assert "published run" in expected_work(config).basis
    assert suitable_tiles(config, Machine(walltime_s=3600), extent_of(config), Known.of(config)) == 1


def test_speed_is_of_jobs_before_sub_volumes_before_a_measurement(tmp_path):
    config = configured(tmp_path)
    assert known_speed(config) is None
    store_speed(config, Speed(5.0, 1, "a measurement"))
    assert known_speed(config) == Speed(5.0, 1, "a measurement")
    assert known_speed(configured(tmp_path, network={"depth": 5})) is None
    assert known_speed(configured(tmp_path, inference={"precision": "bfloat16"})) is None
    finished(config, 0, "0:10,0:10,0:10", 30, 100, rate=7.0)
    assert known_speed(config) == Speed(7.0, 1, "1 finished sub-volume of this run")
    reached(config, "0000-0007-pass-0-rank-0.json", tiles=8, concurrent=32, fovs=900, seconds=10.0)
    reached(config, "0000-0007-pass-0-rank-1.json", tiles=8, concurrent=32, fovs=1500, seconds=20.0)
    assert known_speed(config) == Speed(80.0, 32, "2 jobs of this run")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"tiles": 1}', '{"fingerprint": "a", "units": 9}\n{"unit": 0}\n'])
def test_records_that_cannot_be_read_are_left_out(tmp_path, text):
    config = configured(tmp_path)
    ledger = RunPaths.of(config).infer_pass() / "ledger" / "0000-0000" / "one.jsonl"
    ledger.parent.mkdir(parents=True)
    ledger.write_text(text)
    RunPaths.of(config).infer_jobs.mkdir()
    (RunPaths.of(config).infer_jobs / "0000-0000.json").write_text(text)
    RunPaths.of(config).speed.parent.mkdir()
    RunPaths.of(config).speed.write_text(text)
    assert "published run" in expected_work(config).basis
    assert known_speed(config) is None


def test_facts_of_a_sub_volume_that_tell_nothing_are_left_out(tmp_path):
    config = configured(tmp_path)
    finished(config, 0, "no box", 30, 100)
    assert "published run" in expected_work(config).basis


# --- extent


def test_extent_is_that_of_the_tiling(tmp_path):
    extent = extent_of(configured(tmp_path))
    boxes = overlapping_tiles(Box.of_shape((1000,) * 3), (250,) * 3, (32,) * 3)
    assert (extent.count, extent.tile, extent.filled) == (len(boxes), boxes[0].shape, sum(box.voxels for box in boxes))
    whole = extent_of(configured(tmp_path, inference={"subvolume_size": None}))
    assert (whole.count, whole.tile, whole.overlap) == (1, (1000,) * 3, (0, 0, 0))


def test_extent_of_an_image_that_is_not_there(tmp_path):
    assert extent_of(configured(tmp_path, data={"test": {"image": "nowhere.h5:raw"}})) is None


def test_extent_is_read_from_the_image(tmp_path):
    with create_hdf5(tmp_path / "a.h5", "raw", (30, 40, 50), np.uint8, (20.0, 10.0, 10.0)):
        pass
    config = parse_config(
        {
            "run": "own",
            "data": {"test": {"image": f"{tmp_path / 'a.h5'}:raw"}},
            "network": {"fov": [9, 9, 9], "deltas": [2, 2, 2]},
            "inference": {"checkpoint": "x"},
        }
    )
    assert (extent_of(config).region, extent_of(config).voxel_size) == ((30, 40, 50), (20.0, 10.0, 10.0))


# --- jobs, times, memory


def test_arithmetic_of_jobs_and_hours(tmp_path):
    config = configured(tmp_path, inference={"passes": 2})
    extent = Extent.of((1000, 250, 250), (250, 250, 250), (0, 0, 0))
    machine = Machine(nodes=4, job_nodes=2, ranks=2, walltime_s=36000)
    plan = estimate(config, machine, extent, known(1e-3, 10.0), tiles_per_job=3)
    tile_s = 250**3 * 1e-3 / 10
    assert plan.fovs == 2 * 4 * 15625
    assert plan.tile_seconds == pytest.approx(tile_s)
    assert plan.jobs == 2 * 2  # two batches, two passes
    assert plan.job_seconds == pytest.approx(tile_s)  # four processes, three sub-volumes
    assert plan.seconds == pytest.approx(2 * tile_s)  # two jobs at once
    assert plan.node_hours == pytest.approx(4 * 2 * tile_s / 3600)
    assert plan.node_bytes == 2 * plan.process_bytes
    unknown = estimate(config, machine, extent, known(), tiles_per_job=3)
    assert (unknown.tile_seconds, unknown.job_seconds, unknown.seconds, unknown.node_hours) == (None,) * 4


def test_memory_is_that_of_the_architecture_page(tmp_path):
    config = configured(tmp_path)
    voxels = 250**3
    assert process_bytes(config, (250, 250, 250)) == PROCESS_BYTES + 24 * voxels
    assert process_bytes(config, (250, 250, 250), 3) == PROCESS_BYTES + (2 * 12 + 24) * voxels
    pooled = configured(tmp_path, network={"downsample": [1, 2, 2]})
    assert process_bytes(pooled, (250, 250, 250), 2) == PROCESS_BYTES + (3 + 4 + 24) * voxels
    wide = (250 + 32) ** 3
    mirrored = configured(tmp_path, inference={"mirror": True})
    assert process_bytes(mirrored, (250, 250, 250)) == PROCESS_BYTES + 8 * wide + 16 * voxels
    masked = configured(tmp_path, inference={"masks": [{"image": True, "max": 3}], "save_probability": True})
    assert process_bytes(masked, (250, 250, 250), 2) == PROCESS_BYTES + (15 + 27) * voxels
    listing = configured(tmp_path, inference={"seed_policy": ["PolicyPeaks", "PolicyMax"]})
    assert process_bytes(listing, (250, 250, 250), 2) == PROCESS_BYTES + (12 + 24 + 92) * voxels
    passes = configured(tmp_path, inference={"passes": [{}, {"mirror": True}]})
    assert process_bytes(passes, (250, 250, 250)) == process_bytes(mirrored, (250, 250, 250))
    text = (Path(__file__).parents[2] / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert "24 bytes x T while seeds are found (92 by" in text
    assert "12 bytes x T while filling" in text
    assert "4 bytes x T for labels in image voxels" in text
    assert "24 bytes x T while seeds are found" in text


def test_memory_that_jobs_ask_for(tmp_path):
    config = configured(tmp_path, cluster={"inference_ranks_per_node": 32})
    held = process_bytes(config, (250, 250, 250))
    assert inference_mb(config, jobs=20) == ceil(32 * held / 1e6)
    assert inference_mb(config, jobs=None) == 8000
    assert inference_mb(configured(tmp_path, data={"test": {"image": "nowhere.h5:raw"}}), None) == 8000


def test_memory_that_a_consensus_asks_for(tmp_path):
    assert consensus_mb(configured(tmp_path)) == 8000
    large = configured(tmp_path, inference={"subvolume_size": [512, 512, 512], "passes": 2})
    assert consensus_mb(large) == ceil((PROCESS_BYTES + 65 * 512**3) / 1e6)
    assert consensus_mb(configured(tmp_path, data={"test": {"image": "nowhere.h5:raw"}})) == 8000
    text = (Path(__file__).parents[2] / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert "| `consensus`, each worker | piece of each voxel, labels of one pass | 65 bytes x T" in text


@pytest.mark.parametrize("edge", [8, 32, 1024])
def test_files_of_layers_are_those_that_are_written(tmp_path, monkeypatch, edge):
    """Counted against a real export, with voxels that are not cubes and a box that begins at odd ones."""
    monkeypatch.setattr(shards, "_EDGES", ())
    monkeypatch.setattr(shards, "_LARGEST_EDGE", edge)
    config = make_run(tmp_path, chunk=[8, 16, 16], mips=4, workers=1)
    (layers,) = (o for o in outputs(config, extent_of(config), Cut()) if o.name == "layers for Neuroglancer")
    folder = export_run(config)
    assert layers.files == len([path for path in folder.rglob("*") if path.is_file()])


def test_a_huge_volume_has_few_files(tmp_path):
    config = configured(tmp_path, data={**LARGE["data"], "test": {"image": "x.h5:y", "box": "0:10000,0:10000,0:10000"}})
    (layers,) = (o for o in outputs(config, extent_of(config), Cut()) if o.name == "layers for Neuroglancer")
    # Image and segmentation: a thousand shards in each of four levels, and `info`; a state and two markers.
    assert layers.files == 2 * (4 * 1000 + 1) + 3


def test_written_sub_volumes_are_as_dense_as_those_that_are_finished(tmp_path):
    config = configured(tmp_path)
    extent, cut = extent_of(config), Cut(at_once=5)
    by_name = {output.name: output for output in outputs(config, extent, cut)}
    assert by_name["sub-volumes"].bytes == pytest.approx(0.14 * extent.filled, rel=0.02)
    assert by_name["saved states, while running"].files == 3 * 5
    finished(config, 0, "0:10,0:10,0:10", 30, 500)
    denser = {output.name: output for output in outputs(config, extent, cut)}["sub-volumes"]
    assert denser.bytes == pytest.approx(0.5 * extent.filled, rel=0.02)


def test_files_of_sub_volumes_follow_from_jobs_and_processes(tmp_path):
    """A marker, and for each job its marker and its log; for each process an archive of up to 32, ledger and record."""
    extent = replace(extent_of(configured(tmp_path)), count=200)

    def files(cut, passes=1):
        config = configured(tmp_path, inference={"passes": passes})
        return {output.name: output.files for output in outputs(config, extent, cut)}["sub-volumes"]

    assert files(Cut(tiles_per_job=1)) == 1 + 200 * (2 + 3)
    assert files(Cut(tiles_per_job=64, ranks=4)) == 1 + 4 * 2 + 4 * 4 * 3
    assert files(Cut(tiles_per_job=200)) == 1 + 2 + (7 + 2)
    # And of the consensus a marker, a job with a ledger, and at most an archive for each sub-volume.
    assert files(Cut(tiles_per_job=200), passes=3) == 3 * (1 + 2 + 9) + 1 + 3 + 200


@pytest.mark.parametrize("site", ["theta", "polaris", "slurm"])
def test_a_run_of_ten_thousand_cubed_has_fewer_than_100_000_files(tmp_path, site):
    """Three passes, agglomeration, scores and all layers, on a thousand nodes."""
    sections = {
        "data": {"test": {"image": "x.h5:y", "labels": "x.h5:z", "box": "0:10000,0:10000,0:10000"}},
        "inference": {"passes": 3, "subvolume_size": [500, 500, 500], "subvolume_overlap": [64, 64, 64]},
        "agglomeration": {"enabled": True},
    }
    config = configured(tmp_path, {**LARGE, "agglomeration": {}}, **sections)
    found, extent = known(0.0017, 500.0), extent_of(config)
    plan = estimate(config, configured_machine(config, 1000), extent, found)
    stages = Scatter(config, RunPaths.of(config), 1000, load_site(site), 500.0)
    files = {output.name: output.files for output in written(config, plan, found, stages.step_jobs)}
    del files["saved states, while running"]
    assert extent.count == 23**3
    assert sum(files.values()) < 100_000


# --- advice


def test_advice_is_the_largest_that_fits_memory(tmp_path):
    config, extent = configured(tmp_path), extent_of(configured(tmp_path))
    found = advise(config, Machine(memory=2e9), extent, known())
    assert found.extent.tile == (352, 352, 352)
    assert found.node_bytes <= 2e9 < process_bytes(config, (384, 384, 384))
    assert advise(config, Machine(memory=0.5e9), extent, known()) is None


def test_advice_fits_the_wall_time_and_gives_each_process_a_sub_volume(tmp_path):
    config, extent = configured(tmp_path), extent_of(configured(tmp_path))
    quick = advise(config, Machine(walltime_s=7200), extent, known(1e-3, 10.0))
    assert quick.extent.tile == (320, 320, 320)
    assert quick.tile_seconds <= 3600 < 352**3 * 1e-4
    many = advise(config, Machine(nodes=50, ranks=2), extent, known(1e-3, 10.0))
    assert many.extent.count >= 100
    assert Extent.of(extent.region, tuple(n + 32 for n in many.extent.tile), (32, 32, 32)).count < 100


def test_jobs_are_worth_their_wait_in_the_queue(tmp_path):
    """With nodes for all sub-volumes at once: each job works for a quarter of an hour, if its wall time allows it."""
    config, extent = configured(tmp_path), extent_of(configured(tmp_path))
    tile_s, machine = 250**3 * 1e-3 / 100, Machine(nodes=extent.count, walltime_s=6000)
    plan = estimate(config, machine, extent, known(1e-3, 100.0))
    assert 900 <= plan.job_seconds < 900 + tile_s
    short = replace(machine, walltime_s=900)
    assert estimate(config, short, extent, known(1e-3, 100.0)).job_seconds <= 450


def test_advice_for_voxels_that_are_no_cubes(tmp_path):
    config = configured(tmp_path, network={"fov": [9, 33, 33], "deltas": [2, 8, 8]})
    extent = Extent.of((400, 2000, 2000), (64, 256, 256), (32, 32, 32), (40.0, 10.0, 10.0))
    found = advise(config, Machine(memory=2e9), extent, known())
    assert found.extent.tile == (128, 576, 576)
    assert found.node_bytes <= 2e9 < process_bytes(config, (160, 608, 608))


def test_jobs_of_an_advice_fill_half_of_the_wall_time(tmp_path):
    config, extent = configured(tmp_path), extent_of(configured(tmp_path))
    tile_s = 250**3 * 1e-3 / 10
    plan = estimate(config, Machine(nodes=1, walltime_s=20 * tile_s), extent, known(1e-3, 10.0))
    assert plan.tiles_per_job == 10
    assert estimate(config, Machine(nodes=25, walltime_s=20 * tile_s), extent, known(1e-3, 10.0)).tiles_per_job == 5
    assert estimate(config, Machine(nodes=1, ranks=4), extent, known()).tiles_per_job == 4


def plan_of(config, machine: Machine, known_: Known, tiles: int = 1) -> Estimate:
    return estimate(config, machine, extent_of(config), known_, tiles)


def test_too_little_memory_is_refused_with_what_would_fit(tmp_path):
    config = configured(tmp_path)
    machine = Machine(memory=1e9)
    advice = advise(config, machine, extent_of(config), known())
    with pytest.raises(
        PlanError, match=r"250, 250, 250 voxels .* needs 1\.2 GB on a node, but it has 1\.0 GB\. Use inf"
    ):
        require_memory(plan_of(config, machine, known()), advice)
    with pytest.raises(PlanError, match=r"\(8 processes of 1\.2 GB\).*fewer ranks"):
        require_memory(plan_of(config, Machine(ranks=8, memory=4e9), known()), None)
    require_memory(plan_of(config, Machine(memory=2e9), known()), None)
    require_memory(plan_of(config, Machine(), known()), None)


def test_wall_times_that_are_too_short_are_warned_of(tmp_path):
    config = configured(tmp_path)
    tile_s = 250**3 * 1e-3
    (warning,) = warnings(plan_of(config, Machine(walltime_s=tile_s - 60), known(1e-3, 1.0)))
    assert "A sub-volume is expected to take 260 minutes, longer than the wall time of 259." in warning
    assert "It resumes" in warning
    (warning,) = warnings(plan_of(config, Machine(walltime_s=tile_s + 60), known(1e-3, 1.0), tiles=2))
    assert "lower inference.tiles_per_job" in warning
    assert warnings(plan_of(config, Machine(walltime_s=3 * tile_s), known(1e-3, 1.0), tiles=2)) == []
    assert warnings(plan_of(config, Machine(walltime_s=1), known())) == []


def test_the_slowest_pass_has_to_fit_the_wall_time(tmp_path):
    config = configured(tmp_path, inference={"passes": 2})
    tile_s = 250**3 * 1e-3
    uneven = replace(known(1e-3, 1.0), slowest=1.5)
    plan = plan_of(config, Machine(nodes=1, walltime_s=1.2 * tile_s), uneven)
    assert (plan.tile_seconds, plan.longest_job_seconds) == (tile_s, 1.5 * tile_s)
    (warning,) = warnings(plan)
    assert f"A sub-volume is expected to take {1.5 * tile_s / 60:.0f} minutes" in warning
    assert f"{1.5 * tile_s / 3600:.2f} h of the slowest pass" in table(plan, [], None)
    machine = Machine(nodes=1, walltime_s=20 * tile_s)
    assert estimate(config, machine, extent_of(config), known(1e-3, 1.0)).tiles_per_job == 10
    assert estimate(config, machine, extent_of(config), uneven).tiles_per_job == 6
    found = advise(config, Machine(walltime_s=2 * tile_s), extent_of(config), uneven)
    assert found.extent.tile == (192, 192, 192), "with 224 it would take longer than half of the wall time"


def test_machine_of_the_configuration(tmp_path):
    cluster = {"inference_nodes": 2, "inference_ranks_per_node": 4, "memory_gb": 96, "runtime_minutes": 30}
    config = configured(tmp_path, cluster=cluster, inference={"ranks": 3})
    assert configured_machine(config, None) == Machine(ranks=3, memory=96e9)
    assert configured_machine(config, 5) == Machine(10, 2, 4, 1800.0, 96e9)


# --- the command


@pytest.fixture
def config_file(tmp_path):
    """A run on a synthetic volume with a small network, of which one sub-volume is finished."""
    values = {
        "run": "planned",
        "results": str(tmp_path / "results"),
        "data": {"test": {"image": "synthetic"}},
        "synthetic": {"shape": [80, 64, 64]},
        "network": {"depth": 2, "features": 2, "fov": [9, 9, 9], "deltas": [2, 2, 2]},
        "inference": {
            "checkpoint": "nowhere", "subvolume_size": [40, 40, 64], "subvolume_overlap": [8, 16, 8],
            "intra_op_threads": 1,
        },
    }  # fmt: skip
    path = tmp_path / "planned.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def test_table_says_what_is_known_and_from_where(config_file, capsys):
    assert main(["plan", "--config", str(config_file)]) == 0
    text = capsys.readouterr().out
    assert "sub-volumes                           6 of 40 x 40 x 64, overlap 8 x 16 x 8" in text
    assert "published run" in text
    assert "nothing was measured" in text
    assert "node-hours                            not known" in text
    values = yaml.safe_load(config_file.read_text())
    config = parse_config(values)
    finished(config, 0, "0:40,0:40,0:64", 1024, 9000, rate=4.0)
    assert main(["plan", "--config", str(config_file), "--nodes", "2"]) == 0
    text = capsys.readouterr().out
    assert "6,144" in text
    assert "from 1 finished sub-volume of this run" in text
    assert "on 2 nodes" in text
    assert "suggested" in text


def test_speed_of_another_machine(config_file, capsys):
    assert main(["plan", "--config", str(config_file), "--speed", "12.5", "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert values["fovs_per_s"] == 12.5
    assert values["total_s"] == pytest.approx(values["fovs"] / 12.5, rel=1e-3)


def test_json(config_file, capsys):
    config = parse_config(yaml.safe_load(config_file.read_text()))
    finished(config, 0, "0:40,0:40,0:64", 1024, 9000, rate=0.4)
    assert main(["plan", "--config", str(config_file), "--walltime", "600", "--nodes", "3", "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert values["subvolumes"] == {"count": 6, "size": [40, 40, 64], "overlap": [8, 16, 8]}
    assert (values["fovs"], values["fovs_per_s"]) == (6144, 0.4)
    assert values["tiles_per_job"] == 2  # six over three nodes; 2,560 s each
    assert (values["jobs"], values["job_s"], values["total_s"]) == (3, 5120.0, 5120.0)
    assert values["node_hours"] == pytest.approx(3 * 5120 / 3600)
    assert set(values["written"]) == {
        "embedded volume", "sub-volumes", "saved states, while running", "assembled volume", "layers for Neuroglancer",
        "scores, report, logs",
    }  # fmt: skip
    assert values["suggested"]["subvolume_size"] == [32, 32, 32]  # the largest of which each of three nodes gets one


def test_memory_and_wall_time_on_the_command_line(config_file, capsys):
    config = parse_config(yaml.safe_load(config_file.read_text()))
    finished(config, 0, "0:40,0:40,0:64", 1024, 9000, rate=4.0)
    assert main(["plan", "--config", str(config_file), "--walltime", "1"]) == 0
    assert "longer than the wall time of 1" in capsys.readouterr().err
    assert main(["plan", "--config", str(config_file), "--memory", "0.5"]) == 2
    error = capsys.readouterr().err
    assert "needs 0.8 GB on a node, but it has 0.5 GB" in error
    assert "Traceback" not in error


def test_mistakes_on_the_command_line(config_file, capsys):
    values = yaml.safe_load(config_file.read_text())
    config_file.write_text(yaml.safe_dump(values | {"cluster": {"inference_nodes": 4}}))
    assert main(["plan", "--config", str(config_file), "--nodes", "6"]) == 2
    assert "--nodes 6 cannot be given to jobs of 4 nodes each" in capsys.readouterr().err
    config_file.write_text(yaml.safe_dump(values | {"data": {"test": {"image": "nowhere.h5:raw"}}}))
    assert main(["plan", "--config", str(config_file)]) == 2
    assert "The size of nowhere.h5:raw is not known" in capsys.readouterr().err
    for wrong in ("0", "-1", "x", "nan"):
        with pytest.raises(SystemExit):
            main(["plan", "--config", str(config_file), "--walltime", wrong])


def test_measurement_is_kept_and_used(config_file, capsys):
    """With the real network and random weights: there is no checkpoint."""
    assert main(["plan", "--config", str(config_file), "--measure", "--seconds", "0.2", "--json"]) == 0
    told = capsys.readouterr()
    first = json.loads(told.out)
    assert first["fovs_per_s"] > 0
    assert "a measurement of 0 s on this machine" in first["speed_basis"]
    assert "random weights" in told.err
    assert main(["plan", "--config", str(config_file), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["fovs_per_s"] == first["fovs_per_s"]


def test_a_measurement_counts_at_once_before_what_the_run_reached(config_file, capsys):
    finished(parse_config(yaml.safe_load(config_file.read_text())), 0, "0:40,0:40,0:64", 1024, 9000, rate=1e-6)
    assert main(["plan", "--config", str(config_file), "--measure", "--seconds", "0.1", "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert values["fovs_per_s"] > 1e-3
    assert "finished sub-volume of this run" in values["fovs_basis"]


def test_measurement_fills_batches(config_file):
    values = yaml.safe_load(config_file.read_text())
    values["inference"] |= {"batch_size": 4}
    speed = measure_speed(parse_config(values), 0.1)
    assert speed.concurrent == 8
    assert speed.fovs_per_s > 0


# --- in a dry-run


def test_outlook_is_three_lines_and_never_an_error(tmp_path):
    config = configured(tmp_path)
    lines = outlook(config, 20, 1)
    assert len(lines) == 3
    assert "125 sub-volumes of 250 x 250 x 250" in lines[0]
    assert "speed not known" in lines[1]
    store_speed(config, Speed(2.0, 1, "a measurement"))
    lines = outlook(config, 20, 1)
    assert "node-hours" in lines[1]
    assert "longer than the wall time" in lines[3]
    (line,) = outlook(configured(tmp_path, data={"test": {"image": "nowhere.h5:raw"}}), None, 1)
    assert "not known before it is there" in line


def test_table_of_a_large_run(tmp_path):
    config = configured(tmp_path, cluster={"inference_nodes": 8, "inference_ranks_per_node": 4, "memory_gb": 192})
    store_speed(config, Speed(3.0, 1, "a measurement"))
    known_, machine = Known.of(config), configured_machine(config, 16)
    plan = estimate(config, machine, extent_of(config), known_)
    text = table(plan, written(config, plan, known_), advise(config, machine, plan.extent, known_))
    assert "32 processes on 8 nodes each" in text
    assert "on 128 nodes" in text
    assert "of 192" in text
