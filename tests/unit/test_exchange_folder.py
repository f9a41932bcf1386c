"""Sub-volumes of google/ffn as folders of this workflow and back."""

import json
import shutil

import numpy as np
import pytest
import reference_files as theirs
import skimage.measure
from stopping import refused_while_locked

from ffn.assembly.run import assemble
from ffn.cli import main
from ffn.config import parse_config
from ffn.errors import ExchangeError, StageError
from ffn.exchange.cleaning import Cleaning, clean
from ffn.exchange.folder import export_segmentation, import_segmentation
from ffn.exchange.results import read_probability, read_result
from ffn.exchange.write import write_probability
from ffn.geometry import Box
from ffn.inference.probability import probability
from ffn.inference.results import write_labels
from ffn.runs import RunPaths
from ffn.stages import Stage
from ffn.volumes import create_hdf5, open_volume


@pytest.fixture
def source(tmp_path):
    return theirs.write_file(tmp_path / "seg-30_20_10.npz")


def json_of(path):
    return json.loads(path.read_text())


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# --- import


def test_everything_arrives(tmp_path, source):
    out = tmp_path / "out"
    import_segmentation(source, out, voxel_size=(10.0, 8.0, 8.0))
    with open_volume(f"{out}/segmentation.h5:labels") as labels:
        np.testing.assert_array_equal(labels[...], theirs.LABELS)
        assert labels.dtype == np.uint64
        assert labels.voxel_size == (10.0, 8.0, 8.0)
    assert json_of(out / "origins.json") == [
        {"id": 1, "seed_zyx": [0, 1, 2], "fovs": 5, "seconds": 1.25, "voxels": 144},
        {"id": 2, "seed_zyx": [3, 4, 5], "fovs": 7, "seconds": 0.5, "voxels": 64},
        {"id": 3, "seed_zyx": [0, 5, 5], "fovs": 1, "seconds": 0.0, "voxels": 1},
    ]
    assert json_of(out / "overlaps.json") == {"2": [[1, 4]], "3": [[1, 10], [2, 3]]}
    assert json_of(out / "counters.json") == theirs.COUNTERS
    assert (out / "request.pb").read_bytes() == theirs.REQUEST
    assert json_of(out / "done.json")["settings"]["box"] == "10:16,20:27,30:38"
    assert not (out / "probability.h5").exists()


def test_a_finished_folder_is_left_alone_and_another_is_refused(tmp_path, source):
    out = tmp_path / "out"
    import_segmentation(source, out)
    before = contents(out)
    import_segmentation(source, out)
    assert contents(out) == before
    with pytest.raises(StageError, match="min_size: there 0, now 5"):
        import_segmentation(source, out, cleaning=Cleaning(min_size=5))
    assert contents(out) == before
    (out / "started.json").unlink()
    (out / "done.json").unlink()
    with pytest.raises(StageError, match=r"already holds segmentation\.h5"):
        import_segmentation(source, out)


def test_one_process_imports(tmp_path, source):
    refused_while_locked(tmp_path / "out", lambda: import_segmentation(source, tmp_path / "out"))


def test_an_interrupted_import_is_done_again(tmp_path, source):
    out = tmp_path / "out"
    import_segmentation(source, out)
    before = contents(out)
    (out / "done.json").unlink()
    (out / "origins.json").unlink()
    import_segmentation(source, out)
    assert contents(out).keys() == before.keys()
    assert contents(out)["origins.json"] == before["origins.json"]


def test_object_maps_come_along(tmp_path, source):
    q = np.random.default_rng(0).integers(0, 256, theirs.LABELS.shape, dtype=np.uint8)
    write_probability(tmp_path / "a.prob", q)
    import_segmentation(source, tmp_path / "out", probability=tmp_path / "a.prob")
    with open_volume(f"{tmp_path}/out/probability.h5:qprob") as found:
        np.testing.assert_array_equal(found[...], q)
        assert found.dtype == np.uint8
    write_probability(tmp_path / "b.prob", q[1:])
    with pytest.raises(ExchangeError, match="of the same sub-volume"):
        import_segmentation(source, tmp_path / "other", probability=tmp_path / "b.prob")
    assert not (tmp_path / "other").exists()


def test_ids_with_gaps_are_numbered_anew(tmp_path):
    labels = theirs.LABELS.astype(np.uint32) * 1000
    labels[labels == 1000] = 0
    path = theirs.write_file(
        tmp_path / "a.npz",
        segmentation=theirs.array_member(labels),
        overlaps=theirs.object_member(theirs.pickled({3000: [[1000, 2000], [4, 7]], 2000: [[1000], [1]]})),
    )
    import_segmentation(path, tmp_path / "out")
    with open_volume(f"{tmp_path}/out/segmentation.h5:labels") as found:
        np.testing.assert_array_equal(found[...], np.maximum(theirs.LABELS.astype(int) - 1, 0))
    assert json_of(tmp_path / "out/origins.json") == [{"id": 1, "voxels": 64}, {"id": 2, "voxels": 1}]
    assert json_of(tmp_path / "out/overlaps.json") == {"2": [[1, 7]]}


def test_pieces_keep_the_origin_of_their_object(tmp_path):
    labels = theirs.LABELS.copy()
    labels[:, 1] = 0
    path = theirs.write_file(tmp_path / "a.npz", segmentation=theirs.array_member(labels))
    import_segmentation(path, tmp_path / "out", cleaning=Cleaning(split=True, min_size=2))
    origins = json_of(tmp_path / "out/origins.json")
    assert [(o["id"], o["seed_zyx"], o["voxels"]) for o in origins] == [
        (1, [0, 1, 2], 48),
        (2, [0, 1, 2], 48),
        (3, [3, 4, 5], 64),
    ]
    assert not (tmp_path / "out/overlaps.json").exists()


# --- cleaning


def by_definition(labels, q, threshold, split, min_size):
    """google/ffn's rules, one voxel list at a time; objects in the order described."""
    labels = labels.astype(np.int64)
    if threshold is not None:
        labels[probability(q) < threshold] = 0
    pieces = labels
    if split:
        pieces = skimage.measure.label(labels, connectivity=1, background=0)
    ids, first, counts = np.unique(pieces, return_index=True, return_counts=True)
    kept = [n for n in np.argsort(first) if split] if split else list(range(len(ids)))
    kept = [n for n in kept if ids[n] != 0 and counts[n] >= min_size]
    result = np.zeros(labels.shape, np.uint32)
    for number, n in enumerate(kept, 1):
        result[pieces == ids[n]] = number
    return result, [0, *labels.ravel()[first[kept]]], [result.size - counts[kept].sum(), *counts[kept]]


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.uint32, np.uint64])
@pytest.mark.parametrize("threshold", [None, 0.3])
@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("min_size", [0, 1, 6])
def test_cleaning_by_definition(kind, threshold, split, min_size):
    random = np.random.default_rng(min_size)
    labels = np.repeat(random.choice([0, 2, 3, 200], (9, 5, 8)), 2, axis=1).astype(kind)
    q = random.integers(0, 256, labels.shape, dtype=np.uint8)
    q[random.random(q.shape) < 0.2] = 0
    expected, parents, voxels = by_definition(labels, q, threshold, split, min_size)
    found = clean(labels.copy(), q, Cleaning(threshold, split, min_size))
    np.testing.assert_array_equal(found.labels, expected)
    assert found.labels.dtype == np.uint32
    assert found.parents.tolist() == parents
    assert found.voxels.tolist() == voxels


def test_nothing_to_clean():
    found = clean(np.zeros((2, 3, 4), np.uint8), None, Cleaning(split=True, min_size=3))
    assert not found.labels.any()
    assert (found.parents.tolist(), found.voxels.tolist()) == ([0], [24])


# --- export


@pytest.mark.parametrize("layout", ["file", "folder"])
def test_there_and_back(tmp_path, source, layout):
    q = np.random.default_rng(0).integers(0, 256, theirs.LABELS.shape, dtype=np.uint8)
    write_probability(tmp_path / "a.prob", q)
    path = source if layout == "file" else tmp_path
    import_segmentation(path, tmp_path / "out", probability=tmp_path / "a.prob")
    exported = export_segmentation(tmp_path / "out", tmp_path / "again")
    assert exported == tmp_path / "again/30/20/seg-30_20_10.npz"
    labels, facts = read_result(exported)
    np.testing.assert_array_equal(labels, theirs.LABELS)
    assert facts == read_result(source)[1]
    np.testing.assert_array_equal(read_probability(exported.with_suffix(".prob"), q.shape), q)
    assert export_segmentation(tmp_path / "out", tmp_path / "again") == exported


def finished(folder, box, labels):
    stage = Stage(folder, {"box": str(box)})
    stage.begin()
    write_labels(folder / "segmentation.h5", labels, box, (1.0, 1.0, 1.0))
    return stage


def test_a_folder_without_origins(tmp_path):
    labels = np.zeros((3, 4, 5), np.uint8)
    labels[1:] = 1
    stage = finished(tmp_path / "a", Box((1, 2, 3), (4, 6, 8)), labels)
    (tmp_path / "a/origins.json").write_text('[{"id": 1, "voxels": 40}]')
    with pytest.raises(StageError, match="not complete"):
        export_segmentation(tmp_path / "a", tmp_path / "out")
    stage.finish()
    found, facts = read_result(export_segmentation(tmp_path / "a", tmp_path / "out"))
    np.testing.assert_array_equal(found, labels)
    assert facts.origins == {}


def test_segments_that_became_parts_of_others_are_not_told(tmp_path):
    stage = finished(tmp_path / "a", Box((0, 0, 0), (1, 1, 3)), np.array([[[1, 1, 3]]]))
    seeded = [{"id": n, "seed_zyx": [0, 0, n - 1], "fovs": n} for n in (1, 2, 3)]
    seeded[1]["joined"] = 1
    (tmp_path / "a/origins.json").write_text(json.dumps(seeded))
    (tmp_path / "a/overlaps.json").write_text('{"2": [[1, 90]], "3": [[1, 4], [2, 5]]}')
    stage.finish()
    facts = read_result(export_segmentation(tmp_path / "a", tmp_path / "out"))[1]
    assert sorted(facts.origins) == [1, 3]
    assert facts.overlaps == {3: [(1, 4)]}


def test_a_folder_with_a_broken_file(tmp_path, source):
    import_segmentation(source, tmp_path / "a")
    (tmp_path / "a/overlaps.json").write_text("{")
    with pytest.raises(StageError, match=r"overlaps\.json is no JSON"):
        export_segmentation(tmp_path / "a", tmp_path / "out")


def test_a_folder_of_something_else(tmp_path):
    stage = Stage(tmp_path / "a", {"other": 1})
    stage.begin()
    stage.finish()
    with pytest.raises(StageError, match=r"done\.json names no box"):
        export_segmentation(tmp_path / "a", tmp_path / "out")


# --- as part of a run


def test_an_imported_sub_volume_can_be_assembled(tmp_path, source):
    with create_hdf5(tmp_path / "image.h5", "image", (20, 30, 40), np.uint8, (10.0, 10.0, 10.0)):
        pass
    config = parse_config(
        {
            "run": "joined",
            "results": str(tmp_path / "results"),
            "data": {
                "test": {"image": f"{tmp_path}/image.h5:image", "box": "10:16,20:27,30:38"},
                "voxel_size": [10, 10, 10],
            },
            "network": {"depth": 2, "features": 2, "fov": [5, 5, 5], "deltas": [1, 1, 1]},
            "inference": {"checkpoint": "unused"},
        }
    )
    paths = RunPaths.of(config)
    import_segmentation(source, paths.tile(0), voxel_size=(10.0, 10.0, 10.0))
    assemble(config)
    with open_volume(paths.segmentation) as labels:
        np.testing.assert_array_equal(labels[...], theirs.LABELS)
    exported = export_segmentation(paths.assemble, tmp_path / "out")
    np.testing.assert_array_equal(read_result(exported)[0], theirs.LABELS)


# --- commands


def test_the_commands(tmp_path, source, capsys):
    q = np.full(theirs.LABELS.shape, 200, np.uint8)
    q[0] = 10
    write_probability(tmp_path / "a.prob", q)
    out = tmp_path / "out"
    options = ["--prob", str(tmp_path / "a.prob"), "--min-probability", "0.5", "--split", "--min-size", "2"]
    options += ["--voxel-size", "30,8.5,8", "--corner", "1,2,3"]
    assert main(["import-segmentation", str(source), "--output", str(out), *options]) == 0
    assert f"{out}/segmentation.h5:labels" in capsys.readouterr().out
    with open_volume(f"{out}/segmentation.h5:labels") as labels:
        assert labels.voxel_size == (30.0, 8.5, 8.0)
        np.testing.assert_array_equal(labels[1:], theirs.LABELS[1:])
        assert not labels[0].any()
    assert main(["export-segmentation", str(out), "--output", str(tmp_path / "again")]) == 0
    assert capsys.readouterr().out == f"{tmp_path}/again/3/2/seg-3_2_1.npz\n"
    truth = f"{out}/segmentation.h5:labels"
    scores = tmp_path / "scores.json"
    assert main(["evaluate", "--truth", truth, "--segmentation", truth, "--output", str(scores)]) == 0
    assert json_of(scores)["object"]["voi"] == 0


@pytest.mark.parametrize(
    "options",
    [
        ["--min-probability", "0.5"],
        ["--prob", "a.prob", "--min-probability", "1.5"],
        ["--prob", "a.prob", "--min-probability", "nan"],
        ["--min-size", "-1"],
        ["--voxel-size", "1,2"],
        ["--voxel-size", "1,inf,2"],
        ["--corner", "1,2"],
    ],
)
def test_options_that_make_no_sense(source, options, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["import-segmentation", str(source), "--output", "out", *options])
    assert ended.value.code == 2
    assert options[-2] in capsys.readouterr().err


@pytest.mark.parametrize("command", ["import-segmentation", "export-segmentation"])
def test_help_ends_in_examples(command, capsys):
    with pytest.raises(SystemExit):
        main([command, "--help"])
    assert f"Examples:\n  ffn {command} " in capsys.readouterr().out


def test_mistakes_are_one_sentence(tmp_path, source, capsys):
    cut = tmp_path / "cut.npz"
    shutil.copy(source, cut)
    cut.write_bytes(cut.read_bytes()[:-100])
    for given in (tmp_path / "nowhere.npz", cut, tmp_path / "empty"):
        (tmp_path / "empty").mkdir(exist_ok=True)
        assert main(["import-segmentation", str(given), "--output", str(tmp_path / "out")]) == 2
        text = capsys.readouterr().err
        assert text.startswith("ffn: error: ")
        assert text.count("\n") == 1
    assert not (tmp_path / "out").exists()
