"""The stage `agglomerate`: what is joined, what a proofreader gets, and that neither kills nor order show."""

import csv
import json
import shutil
import sys
from itertools import pairwise
from pathlib import Path

import neuroglancer
import numpy as np
import pyarrow.parquet as pq
import pytest
import rods
import yaml
import zarr
from flooding import Batches, ConnectedNetwork
from tiled import finished_tiles

from ffn.agglomeration import candidates as lists
from ffn.agglomeration import joining
from ffn.agglomeration import run as stage
from ffn.agglomeration.candidates import DOUBT, doubted, read_candidates, write_candidates
from ffn.agglomeration.decision_points import DecisionPoint
from ffn.agglomeration.objects import joined_segments, objects_of
from ffn.agglomeration.pairs import RANKED_BY, Pair, PairsFile, arrow_of, largest_fill, morton, ranked, schema_of
from ffn.agglomeration.records import TYPES, column_values, columns_of
from ffn.agglomeration.run import agglomerate, examine_pair
from ffn.assembly.run import assemble
from ffn.blockwise.tables import sorted_by
from ffn.cli import main
from ffn.config import parse_config
from ffn.config.inference import LEAST_UNSEEN
from ffn.errors import CheckpointError, ConfigError, DataError, StageError
from ffn.evaluation.run import evaluate_run
from ffn.exchange.folder import export_segmentation
from ffn.exchange.results import read_result
from ffn.export import export_run
from ffn.export.state import with_server
from ffn.files import write_json
from ffn.report.run import report_run
from ffn.runs import RunPaths, labels_in
from ffn.stages import Stage
from ffn.volumes import create_hdf5, open_volume

ROOT = Path(__file__).parents[2]


@pytest.fixture
def network(monkeypatch):
    network = ConnectedNetwork()
    executor = type(sys)("ffn.inference.executor")
    executor.load_executor = lambda *_, batch_size, **__: Batches(network, max(batch_size, 1))
    monkeypatch.setitem(sys.modules, executor.__name__, executor)
    return network


@pytest.fixture
def run(tmp_path):
    """A folder with a run that is ready to be agglomerated."""
    rods.make_inputs(tmp_path)
    return tmp_path


def configured(folder, **sections):
    return parse_config(rods.values(folder, **sections))


def labels_of(folder):
    with open_volume(labels_in(folder)) as volume:
        return volume[...]


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def emptied(folder):
    shutil.rmtree(folder)
    folder.mkdir()


def test_pieces_of_one_rod_are_joined_and_rods_are_not(run, network):
    config = configured(run)
    agglomerate(config)
    folder = RunPaths.of(config).agglomerate
    _, pieces = rods.rods()
    np.testing.assert_array_equal(labels_of(folder), np.where(pieces == 5, 1, pieces))
    objects = json.loads((folder / "objects.json").read_text())
    assert objects == {
        "objects_of_several": 1, "segments": 2, "listed": 2, "all": "objects.parquet", "members": {"1": [1, 5]},
    }  # fmt: skip
    assert pq.read_table(folder / "objects.parquet").to_pydict() == {"object": [1, 1], "segment": [1, 5]}
    facts = json.loads((folder / "done.json").read_text())["facts"]
    assert facts == {"pairs": 3, "tried": 3, "joined": 1, "objects": 3, "fovs": network.calls}
    assert {path.name for path in folder.iterdir()} == {
        "started.json", "done.json", "pairs.parquet", "candidates.json", "candidates.csv", "candidates.parquet",
        "objects.json", "objects.parquet", "segmentation.zarr",
    }  # fmt: skip


def test_list_for_a_proofreader(run, network):
    config = configured(run)
    agglomerate(config)
    folder = RunPaths.of(config).agglomerate
    found = {(entry["a"], entry["b"]): entry for entry in read_candidates(folder)}
    assert set(found) == {(1, 3), (1, 5), (3, 5)}
    one = found[1, 5]
    # Voxel (11, 9, 29) of the region, which begins at (2, 3, 0) of the image.
    assert (one["zyx"], one["xyz"], one["distance_nm"]) == ([13, 12, 29], [29, 12, 13], 0.0)
    assert (one["joined"], one["object_a"], one["object_b"]) == (True, 1, 1)
    assert one["iou"] > 0.95
    assert (one["voxels_a"], one["voxels_b"]) == (7 * 7 * 30, 7 * 7 * 30)
    other = found[1, 3]
    assert (other["joined"], other["reason"], other["iou"]) == (False, "iou", 0.0)
    assert (other["distance_nm"], other["object_b"]) == (10.0, 3)
    assert other["zyx"][1] == 13 + 3
    with (folder / "candidates.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    row = next(row for row in rows if (row["a"], row["b"]) == ("1", "5"))
    assert (row["xyz"], row["joined"], row["distance_nm"]) == ("29, 12, 13", "yes", "0.0")


def record(a, b, margin, **changes):
    """What might have been found for a pair."""
    places = {"zyx": [1, 2, 3], "seed_a_zyx": [4, 5, 6], "seed_b_zyx": None}
    values = {name: 0 for name in TYPES if name not in places}
    return {**values, **places, "a": a, "b": b, "joined": False, "reason": "iou", "margin": margin, **changes}


def written(folder, records, offset=(10, 20, 30), pieces=1):
    """The lists of records, of which no two are joined."""
    columns = columns_of(records)
    table = {**columns, "object_a": columns["a"], "object_b": columns["b"]}
    table = sorted_by(doubted(table), DOUBT)
    cuts = [len(records) * n // pieces for n in range(pieces + 1)]
    parts = [{name: values[a:b] for name, values in table.items()} for a, b in pairwise(cuts)]
    write_candidates(folder, iter(parts), len(records), offset)
    return read_candidates(folder)


def test_the_most_doubtful_come_first_with_their_places_in_the_source(tmp_path):
    margins = {(1, 2): -0.9, (1, 4): 0.1, (2, 3): -0.05, (5, 6): 0.1}
    records = [record(a, b, margin) for (a, b), margin in margins.items()]
    found = written(tmp_path, records)
    assert [(entry["a"], entry["b"]) for entry in found] == [(2, 3), (1, 4), (5, 6), (1, 2)]
    assert (found[0]["zyx"], found[0]["xyz"]) == ([11, 22, 33], [33, 22, 11])
    assert (found[0]["seed_a_zyx"], found[0]["seed_b_zyx"]) == ([14, 25, 36], None)
    assert written(tmp_path, records[::-1]) == found
    table = pq.read_table(tmp_path / "candidates.parquet").to_pylist()
    assert [(row["a"], row["b"]) for row in table] == [(2, 3), (1, 4), (5, 6), (1, 2)]
    assert [table[0][name] for name in ("z", "y", "x", "seed_a_z", "seed_b_x")] == [11, 22, 33, 14, None]
    assert (table[0]["reason"], table[0]["joined"], table[0]["margin"]) == ("iou", False, -0.05)


@pytest.mark.parametrize("pieces", [1, 3])
def test_the_json_is_capped_and_says_so(tmp_path, monkeypatch, pieces):
    monkeypatch.setattr(lists, "LISTED", 4)
    monkeypatch.setattr(lists, "_CHUNK", 3)
    records = [record(number, number + 1, 0.01 * number) for number in range(1, 11)]
    found = written(tmp_path, records, pieces=pieces)
    assert [entry["a"] for entry in found] == [1, 2, 3, 4]
    whole = json.loads((tmp_path / "candidates.json").read_text())
    assert {key: whole[key] for key in ("tried", "listed", "all")} == {
        "tried": 10, "listed": 4, "all": ["candidates.csv", "candidates.parquet"],
    }  # fmt: skip
    assert len((tmp_path / "candidates.csv").read_text().splitlines()) == 11
    assert pq.read_table(tmp_path / "candidates.parquet")["a"].to_pylist() == list(range(1, 11))


def test_candidates_of_earlier_versions_are_read(tmp_path):
    write_json(tmp_path / "candidates.json", [{"a": 1, "b": 2}, {"a": 1, "b": 3}])
    assert read_candidates(tmp_path) == [{"a": 1, "b": 2}, {"a": 1, "b": 3}]
    for wrong in ({"what": 1}, 7):
        write_json(tmp_path / "candidates.json", wrong)
        with pytest.raises(StageError, match=r"candidates\.json cannot be read"):
            read_candidates(tmp_path)


def test_records_are_the_same_from_columns():
    records = [
        record(2**63, 2**63 + 1, 0.1 + 0.2, joined=True, reason="no_seed_a", iou=1 / 3, fovs=2**40),
        record(3, 4, -1.0, zyx=[0, 0, 0], seed_a_zyx=[0, 0, 0], seed_b_zyx=[9, 8, 7]),
    ]
    columns = columns_of(records)
    back = [
        dict(zip(TYPES, row, strict=True)) for row in zip(*(column_values(n, columns[n]) for n in TYPES), strict=True)
    ]
    assert back == records
    assert {name: len(values) for name, values in columns_of([]).items()} == dict.fromkeys(TYPES, 0)


def test_joined_segments_get_the_lowest_id_whatever_the_order():
    pairs = [(5, 9), (2, 7), (7, 9), (3, 4)]
    ids = np.arange(1, 10, dtype=np.uint64)

    def merged_ids(pairs):
        a, b = np.array(pairs, np.uint64).reshape(-1, 2).T
        joined = joined_segments(ids, [(a[:2], b[:2]), (a[2:], b[2:])])
        assert (np.diff(joined["segment"].astype(int)) > 0).all()
        return objects_of(np.append(ids, np.uint64(10)), joined["segment"], joined["object"]).tolist()

    for order in (pairs, pairs[::-1]):
        assert merged_ids(order) == [1, 2, 3, 3, 2, 6, 2, 8, 2, 10]
    assert merged_ids([]) == list(range(1, 11))


def test_no_pairs_is_a_result(tmp_path, network):
    image, labels = rods.rods()
    labels[labels != 3] = 0
    rods.make_inputs(tmp_path, image, labels)
    config = configured(tmp_path)
    agglomerate(config)
    folder = RunPaths.of(config).agglomerate
    np.testing.assert_array_equal(labels_of(folder), labels)
    assert read_candidates(folder) == []
    assert (folder / "candidates.csv").read_text().startswith("a,b,joined,")
    assert network.calls == 0


def test_candidates_are_limited_by_rank_and_size_and_counted_before(run, network, capsys):
    config = configured(run, agglomeration={**rods.values(run)["agglomeration"], "max_pairs": 1})
    agglomerate(config)
    found = read_candidates(RunPaths.of(config).agglomerate)
    assert [(entry["a"], entry["b"]) for entry in found] == [(1, 5)]
    text = capsys.readouterr().err
    assert "3 pairs of segments meet, 1 of them are tried" in text
    assert f"2 fills of at most {largest_fill(config)} fields of view" in text
    assert max(entry["fovs"] for entry in found) <= 2 * largest_fill(config)


def test_order_of_the_pairs(tmp_path):
    a, b = np.array([[1, 2], [1, 3], [2, 3], [2, 9], [4, 5]], np.uint64).T
    sizes = np.array([[9, 100], [50, 40], [1, 1], [40, 90], [100, 8]])
    depth, zyx = np.array([5000, 5000, 0, 5000, 5000]), np.arange(15).reshape(5, 3)
    table = {"a": a, "b": b, "depth": depth, "zyx": zyx, "voxels_a": sizes[:, 0], "voxels_b": sizes[:, 1]}
    table = sorted_by(ranked(table), RANKED_BY)
    path = tmp_path / "pairs.parquet"
    pq.write_table(arrow_of(table).cast(schema_of("these")), path)
    expected = [(2, 3), (1, 3), (2, 9), (1, 2), (4, 5)]
    pairs = rods.read_pairs(path)
    assert [(pair.point.a, pair.point.b) for pair in pairs] == expected
    assert pairs[0] == Pair(DecisionPoint(2, 3, 0.0, (6, 7, 8)), 1, 1)
    file = PairsFile(path)
    assert file.made_from == "these"
    assert file.between(3, 1) == file.between(1, 3) == pairs[1] == Pair(DecisionPoint(1, 3, 5.0, (3, 4, 5)), 50, 40)
    assert [file.between(*pair) for pair in ((1, 4), (-1, 2))] == [None, None]
    assert [file.meets(number) for number in (9, 6, -1)] == [True, False, False]
    path.write_text("no")
    with pytest.raises(StageError, match=r"pairs\.parquet cannot be read .*; delete it"):
        PairsFile(path)


def test_near_places_are_near_in_the_order_of_the_groups():
    places = np.stack(np.unravel_index(np.arange(8**3), (8, 8, 8)), axis=1)
    order = np.argsort(morton(places))
    assert len(set(morton(places).tolist())) == 8**3
    for begin in range(0, 8**3, 8):
        # Each eight are a cube of two.
        cube = places[order[begin : begin + 8]]
        assert (np.ptp(cube, axis=0) == 1).all()
    assert morton(np.array([[2**21 - 1] * 3])).tolist() == [2**63 - 1]
    assert morton(np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [2, 0, 0]])).tolist() == [4, 2, 1, 32]


def test_crumbs_are_candidates_only_where_they_count_as_segments(run, network):
    config = configured(run, agglomeration={**rods.values(run)["agglomeration"], "min_segment_size": 8})
    agglomerate(config)
    assert (3, 4) in {(entry["a"], entry["b"]) for entry in read_candidates(RunPaths.of(config).agglomerate)}


@pytest.mark.parametrize("block", [[8, 16, 32], [128, 128, 128]])
def test_blocks_do_not_show(run, network, block):
    config = configured(run, assembly={"block": block})
    agglomerate(config)
    folder = RunPaths.of(config).agglomerate
    _, pieces = rods.rods()
    np.testing.assert_array_equal(labels_of(folder), np.where(pieces == 5, 1, pieces))
    assert [entry["zyx"] for entry in read_candidates(folder) if entry["joined"]] == [[13, 12, 29]]


def test_pairs_that_were_tried_are_not_tried_again(run, network, monkeypatch):
    config = configured(run)
    folder = RunPaths.of(config).agglomerate

    def full(*_):
        raise OSError("full")

    with monkeypatch.context() as patch:
        patch.setattr(joining, "write_candidates", full)
        with pytest.raises(OSError, match="full"):
            agglomerate(config)
    calls = network.calls
    assert calls > 0
    agglomerate(config)
    assert network.calls == calls
    assert not (folder / "steps").exists()
    first = contents(folder)
    emptied(folder)
    agglomerate(config)
    assert contents(folder) == first


@pytest.mark.parametrize(("batch_size", "concurrent"), [(4, 0), (3, 7)])
def test_batches_do_not_show_in_the_files(run, network, batch_size, concurrent):
    folder = RunPaths.of(configured(run)).agglomerate
    agglomerate(configured(run))
    expected = contents(folder)
    emptied(folder)
    values = {**rods.values(run)["inference"], "batch_size": batch_size, "concurrent": concurrent}
    agglomerate(configured(run, inference=values))
    assert contents(folder) == expected


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"quality": "fast"}, rf"inference\.least_unseen: there 0\.0, now {LEAST_UNSEEN['fast']}"),
        ({"quality": "fast", "min_unseen": 0}, r"inference\.offers_compared: there 1, now 4"),
        ({"precision": "bfloat16"}, r"inference\.precision: there 'float32', now 'bfloat16'"),
        ({"passes": [{"move_threshold": 0.8}]}, r"inference\.move_threshold: there None, now 0\.8"),
    ],
)
def test_what_fills_a_pair_otherwise_is_another_result(run, network, change, problem):
    agglomerate(configured(run))
    with pytest.raises(StageError, match=problem):
        agglomerate(configured(run, inference={**rods.values(run)["inference"], **change}))


def test_the_first_pass_decides_the_network(run, network, monkeypatch):
    """Its checkpoint, its network voxels and its levels; how it turns a sub-volume does not matter."""
    for suffix in (".index", ".data-00000-of-00001"):
        (run / f"model.ckpt{suffix}").rename(run / f"other.ckpt{suffix}")
    loaded = []
    executor = sys.modules["ffn.inference.executor"]

    def load(chosen, checkpoint, **_):
        loaded.append((chosen.downsample, checkpoint.name))
        return Batches(network)

    monkeypatch.setattr(executor, "load_executor", load)
    first = {"turn": 3, "checkpoint": str(run / "other.ckpt"), "network": {"downsample": [1, 2, 2]}}
    values = {**rods.values(run)["inference"], "passes": [first, {}]}
    config = configured(run, inference=values, agglomeration={"enabled": True, "min_segment_size": 100})
    agglomerate(config)
    assert loaded == [((1, 2, 2), "other.ckpt")]
    record = read_candidates(RunPaths.of(config).agglomerate)[0]
    # Seeds lie in the middle of voxels of 1 x 2 x 2; the region begins at (2, 3, 0).
    assert [(record["seed_a_zyx"][1] - 3) % 2, record["seed_a_zyx"][2] % 2] == [1, 1]


def test_scores_export_and_report_show_the_joined_objects(run, network, monkeypatch):
    config = configured(run)
    paths = RunPaths.of(config)
    for work in (evaluate_run, export_run):
        with pytest.raises(StageError, match="ffn agglomerate"):
            work(config)
    agglomerate(config)
    evaluate_run(config)
    assert json.loads(paths.scores.read_text())["excluded"]["voi"] == 0.0
    export_run(config)
    report_run(config)
    state = json.loads((paths.export / "state.json").read_text())
    assert [layer["name"] for layer in state["layers"]] == ["image", "segmentation", "truth", "candidates"]
    points = {point["id"]: point for point in state["layers"][-1]["annotations"]}
    assert points["1-5"]["point"] == [29.5, 12.5, 13.5]
    assert points["1-5"]["segments"] == [["1"]]
    assert points["1-3"]["segments"] == [["1", "3"]]
    assert "not joined: iou (-1.00)" in points["1-3"]["description"]
    served = with_server(state, "http://here:1")
    assert served["layers"][0]["source"] == "precomputed://http://here:1/image"
    read = neuroglancer.ViewerState(served).layers["candidates"]
    assert (read.type, read.source[0].url, len(read.annotations)) == ("annotation", "local://annotations", 3)
    assert read.linked_segmentation_layer.to_json() == {"objects": "segmentation"}

    apart = configured(run, agglomeration={"enabled": False})
    assert labels_in(RunPaths.of(apart).segmented) == labels_in(paths.assemble)
    assert labels_in(paths.segmented) != labels_in(paths.assemble)


def test_the_result_goes_to_google_ffn(run, network):
    config = configured(run)
    agglomerate(config)
    path = export_segmentation(RunPaths.of(config).agglomerate, run / "out")
    assert path == run / "out" / "0" / "3" / "seg-0_3_2.npz"
    np.testing.assert_array_equal(read_result(path)[0], labels_of(RunPaths.of(config).agglomerate))


def test_filling_comes_after_joining(run, network):
    """Otherwise what was filled in would look like what an object took."""
    config = configured(run, assembly={"fill_nm": 10})
    agglomerate(config)
    _, pieces = rods.rods()
    filled = labels_of(RunPaths.of(config).agglomerate)
    assert (filled[pieces != 0] == np.where(pieces == 5, 1, pieces)[pieces != 0]).all()
    assert (filled[8:15, 13] == 1).all()
    assert (filled[8:15, 14] == 3).all()
    assert np.count_nonzero(filled) > np.count_nonzero(pieces)


@pytest.mark.parametrize("kind", ["uint32", "uint64"])
def test_type_and_chunks_are_those_of_the_assembly(run, network, kind):
    """Blocks of whole chunks: none is written twice."""
    config = configured(run, assembly={"dtype": kind, "block": [20, 30, 100]})
    agglomerate(config)
    array = zarr.open(RunPaths.of(config).agglomerate / "segmentation.zarr")["0"]
    assert (array.dtype, array.chunks, array.shards) == (np.dtype(kind), (20, 30, 50), (120, 120, 100))
    _, pieces = rods.rods()
    np.testing.assert_array_equal(labels_of(RunPaths.of(config).agglomerate), np.where(pieces == 5, 1, pieces))


def test_segments_that_meet_no_other_keep_their_ids(tmp_path, network):
    image, labels = rods.rods()
    labels[labels == 4] = 2**20
    rods.make_inputs(tmp_path, image, labels)
    config = configured(tmp_path)
    agglomerate(config)
    np.testing.assert_array_equal(labels_of(RunPaths.of(config).agglomerate), np.where(labels == 5, 1, labels))
    marker = RunPaths.of(config).agglomerate / "done.json"
    assert json.loads(marker.read_text())["facts"]["objects"] == 3


def test_a_marker_that_is_none(run, network):
    (RunPaths.of(configured(run)).assemble / "done.json").write_text("[")
    with pytest.raises(StageError, match="is not a marker of this workflow"):
        agglomerate(configured(run))


def test_assembly_leaves_the_filling_to_agglomeration(tmp_path):
    image, labels = rods.rods()
    rods.make_inputs(tmp_path, image, labels)
    box = rods.Box.parse(rods.values(tmp_path)["data"]["test"]["box"])
    finished_tiles(tmp_path / "results" / "rods" / "infer", [box], [labels], voxel_size=rods.VOXELS)
    (tmp_path / "results" / "rods" / "assemble" / "done.json").unlink()
    config = configured(tmp_path, assembly={"fill_nm": 10})
    assemble(config)
    assert np.count_nonzero(labels_of(RunPaths.of(config).assemble)) == np.count_nonzero(labels)
    with pytest.raises(StageError, match=r"assembly\.fill_nm: there 0\.0, now 10\.0"):
        assemble(configured(tmp_path, assembly={"fill_nm": 10}, agglomeration={"enabled": False}))


def test_pooled_network_voxels(tmp_path, network):
    image, labels = (array.repeat(2, 1).repeat(2, 2) for array in rods.rods())
    rods.make_inputs(tmp_path, image, labels, (20.0, 10.0, 10.0))
    sections = rods.values(tmp_path)
    box = str(rods.Box.of_shape(image.shape).shifted(rods.OFFSET))
    config = configured(
        tmp_path,
        data={"test": {**sections["data"]["test"], "box": box}},
        network={"downsample": [1, 2, 2]},
    )
    agglomerate(config)
    folder = RunPaths.of(config).agglomerate
    np.testing.assert_array_equal(labels_of(folder), np.where(labels == 5, 1, labels))
    one = next(entry for entry in read_candidates(folder) if entry["joined"])
    assert one["zyx"][2] == 59
    assert {entry["joined"] for entry in read_candidates(folder)} == {True, False}


def test_a_run_of_an_earlier_version(run, network):
    """Finished, it is taken as it is, and its lists and labels are read; unfinished, it is refused."""
    config = configured(run)
    paths = RunPaths.of(config)
    agglomerate(config)
    folder, labels = paths.agglomerate, labels_of(paths.agglomerate)
    marker = json.loads((folder / "done.json").read_text())
    older = {key: value for key, value in marker["settings"].items() if key != "shard"}
    candidates = read_candidates(folder)
    emptied(folder)
    with create_hdf5(folder / "segmentation.h5", "labels", labels.shape, np.uint64, rods.VOXELS) as volume:
        volume.write(rods.Box.of_shape(labels.shape), labels)
    write_json(folder / "candidates.json", candidates)
    for name in ("pairs.h5", "objects.json"):
        (folder / name).write_text("of an earlier version")
    Stage(folder, older).finish(**marker["facts"])
    before, calls = contents(folder), network.calls
    agglomerate(config)
    assert contents(folder) == before
    assert network.calls == calls
    assert read_candidates(folder) == candidates
    evaluate_run(config)
    export_run(config)
    report_run(config)
    assert json.loads(paths.scores.read_text())["excluded"]["voi"] == 0.0
    with pytest.raises(StageError, match=r"agglomeration\.min_iou: there 0\.8, now 0\.9"):
        agglomerate(configured(run, agglomeration={**rods.values(run)["agglomeration"], "min_iou": 0.9}))

    emptied(folder)
    Stage(folder, older).begin()
    (folder / "results.jsonl").write_text('{"a": 1')
    with pytest.raises(StageError, match=r"shard: there None, now .*delete that folder to start over"):
        agglomerate(config)
    assert (folder / "results.jsonl").exists()


def test_finished_stage_does_nothing_and_other_thresholds_are_refused(run, network):
    config = configured(run)
    agglomerate(config)
    folder = RunPaths.of(config).agglomerate
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    (folder / "steps" / "join").mkdir(parents=True)
    (folder / "steps" / "join" / "left by a kill after the end").touch()
    agglomerate(config)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()} == before
    assert not (folder / "steps").exists()
    with pytest.raises(StageError, match=r"agglomeration\.min_iou: there 0\.8, now 0\.9"):
        agglomerate(configured(run, agglomeration={**rods.values(run)["agglomeration"], "min_iou": 0.9}))


def test_one_pair_can_be_looked_at(run, network, capsys):
    config = run / "config.yaml"
    config.write_text(yaml.safe_dump(rods.values(run)))
    assert main(["agglomerate", "--config", str(config), "--pair", "5", "1"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["a"], found["b"], found["joined"], found["xyz"]) == (1, 5, True, [29, 12, 13])
    assert not RunPaths.of(configured(run)).agglomerate.exists()


def test_pairs_that_are_listed_are_not_looked_for_again(run, network, monkeypatch):
    config = configured(run)
    found = examine_pair(config, 5, 1)
    agglomerate(config)

    def scanned(*_):
        raise AssertionError("the volume is looked at again")

    settings = rods.values(run)["agglomeration"]
    with monkeypatch.context() as patch:
        patch.setattr(stage, "finding_tasks", scanned)
        assert examine_pair(config, 5, 1) == found
        with pytest.raises(DataError, match="Segment 99 meets no other"):
            examine_pair(config, 1, 99)
        stricter = examine_pair(configured(run, agglomeration={**settings, "max_smaller_segment": 1}), 5, 1)
        assert (stricter["iou"], stricter["joined"]) == (found["iou"], False)
    # Other pairs meet where segments are extended less.
    with pytest.raises(DataError, match="Segment 3 meets no other"):
        examine_pair(configured(run, agglomeration={**settings, "max_distance_nm": 5}), 1, 3)


def test_unknown_segments_and_pairs_that_do_not_meet(run, network):
    config = configured(run)
    with pytest.raises(DataError, match=r"Segment 99 meets no other .*at least agglomeration\.min_segment_size"):
        examine_pair(config, 1, 99)
    near = configured(run, agglomeration={**rods.values(run)["agglomeration"], "max_distance_nm": 5})
    with pytest.raises(DataError, match="Segment 3 meets no other"):
        examine_pair(near, 1, 3)
    with pytest.raises(DataError, match=r"Segments 1 and 1 .* do not meet"):
        examine_pair(config, 1, 1)


def test_mistakes_leave_no_trace(run, network):
    config = configured(run)
    folder = RunPaths.of(config).agglomerate
    (run / "model.ckpt.index").rename(run / "away")
    with pytest.raises(CheckpointError, match="There is no checkpoint"):
        agglomerate(config)
    (run / "away").rename(run / "model.ckpt.index")
    marker = run / "results" / "rods" / "assemble" / "done.json"
    marker.rename(run / "marker")
    with pytest.raises(StageError, match="run `ffn assemble"):
        agglomerate(config)
    (run / "marker").rename(marker)
    data = rods.values(run)["data"]
    other = configured(run, data={**data, "test": {**data["test"], "box": "2:25,3:43,0:50"}})
    with pytest.raises(DataError, match=r"shape \(23, 40, 60\), the test region .*\(23, 40, 50\)"):
        agglomerate(other)
    assert not folder.exists()
    agglomerate(config)


def test_weights_of_another_network_leave_no_trace(run, network, monkeypatch):
    def refuse(*_, **__):
        raise CheckpointError("another architecture")

    monkeypatch.setattr(sys.modules["ffn.inference.executor"], "load_executor", refuse)
    config = configured(run)
    for work in (agglomerate, lambda config: examine_pair(config, 1, 99)):
        with pytest.raises(CheckpointError, match="another architecture"):
            work(config)
    assert not RunPaths.of(config).agglomerate.exists()


def test_nothing_is_agglomerated_that_is_not_enabled(run, network):
    config = configured(run, agglomeration={"enabled": False})
    for work in (agglomerate, lambda config: examine_pair(config, 1, 5)):
        with pytest.raises(ConfigError, match=r"agglomeration\.enabled is false\. Set it to true"):
            work(config)
    assert not RunPaths.of(config).agglomerate.exists()


def test_an_assembly_that_is_already_filled_is_refused(run, network):
    config = configured(run, assembly={"fill_nm": 10})
    write_json(RunPaths.of(config).assemble / "done.json", {"settings": {"assembly": {"fill_nm": 10.0}}})
    with pytest.raises(StageError, match=r"gaps already filled .*run `ffn assemble"):
        agglomerate(config)
    assert not RunPaths.of(config).agglomerate.exists()


def test_voxel_size_must_be_known(tmp_path, network):
    rods.make_inputs(tmp_path, voxel_size=None)
    with pytest.raises(ConfigError, match=r"max_distance_nm is in nanometres.*data\.voxel_size"):
        agglomerate(configured(tmp_path))
    data = rods.values(tmp_path)["data"]
    agglomerate(configured(tmp_path, data={**data, "voxel_size": [10, 10, 10]}))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"radius": [5, 12, 16], "analysis_radius": [5, 8, 8]}, r"radius 5 along z holds no fov 9 .* at least 6"),
        ({"analysis_radius": [8, 8, 17]}, "analysis_radius 17 along x reaches beyond radius 16"),
        ({"deleted_to": 0.9}, r"deleted_to 0\.9 is above deleted_from 0\.8"),
        ({"min_iou": 1.5}, r"agglomeration\.min_iou is 1\.5"),
    ],
)
def test_configurations_that_cannot_work(tmp_path, change, problem):
    with pytest.raises(ConfigError, match=problem):
        configured(tmp_path, agglomeration={**rods.values(tmp_path)["agglomeration"], **change})


def test_candidates_that_cannot_be_read(tmp_path):
    written(tmp_path, [])
    (tmp_path / "candidates.json").unlink()
    with pytest.raises(StageError, match="run `ffn agglomerate`"):
        read_candidates(tmp_path)
