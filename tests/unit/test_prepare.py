"""The stage that prepares training: files, resume, and mistakes in the data."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest

from ffn.cli import main
from ffn.config import Config, parse_config
from ffn.errors import DataError, FFNError, GeometryError, StageError, VolumeError
from ffn.prepare import steps, summary
from ffn.prepare.coordinates import CoordinateStream
from ffn.prepare.partitions import partition_labels
from ffn.prepare.run import prepare_training
from ffn.prepare.seeds import peak_seeds
from ffn.prepare.volume import Limits, lom_radius, training_margin

BOX = "4:40,2:44,0:46"
VICTIMS = [
    (steps, "label_sizes"),
    (steps, "large_ones"),
    (steps, "partition_box"),
    (steps, "write_classes"),
    (steps, "write_coordinates"),
    (summary, "peak_seeds"),
    (summary, "merged"),
]
LATER_VICTIMS = [
    (steps, "partition_box", 2),
    (steps, "write_classes", 1),
    (steps, "write_coordinates", 2),
    (summary, "peak_seeds", 1),
    (summary, "merged", 1),
]


@pytest.fixture
def volume(tmp_path: Path) -> tuple[Path, np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    labels = np.repeat(np.repeat(np.repeat(random.integers(1, 9, (4, 4, 4)), 12, 0), 12, 1), 12, 2).astype(np.uint64)
    wall = np.zeros(labels.shape, bool)
    for axis in range(3):
        wall |= np.take(np.arange(48) % 12 < 2, np.arange(48)).reshape([-1 if i == axis else 1 for i in range(3)])
    image = np.clip(np.where(wall, 70, 160) + random.normal(0, 8, labels.shape), 0, 255).astype(np.uint8)
    path = tmp_path / "volume.h5"
    with h5py.File(path, "w") as file:
        file["image"], file["labels"] = image, labels
        file["flat"], file["empty"] = np.full_like(image, 8), np.zeros_like(labels)
        file["short"] = labels[:30]
    return path, image, labels


def config_for(folder: Path, image: str = "image", labels: str = "labels", **changes):
    network = {"fov": [9, 9, 9], "deltas": [2, 2, 2], **changes.pop("network", {})}
    values = {
        "run": "toy",
        "results": str(folder / "results"),
        "data": {
            "train": {"image": f"{folder}/volume.h5:{image}", "labels": f"{folder}/volume.h5:{labels}", "box": BOX},
            "test": {"image": f"{folder}/volume.h5:image"},
        },
        "network": network,
        "prepare": {"min_size": 500, **changes.pop("prepare", {})},
        **changes,
    }
    return parse_config(values)


def test_files_are_those_of_the_box_with_coordinates_from_its_corner(volume, tmp_path):
    _, image, labels = volume
    prepare_training(config_for(tmp_path))
    folder = tmp_path / "results/toy/prepare"
    box = np.s_[4:40, 2:44, 0:46]
    expected = partition_labels(labels[box], lom_radius=(6, 6, 6), min_size=500)
    with h5py.File(folder / "partitions.h5") as file:
        np.testing.assert_array_equal(file["partitions"][...], expected)
    grey = (image[box].astype(np.float32) - np.float32(128)) / np.float32(33)
    seeds = np.loadtxt(folder / "seeds.csv", delimiter=",", dtype=int)
    np.testing.assert_array_equal(seeds, peak_seeds(grey, (9, 9, 9)))
    with CoordinateStream(folder / "coordinates.h5", 1) as stream:
        for i in range(300):
            centre, value = stream.draw_with_class(i)
            assert expected[centre] == value
            assert all(6 <= c < n - 6 for c, n in zip(centre, expected.shape, strict=True))
    facts = json.loads((folder / "done.json").read_text())["facts"]["data.train"]
    assert facts["seeds"] == len(seeds)
    assert sum(facts["coordinates"].values()) == (expected != 255).sum()


def test_margin_and_cube_follow_the_network_and_the_moves(tmp_path):
    config = config_for(tmp_path)
    assert training_margin(config) == lom_radius(config) == (6, 6, 6)
    far = config_for(tmp_path, training={"moves": "max_pred_moves"})
    assert training_margin(far) == (8, 8, 8)
    assert lom_radius(far) == (6, 6, 6)
    assert lom_radius(config_for(tmp_path, prepare={"lom_radius": [1, 2, 3]})) == (1, 2, 3)


@pytest.mark.usefixtures("volume")
class TestRunningAgain:
    def test_done_means_nothing_to_do(self, tmp_path, capsys):
        prepare_training(config_for(tmp_path))
        times = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "results/toy/prepare").iterdir()}
        prepare_training(config_for(tmp_path))
        assert "already complete" in capsys.readouterr().err
        assert {p.name: p.stat().st_mtime_ns for p in (tmp_path / "results/toy/prepare").iterdir()} == times

    @pytest.mark.parametrize(("module", "victim"), VICTIMS)
    def test_killed_anywhere_ends_in_the_same_files(self, tmp_path, monkeypatch, module, victim):
        prepare_training(config_for(tmp_path))
        folder = tmp_path / "results/toy/prepare"
        undisturbed = {path.name: path.read_bytes() for path in folder.iterdir()}
        for path in folder.iterdir():
            path.unlink()
        with monkeypatch.context() as patched:
            patched.setattr(module, victim, _killed)
            with pytest.raises(KeyboardInterrupt):
                prepare_training(config_for(tmp_path))
        assert not (folder / "done.json").exists()
        prepare_training(config_for(tmp_path))
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == undisturbed

    def test_other_settings_are_refused(self, tmp_path):
        prepare_training(config_for(tmp_path))
        with pytest.raises(StageError, match="min_size"):
            prepare_training(config_for(tmp_path, prepare={"min_size": 501}))


def several(folder: Path, **changes) -> Config:
    """Two volumes to learn from and one to judge on, which share a file."""
    config = config_for(folder, **changes)
    region = config.data.train.model_dump(exclude={"weight"})
    data = {
        "train": [{**region, "box": "0:24,0:48,0:48"}, {**region, "box": "24:48,0:48,0:24"}],
        "validation": {**region, "box": "24:48,0:48,24:48"},
        "test": region,
    }
    return parse_config({**config.model_dump(mode="json"), "run": "several", "data": data})


class TestSeveralVolumes:
    def test_each_has_a_folder(self, volume, tmp_path, capsys):
        _, _, labels = volume
        prepare_training(several(tmp_path))
        folder = tmp_path / "results/several/prepare"
        made = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
        files = {"partitions.h5", "coordinates.h5", "seeds.csv"}
        assert made == {
            "started.json",
            "done.json",
            *(f"volume-{index:02d}/{name}" for index in range(2) for name in files),
            *(f"validation/{name}" for name in files - {"seeds.csv"}),
        }
        boxes = {"volume-00": np.s_[:24], "volume-01": np.s_[24:, :, :24], "validation": np.s_[24:, :, 24:]}
        facts = json.loads((folder / "done.json").read_text())["facts"]
        for (name, box), key in zip(boxes.items(), facts, strict=True):
            expected = partition_labels(labels[box], lom_radius=(6, 6, 6), min_size=500)
            with h5py.File(folder / name / "partitions.h5") as file:
                np.testing.assert_array_equal(file["partitions"][...], expected)
            assert sum(facts[key]["coordinates"].values()) == (expected != 255).sum()
        assert list(facts) == ["data.train.0", "data.train.1", "data.validation"]
        assert "data.train.1: 5184 centres of examples" in capsys.readouterr().err

    @pytest.mark.usefixtures("volume")
    @pytest.mark.parametrize(("module", "victim", "call"), LATER_VICTIMS)
    def test_killed_anywhere_ends_in_the_same_files(self, tmp_path, monkeypatch, module, victim, call):
        prepare_training(several(tmp_path))
        folder = tmp_path / "results/several/prepare"
        undisturbed = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        for path in undisturbed:
            path.unlink()
        original, calls = getattr(module, victim), []

        def killed_at_some_call(*args, **options):
            calls.append(args)
            return original(*args, **options) if len(calls) <= call else _killed()

        with monkeypatch.context() as patched:
            patched.setattr(module, victim, killed_at_some_call)
            with pytest.raises(KeyboardInterrupt):
                prepare_training(several(tmp_path))
        assert not (folder / "done.json").exists()
        prepare_training(several(tmp_path))
        assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == undisturbed

    @pytest.mark.usefixtures("volume")
    def test_a_volume_without_use_leaves_the_folder_free(self, tmp_path):
        config = several(tmp_path, prepare={"min_boundary_nm": 1000.0})
        with pytest.raises(DataError, match="no usable coordinate"):
            prepare_training(config)
        prepare_training(several(tmp_path))

    @pytest.mark.usefixtures("volume")
    def test_weights_are_no_affair_of_preparation(self, tmp_path, capsys):
        prepare_training(several(tmp_path))
        config = several(tmp_path)
        volumes = [volume.model_copy(update={"weight": 7.0}) for volume in config.data.train]
        prepare_training(config.model_copy(update={"data": config.data.model_copy(update={"train": volumes})}))
        assert "already complete" in capsys.readouterr().err


@pytest.mark.usefixtures("volume")
def test_what_is_left_out_is_told_and_adds_up(tmp_path, capsys):
    config = config_for(tmp_path, prepare={"min_boundary_nm": 1.5, "lom_radius": [7, 7, 7]})
    prepare_training(config)
    facts = json.loads((tmp_path / "results/toy/prepare/done.json").read_text())["facts"]["data.train"]
    left_out, kept = facts["left_out"], sum(facts["coordinates"].values())
    assert left_out["outside"] == 36 * 42 * 46 - 24 * 30 * 34
    assert left_out["ignored"] == 24 * 30 * 34 - 22 * 28 * 32
    assert left_out["unlabelled"] == 0
    assert left_out["near_boundary"] + kept == 22 * 28 * 32
    assert left_out["near_boundary"] > 0
    share = left_out["near_boundary"] / (22 * 28 * 32)
    assert f"{share:.1%} within prepare.min_boundary_nm of another object" in capsys.readouterr().err


def _killed(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.usefixtures("volume")
class TestMistakes:
    @pytest.mark.parametrize(
        ("changes", "error", "text"),
        [
            ({"labels": "empty"}, DataError, "label volume is empty"),
            ({"prepare": {"min_size": 10**6}}, DataError, "min_size"),
            ({"image": "flat"}, DataError, "No seed"),
            ({"labels": "short"}, FFNError, "outside|shape"),
            ({"network": {"fov": [33, 33, 33], "deltas": [8, 8, 8]}}, GeometryError, "training patch"),
            ({"labels": "nope"}, VolumeError, "nope"),
        ],
    )
    def test_is_told_and_leaves_the_folder_free_for_a_better_config(self, tmp_path, changes, error, text):
        with pytest.raises(error, match=text):
            prepare_training(config_for(tmp_path, **changes))
        prepare_training(config_for(tmp_path))

    def test_no_coordinate_is_left(self, tmp_path):
        config = config_for(tmp_path, prepare={"lom_radius": [17, 20, 22]}, network={"fov": [35, 9, 9]})
        with pytest.raises((DataError, GeometryError)):
            prepare_training(config)

    def test_run_without_training(self, tmp_path):
        config = parse_config(
            {
                "run": "toy",
                "results": str(tmp_path / "results"),
                "data": {"test": {"image": "x.h5:image"}},
                "inference": {"checkpoint": "model.ckpt"},
            }
        )
        with pytest.raises(DataError, match="nothing to prepare"):
            prepare_training(config)


def test_command(volume, tmp_path, capsys):
    values = json.loads(config_for(tmp_path).model_dump_json())
    path = tmp_path / "config.yaml"
    path.write_text(json.dumps(values))  # JSON is YAML
    assert main(["prepare", "--config", str(path)]) == 2
    assert "does not state its voxel size; give data.voxel_size" in capsys.readouterr().err
    values["data"]["voxel_size"] = [10, 10, 10]
    path.write_text(json.dumps(values))
    assert main(["prepare", "--config", str(path)]) == 0
    assert (tmp_path / "results/toy/prepare/done.json").exists()


def test_large_regions_get_seeds_tile_by_tile(volume, tmp_path):
    prepare_training(config_for(tmp_path), limits=Limits(tile=(24, 30, 46), overlap=(8, 10, 8)))
    seeds = np.loadtxt(tmp_path / "results/toy/prepare/seeds.csv", delimiter=",", dtype=int)
    image = volume[1][4:40, 2:44, 0:46]
    expected = set()
    for z in (0, 12):
        for y in (0, 12):
            grey = (image[z : z + 24, y : y + 30].astype(np.float32) - np.float32(128)) / np.float32(33)
            expected |= {(a + z, b + y, c) for a, b, c in peak_seeds(grey, (9, 9, 9)).tolist()}
    assert [tuple(row) for row in seeds.tolist()] == sorted(expected)
