"""Volumes too large to list all centres of examples: a sample of a fixed grid, a store, whoever does the units."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import forks
import h5py
import numpy as np
import pytest
import yaml
from preparing_process import LIMITS
from scipy import ndimage

from ffn.blockwise import EVERYTHING, BlockwiseStage, JobPart, Share
from ffn.cli import main
from ffn.config import Config, parse_config
from ffn.errors import DataError, StageError
from ffn.prepare import run as preparation
from ffn.prepare.coordinates import CoordinateStream
from ffn.prepare.run import prepare_training
from ffn.prepare.sample import shares
from ffn.prepare.volume import Limits
from ffn.training.examples import ExampleSource, LaneStream, patch_size
from ffn.volumes import open_volume

LISTED = replace(LIMITS, listed=10**9)
STEPS = ["label_sizes", "objects", "classes", "class_counts", "sample", "coordinates", "seeds", "summary"]


@pytest.fixture(scope="module")
def values(tmp_path_factory) -> dict[str, object]:
    """A configuration of a volume of cells with unknown places, and a part of it to judge on."""
    folder = tmp_path_factory.mktemp("volume")
    random = np.random.default_rng(4)
    points = random.uniform(0, 60, (30, 3))
    grid = np.moveaxis(np.indices((60, 50, 46)), 0, -1)
    labels = 1 + np.argmin([((grid - point) ** 2).sum(axis=-1) for point in points], axis=0).astype(np.uint64)
    border = ndimage.maximum_filter(labels, 3) != ndimage.minimum_filter(labels, 3)
    image = np.where(border, 70, 170) + random.normal(0, 6, labels.shape)
    labels[labels == 7] = 0
    with h5py.File(folder / "volume.h5", "w") as file:
        file["image"], file["labels"] = image.clip(0, 255).astype(np.uint8), labels * 1000
        for name in ("image", "labels"):
            file[name].attrs["voxel_size_nm"] = (10.0, 10.0, 10.0)
    region = {"image": f"{folder}/volume.h5:image", "labels": f"{folder}/volume.h5:labels"}
    return {
        "run": "large",
        "seed": 5,
        "data": {
            "train": {**region, "box": "0:40,0:50,0:46"},
            "validation": {**region, "box": "40:60,0:50,0:46"},
            "test": region,
        },
        "network": {"fov": [9, 9, 9], "deltas": [2, 2, 2]},
        "prepare": {"min_size": 3000, "min_boundary_nm": 10.0},
    }


def config_in(folder: Path, values: dict[str, object]) -> Config:
    return parse_config({**values, "results": str(folder / "results")})


def made(folder: Path) -> dict[str, bytes]:
    """Contents of all that is in the folder of the stage."""
    prepare = folder / "results/large/prepare"
    return {str(path.relative_to(prepare)): path.read_bytes() for path in prepare.rglob("*") if path.is_file()}


def stored(path: Path) -> dict[str, np.ndarray]:
    with h5py.File(path, locking=False) as file:
        return {name: file[name][...] for name in file}


@pytest.fixture(scope="module")
def undisturbed(values, tmp_path_factory) -> Path:
    """What one process makes of it at once."""
    folder = tmp_path_factory.mktemp("undisturbed")
    prepare_training(config_in(folder, values), limits=LIMITS)
    return folder


@pytest.fixture(scope="module")
def listed(values, tmp_path_factory) -> Path:
    """The same volume, with a list of all centres."""
    folder = tmp_path_factory.mktemp("listed")
    prepare_training(config_in(folder, values), limits=LISTED)
    return folder


class TestSample:
    def test_everything_else_is_as_in_a_small_volume(self, undisturbed, listed):
        large, small = (folder / "results/large/prepare" for folder in (undisturbed, listed))
        assert (large / "seeds.csv").read_bytes() == (small / "seeds.csv").read_bytes()
        for name in (".", "validation"):
            store = open_volume(str(large / name / "partitions.zarr"))
            np.testing.assert_array_equal(store[...], open_volume(f"{small / name}/partitions.h5:partitions")[...])
            assert store.voxel_size == (10.0, 10.0, 10.0)
            assert not (large / name / "partitions.h5").exists()
            with (
                CoordinateStream(large / name / "coordinates.h5", 1) as a,
                CoordinateStream(small / name / "coordinates.h5", 1) as b,
            ):
                assert a.drawn_from == b.counts == b.drawn_from
                assert a.left_out == b.left_out
                assert a.left_out["near_boundary"] > 0
                assert (a.left_out["unlabelled"] > 0) == (name == ".")

    def test_a_sample_of_everything_is_the_list(self, values, listed, tmp_path):
        prepare_training(config_in(tmp_path, values), limits=replace(LIMITS, per_class=10**6))
        for name in ("coordinates.h5", "validation/coordinates.h5"):
            every, sampled = (
                stored(listed / "results/large/prepare" / name),
                stored(tmp_path / "results/large/prepare" / name),
            )
            assert every.keys() == sampled.keys()
            for value, indices in every.items():
                assert sampled[value].dtype == indices.dtype
                np.testing.assert_array_equal(sampled[value], indices)

    def test_each_block_gives_its_share_of_each_class_and_nothing_twice(self, undisturbed, listed):
        every, sampled = (stored(folder / "results/large/prepare/coordinates.h5") for folder in (listed, undisturbed))
        assert every.keys() == sampled.keys()
        shape = (40, 50, 46)
        assert any(len(indices) > LIMITS.per_class for indices in every.values())
        for name, indices in every.items():
            drawn = sampled[name]
            assert len(drawn) == min(len(indices), LIMITS.per_class)
            assert len(np.unique(drawn)) == len(drawn)
            assert np.isin(drawn, indices).all()
            there, given = (_by_block(part, shape) for part in (indices, drawn))
            assert np.abs(given - there * (len(drawn) / len(indices))).max() < 1

    def test_order_within_a_class_is_not_that_of_the_volume(self, undisturbed):
        drawn = stored(undisturbed / "results/large/prepare/coordinates.h5")["class_000"].astype(np.int64)
        assert abs(np.corrcoef(drawn, np.arange(len(drawn)))[0, 1]) < 0.25

    def test_another_seed_draws_others_to_learn_from_and_the_same_to_judge_on(self, values, undisturbed, tmp_path):
        prepare_training(config_in(tmp_path, {**values, "seed": 6}), limits=LIMITS)
        for name, same in (("coordinates.h5", False), ("validation/coordinates.h5", True)):
            one, other = (stored(folder / "results/large/prepare" / name) for folder in (undisturbed, tmp_path))
            assert {key: len(part) for key, part in one.items()} == {key: len(part) for key, part in other.items()}
            largest = max(one, key=lambda key: len(one[key]))
            one, other = one[largest], other[largest]
            assert len(one) == LIMITS.per_class
            assert (set(one.tolist()) == set(other.tolist())) == same

    def test_what_is_drawn_does_not_depend_on_the_shards(self, values, undisturbed, tmp_path):
        prepare_training(config_in(tmp_path, values), limits=replace(LIMITS, shard=(12, 48, 36)))
        name = "results/large/prepare/coordinates.h5"
        one, other = stored(undisturbed / name), stored(tmp_path / name)
        assert all(np.array_equal(one[key], other[key]) for key in one)

    def test_facts(self, undisturbed, listed):
        facts, every = (
            json.loads((folder / "results/large/prepare/done.json").read_text())["facts"]["data.train"]
            for folder in (undisturbed, listed)
        )
        assert facts["drawn_from"] == every["coordinates"]
        assert set(every) == {"seeds", "coordinates", "left_out"}
        assert facts["seeds"] == every["seeds"]
        assert facts["left_out"] == every["left_out"]
        wanted = {value: min(count, LIMITS.per_class) for value, count in every["coordinates"].items()}
        assert facts["coordinates"] == wanted


def _by_block(indices: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """How many of the voxels lie in each block."""
    blocks = tuple(-(-n // 12) for n in shape)
    places = [axis // 12 for axis in np.unravel_index(indices.astype(np.int64), shape)]
    return np.bincount(np.ravel_multi_index(places, blocks), minlength=np.prod(blocks))


class TestShares:
    def test_add_up_and_are_exact_to_less_than_one(self):
        random = np.random.default_rng(1)
        for most in (1, 7, 1000, 99_999):
            held = random.integers(0, 1000, 500) * random.integers(0, 2, 500)
            given = shares(held, most)
            total = held.sum()
            assert given.sum() == min(most, total)
            assert (given <= held).all()
            assert (given >= 0).all()
            assert np.abs(np.cumsum(given) - np.cumsum(held) * (min(most, total) / total)).max() < 1

    def test_of_more_voxels_than_64_bits_can_multiply(self):
        given = shares(np.full(1000, 2**62 // 1000, np.int64), 10**7)
        assert given.sum() == 10**7
        assert set(given.tolist()) == {10**4}


class TestTraining:
    def test_draws_from_a_sample_as_from_a_list(self, values, undisturbed):
        config = config_in(undisturbed, values)
        source = ExampleSource(config)
        example = source.load(LaneStream(0, 1), 0)
        assert example.image.shape == patch_size(config)
        folder = undisturbed / "results/large/prepare"
        assert source.available == sum(len(indices) for indices in stored(folder / "coordinates.h5").values())
        partitions = open_volume(str(folder / "partitions.zarr"))[...]
        with CoordinateStream(folder / "coordinates.h5", config.seed) as stream:
            for index in range(len(stream.counts) * LIMITS.per_class):
                centre, value = stream.draw_with_class(index)
                assert partitions[centre] == value
        assert source.left_out == 0
        held_out = ExampleSource.for_validation(config)
        assert held_out.load(LaneStream(0, 1), 0).labels.max() > 0


class TestWhoeverDoesIt:
    def test_steps_one_by_one_in_parts_and_backwards(self, values, undisturbed, tmp_path, monkeypatch):
        config = config_in(tmp_path, values)
        todo = BlockwiseStage._undone
        monkeypatch.setattr(
            BlockwiseStage, "_undone", lambda self, ledger, units, part: todo(self, ledger, list(units)[::-1], part)
        )
        for step in STEPS:
            for part in (2, 0, 1):
                prepare_training(config, Share(step, JobPart(part, 3)), limits=LIMITS)
        assert made(tmp_path) == made(undisturbed)

    def test_a_step_before_its_time_is_refused(self, values, tmp_path):
        with pytest.raises(StageError, match="ffn prepare --config FILE --step class_counts"):
            prepare_training(config_in(tmp_path, values), Share("sample"), limits=LIMITS)
        with pytest.raises(StageError, match="no step partitions; there are label_sizes, objects"):
            prepare_training(config_in(tmp_path, values), Share("partitions"), limits=LIMITS)

    def test_lost_and_damaged_files_are_made_again(self, values, undisturbed, tmp_path):
        config = config_in(tmp_path, values)
        for step in STEPS[:-1]:
            prepare_training(config, Share(step), limits=LIMITS)
        folder = tmp_path / "results/large/prepare"
        shard = next(path for path in (folder / "partitions.zarr/0/c").rglob("*") if path.is_file())
        shard.write_bytes(shard.read_bytes()[:-5])
        (folder / "steps/objects/01.labels").unlink()
        (folder / "coordinates.h5").unlink()
        prepare_training(config, limits=LIMITS)
        assert made(tmp_path) == made(undisturbed)

    def test_with_a_pool(self, values, undisturbed, tmp_path):
        prepare_training(config_in(tmp_path, values), EVERYTHING, 2, LIMITS)
        assert made(tmp_path) == made(undisturbed)

    @pytest.mark.slow
    def test_three_jobs_of_two_processes(self, values, undisturbed, tmp_path):
        command = command_in(tmp_path, values)
        for step in STEPS:
            parts = ["1/1"] if step in ("objects", "class_counts", "summary") else ["1/3", "2/3", "3/3"]
            words = [[*command, "--step", step, "--part", part] for part in parts]
            assert statuses(*(process(one, rank=rank) for one in words for rank in (0, 1))) == [0] * 2 * len(parts)
        assert made(tmp_path) == made(undisturbed)

    @pytest.mark.slow
    def test_killed_again_and_again(self, values, undisturbed, tmp_path):
        command = command_in(tmp_path, values)
        killed = 0
        for count in (1, 2, 5, 3, 8, 4, 13, 6, 21, 9, 15, 30):
            [status] = statuses(process(command, workers=1 + killed % 2, kill_at=count))
            assert status in (0, -9)
            killed += status == -9
        assert killed >= 10
        assert statuses(process(command)) == [0]
        assert made(tmp_path) == made(undisturbed)

    @pytest.mark.slow
    def test_two_at_once(self, values, undisturbed, tmp_path):
        command = command_in(tmp_path, values)
        assert statuses(*(process(command, workers=2) for _ in range(2))) == [0, 0]
        assert made(tmp_path) == made(undisturbed)

    def test_by_the_command(self, values, undisturbed, tmp_path, capsys):
        command = command_in(tmp_path, values)
        with pytest.raises(SystemExit):
            main([*command, "--part", "1/2"])
        assert "--part goes with --step" in capsys.readouterr().err
        assert main([*command, "--step", "seeds"]) == 2
        assert "Run `ffn prepare --config FILE --step coordinates` first" in capsys.readouterr().err
        for part in ("2/2", "1/2"):
            assert main([*command, "--step", "label_sizes", "--part", part, "--ranks", "1"]) == 0
        assert main(command) == 0
        assert (tmp_path / "results/large/prepare/seeds.csv").exists()
        assert main([*command, "--step", "classes"]) == 0
        assert "already complete" in capsys.readouterr().err

    def test_a_volume_without_use_leaves_the_folder_free(self, values, tmp_path):
        config = config_in(tmp_path, {**values, "prepare": {"min_size": 3000, "min_boundary_nm": 1000.0}})
        with pytest.raises(DataError, match="no usable coordinate"):
            prepare_training(config, limits=LIMITS)
        assert made(tmp_path) == {}
        prepare_training(config_in(tmp_path, values), limits=LIMITS)


class TestSettings:
    def test_those_of_a_large_volume_are_others(self, values, undisturbed, listed):
        for folder, limits in ((undisturbed, LISTED), (listed, LIMITS)):
            before = made(folder)
            with pytest.raises(StageError, match="cut"):
                prepare_training(config_in(folder, values), limits=limits)
            assert made(folder) == before
        assert "cut" not in json.loads((listed / "results/large/prepare/started.json").read_text())["settings"]

    def test_a_volume_of_a_thousand_million_voxels_is_listed(self, values, tmp_path):
        volume = preparation.LabelledVolume.of(
            config_in(tmp_path, values), "data.train", *_region(tmp_path, values), 1, True, Limits()
        )
        assert not replace(volume, shape=(1000, 1000, 1000)).is_sampled
        large = replace(volume, shape=(1000, 1000, 1001))
        assert large.is_sampled
        assert large.units.block == (256, 256, 256)
        assert replace(volume, shape=(10_000, 10_000, 10_000)).units.block == (512, 512, 512)


def _region(folder: Path, values: dict[str, object]):
    return preparation.labelled_files(config_in(folder, values))["data.train"]


def command_in(folder: Path, values: dict[str, object]) -> list[str]:
    """The command as it is given in this folder."""
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump({**values, "results": str(folder / "results")}))
    return ["prepare", "--config", str(path)]


def process(command: list[str], workers: int = 1, kill_at: int = 0, rank: int | None = None) -> dict[str, Any]:
    """The command in a process of its own, maybe the first or second of two that a launcher started."""
    ranks = {} if rank is None else {"OMPI_COMM_WORLD_RANK": str(rank), "OMPI_COMM_WORLD_SIZE": "2"}
    return forks.call("preparing_process:start", str(workers), str(kill_at), *command, variables=ranks)


def statuses(*processes: dict[str, Any]) -> list[int]:
    """Exit codes of processes that run at once."""
    return [done.returncode for done in forks.together(*processes)]
