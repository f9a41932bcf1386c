from itertools import product
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from tiny_training import config_of, settings, split, write_volume

from ffn.config import Augmentation, Config, parse_config
from ffn.errors import ConfigError, DataError, GeometryError, VolumeError
from ffn.geometry import Box
from ffn.model.orientation import Orientation
from ffn.prepare.coordinates import CoordinateStream
from ffn.prepare.run import VALIDATION_SEED, prepare_training
from ffn.runs import RunPaths
from ffn.training.examples import ExampleSource, LaneStream, patch_size
from ffn.training.region import TrainingRegion
from ffn.volumes import open_volume, pool


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    prepare_training(parse_config(settings(folder)))
    return folder


def centres(config: Config) -> CoordinateStream:
    return CoordinateStream(RunPaths.of(config).training_volume(0, 1).coordinates, config.seed)


def upright(folder: Path, **training: Any) -> Config:
    return config_of(folder, permutable_axes=[], reflectable_axes=[], **training)


def test_patch_is_normalised_and_centred_on_the_drawn_voxel(folder: Path) -> None:
    config = upright(folder)
    example = ExampleSource(config).load(LaneStream(0, 1), 4)
    box = Box.centred(centres(config).draw(4), (13, 13, 13))
    with h5py.File(folder / "volume.h5") as file:
        image, labels = file["image"][box.slices], file["labels"][box.slices]
    assert example.index == 4
    assert example.image.dtype == example.labels.dtype == np.float32
    np.testing.assert_allclose(example.image, (image.astype(np.float32) - 128) / 50, atol=1e-6)
    np.testing.assert_array_equal(example.labels == np.float32(0.95), labels == labels[6, 6, 6])
    assert set(np.unique(example.labels)) == {np.float32(0.05), np.float32(0.95)}


def test_lower_resolution_is_learnt_from_the_pooled_volume(tmp_path: Path) -> None:
    write_volume(tmp_path / "volume.h5", size=72, cells=25)
    values = settings(tmp_path, permutable_axes=[], reflectable_axes=[])
    values["network"].update(fov=[5, 5, 5], deltas=[1, 1, 1], downsample=[2, 2, 2])
    values["prepare"] = {"min_size": 10, "min_boundary_nm": 20}
    config = parse_config(values)
    prepare_training(config)
    with h5py.File(tmp_path / "volume.h5") as file:
        image = pool(file["image"][...], (2, 2, 2), labels=False)
        labels = pool(file["labels"][...], (2, 2, 2), labels=True)
    stream, source, drawn = LaneStream(0, 1), ExampleSource(config), centres(config)
    for index in range(20):
        box = Box.centred(drawn.draw(index), (7, 7, 7))
        example = source.load(stream, index)
        np.testing.assert_allclose(example.image, (image[box.slices].astype(np.float32) - 128) / 50, atol=1e-6)
        around = labels[box.slices]
        np.testing.assert_array_equal(example.labels == np.float32(0.95), around == around[3, 3, 3])
        # A network voxel is 20 nm: no other object touches the centre.
        assert len(np.unique(around[3, 3, 2:5])) == len(np.unique(around[2:5, 3, 3])) == 1


@pytest.mark.parametrize(("moves", "size"), [("fixed", 13), ("no_step", 13), ("max_pred_moves", 17)])
def test_patch_has_room_for_the_moves(folder: Path, moves: str, size: int) -> None:
    assert patch_size(config_of(folder, moves=moves)) == (size, size, size)


def test_patches_that_stick_out_are_left_out(folder: Path) -> None:
    config = upright(folder, moves="max_pred_moves")  # coordinates were prepared for a shorter reach
    stream, source, drawn = LaneStream(0, 1), ExampleSource(config), centres(config)
    inside = Box((8, 8, 8), (28, 28, 28))
    fits = [i for i in range(60) if inside.contains(Box.centred(drawn.draw(i), (1, 1, 1)))]
    assert len(fits) < 60
    found, index = [], 0
    while index < 60:
        example = source.load(stream, index)
        found.append(example.index)
        index = example.index + 1
    assert found[: len(fits)] == fits


def test_orientation_is_a_pure_function_that_reaches_every_allowed_turn() -> None:
    drawn = {Orientation.draw(1, number, ["y", "x"], ["z", "y", "x"]) for number in range(300)}
    flips = [tuple(a for a in range(3) if mask[a]) for mask in product([False, True], repeat=3)]
    assert drawn == {Orientation(order, flip) for order in ((0, 1, 2), (0, 2, 1)) for flip in flips}
    assert Orientation.draw(1, 7, ["y", "x"], ["z"]) == Orientation.draw(1, 7, ["y", "x"], ["z"])
    assert {Orientation.draw(2, number, [], []) for number in range(50)} == {Orientation((0, 1, 2), ())}
    orders = {Orientation.draw(3, number, ["z", "y", "x"], []).order for number in range(200)}
    assert len(orders) == 6


def test_orientation_turns_image_and_labels_alike_about_the_centre(folder: Path) -> None:
    turned, plain = config_of(folder), upright(folder)
    stream = LaneStream(0, 1)
    changed = 0
    for index in range(12):
        one, other = ExampleSource(turned).load(stream, index), ExampleSource(plain).load(stream, index)
        turn = Orientation.draw(5, index, ["z", "y", "x"], ["z", "y", "x"])
        np.testing.assert_array_equal(one.image, turn.apply(other.image))
        np.testing.assert_array_equal(one.labels, turn.apply(other.labels))
        assert one.labels[6, 6, 6] == other.labels[6, 6, 6]
        changed += not np.array_equal(one.image, other.image)
    assert changed > 6


def test_a_region_too_large_for_memory_reads_the_same(folder: Path) -> None:
    volume = open_volume(f"{folder}/volume.h5:labels", box=Box((3, 0, 2), (33, 30, 36)))
    cached, lazy = TrainingRegion(volume), TrainingRegion(volume, cache_bytes=1000)
    box = Box((1, 2, 3), (20, 9, 30))
    np.testing.assert_array_equal(cached.read(box), lazy.read(box))
    assert cached.read(box).dtype == np.uint32
    assert lazy.read(box).dtype == np.uint64


def test_huge_label_ids_are_kept_apart(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "big.h5", "w") as file:
        file["labels"] = np.array([[[1, 2**32 + 1, 2**40]]], np.uint64)
    region = TrainingRegion(open_volume(f"{tmp_path}/big.h5:labels"))
    assert region.read(Box((0, 0, 0), (1, 1, 3))).tolist() == [[[1, 2**32 + 1, 2**40]]]


def test_image_and_labels_of_different_shape_are_refused(folder: Path, tmp_path: Path) -> None:
    values = settings(folder)
    with h5py.File(tmp_path / "small.h5", "w") as file:
        file["labels"] = np.ones((30, 36, 36), np.uint64)
    values["data"]["train"]["labels"] = f"{tmp_path}/small.h5:labels"
    with pytest.raises(VolumeError, match=r"\(36, 36, 36\).*\(30, 36, 36\)"):
        ExampleSource(parse_config(values))


def test_a_field_of_view_larger_than_the_region_is_refused(folder: Path) -> None:
    values = settings(folder)
    values["network"].update(fov=[33, 33, 33], deltas=[8, 8, 8])
    with pytest.raises(GeometryError, match=r"\(49, 49, 49\).*\(36, 36, 36\)"):
        ExampleSource(parse_config(values))


def test_only_equal_axes_can_be_swapped(folder: Path) -> None:
    values = settings(folder, permutable_axes=["z", "y"])
    values["network"].update(fov=[5, 9, 9])
    with pytest.raises(ConfigError, match="permutable_axes"):
        ExampleSource(parse_config(values))


def test_coordinates_that_never_fit_are_reported(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ffn.training.examples._MOST_MISSES", 3)
    values = settings(folder)
    values["network"].update(fov=[35, 9, 9], deltas=[0, 2, 2])
    config = parse_config(values)
    stream, source, drawn = LaneStream(0, 1), ExampleSource(config), centres(config)
    misses = [drawn.draw(index)[0] not in (17, 18) for index in range(100)]
    first = next(index for index in range(100) if all(misses[index : index + 3]))
    with pytest.raises(DataError, match="too near the border"):
        source.load(stream, first)


def test_validation_examples_are_held_out_unchanged_and_the_same_for_every_seed(folder: Path) -> None:
    config, other = split(folder), split(folder, seed=6)
    prepare_training(config)
    prepare_training(other)
    with h5py.File(folder / "volume.h5") as file:
        image, labels = file["image"][20:], file["labels"][20:]
    files = RunPaths.of(config).validation_volume
    drawn = CoordinateStream(files.coordinates, VALIDATION_SEED)
    source, again = ExampleSource.for_validation(config), ExampleSource.for_validation(other)
    for number in range(20):
        example, same = source.load(LaneStream(0, 1), number), again.load(LaneStream(number % 3, 3), number // 3)
        box = Box.centred(drawn.draw(number), (13, 13, 13))
        np.testing.assert_allclose(example.image, (image[box.slices].astype(np.float32) - 128) / 50, atol=1e-6)
        around = labels[box.slices]
        np.testing.assert_array_equal(example.labels == np.float32(0.95), around == around[6, 6, 6])
        np.testing.assert_array_equal(example.image, same.image)
        np.testing.assert_array_equal(example.labels, same.labels)
    assert not files.seeds.exists()


def test_a_run_without_a_validation_region_has_nothing_to_judge_on(folder: Path) -> None:
    assert not RunPaths.of(config_of(folder)).validation_volume.folder.exists()
    with pytest.raises(ConfigError, match=r"data\.validation is empty"):
        ExampleSource.for_validation(config_of(folder))


def with_unlabelled(folder: Path, **region: str) -> Config:
    """A volume of which one half is not labelled."""
    write_volume(folder / "volume.h5")
    with h5py.File(folder / "volume.h5", "r+") as file:
        file["labels"][:, :, :18] = 0
    values = settings(folder, permutable_axes=[], reflectable_axes=[])
    values["data"]["train"] = {**values["data"]["train"], **region}
    config = parse_config(values)
    prepare_training(config)
    return config


def test_unlabelled_voxels_say_nothing_and_are_no_centres(tmp_path: Path) -> None:
    config = with_unlabelled(tmp_path)
    source, drawn, crossing = ExampleSource(config), centres(config), 0
    for index in range(60):
        x = drawn.draw(index)[2]
        assert x >= 18
        example = source.load(LaneStream(0, 1), index)
        unknown = np.broadcast_to(np.arange(x - 6, x + 7) < 18, (13, 13, 13))
        np.testing.assert_array_equal(example.labels == -1, unknown)
        crossing += unknown.any()
    assert 0 < crossing < 60
    assert drawn.left_out["unlabelled"] == 24 * 24 * 12


def test_label_zero_may_mean_that_there_is_no_object(tmp_path: Path) -> None:
    config = with_unlabelled(tmp_path, label_zero="background")
    source, drawn, empty = ExampleSource(config), centres(config), 0
    for index in range(60):
        labels = source.load(LaneStream(0, 1), index).labels
        assert set(np.unique(labels)) <= {np.float32(0.05), np.float32(0.95)}
        centre, value = drawn.draw_with_class(index)
        empty += bool((labels == np.float32(0.05)).all())
        assert (labels == np.float32(0.05)).all() == (centre[2] < 18)
        assert value == 0 or centre[2] >= 18
    assert empty > 0


def two_volumes(folder: Path, **training: Any) -> Config:
    """Three quarters of the examples from one half of the volume, one from the other."""
    values = settings(folder, **training)
    region = values["data"]["train"]
    lower, upper = {**region, "box": "0:18,0:36,0:36", "weight": 3}, {**region, "box": "18:36,0:36,0:36"}
    values["data"]["train"] = [lower, upper]
    config = parse_config({**values, "run": "two", "augmentation": {"misalignment": 0.5, "contrast": 0.5}})
    prepare_training(config)
    return config


def test_volumes_are_drawn_from_by_their_weights_each_from_its_own_stream(folder: Path) -> None:
    config = two_volumes(folder, permutable_axes=[], reflectable_axes=[])
    plain = config.model_copy(update={"augmentation": Augmentation()})
    with h5py.File(folder / "volume.h5") as file:
        image = (file["image"][...].astype(np.float32) - 128) / 50
    paths = RunPaths.of(config)
    streams = [CoordinateStream(paths.training_volume(index, 2).coordinates, config.seed) for index in range(2)]
    source, chosen = ExampleSource(plain), []
    for number in range(60):
        example = source.load(LaneStream(0, 1), number).image
        cuts = [
            image[Box.centred(streams[index].draw(number), (13, 13, 13)).shifted((18 * index, 0, 0)).slices]
            for index in range(2)
        ]
        (index,) = (i for i, expected in enumerate(cuts) if np.allclose(example, expected, atol=1e-5))
        chosen.append(index)
    assert chosen == [source._choose(number) for number in range(60)]
    assert np.mean([source._choose(number) for number in range(20_000)]) == pytest.approx(0.25, abs=0.01)


def test_examples_of_several_volumes_with_defects_are_the_same_in_whatever_lane(folder: Path) -> None:
    config = two_volumes(folder)
    one, three = ExampleSource(config), ExampleSource(config)
    changed = 0
    plain = ExampleSource(config.model_copy(update={"augmentation": Augmentation()}))
    for number in reversed(range(60)):
        a, b = one.load(LaneStream(0, 1), number), three.load(LaneStream(number % 3, 3), number // 3)
        np.testing.assert_array_equal(a.image, b.image)
        np.testing.assert_array_equal(a.labels, b.labels)
        changed += not np.array_equal(a.image, plain.load(LaneStream(0, 1), number).image)
    assert 30 < changed < 60


def test_what_is_judged_on_has_no_defects(folder: Path) -> None:
    config = split(folder)
    prepare_training(config)
    shaken = config.model_copy(update={"augmentation": Augmentation(misalignment=1.0, contrast=1.0)})
    stream = LaneStream(0, 1)
    for number in range(5):
        plain = ExampleSource.for_validation(config).load(stream, number)
        np.testing.assert_array_equal(ExampleSource.for_validation(shaken).load(stream, number).image, plain.image)
        example = ExampleSource(shaken).load(stream, number)
        assert not np.array_equal(example.image, ExampleSource(config).load(stream, number).image)


def test_volumes_share_the_memory_for_what_is_held(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = two_volumes(folder)
    half = 18 * 36 * 36 * 4  # labels as uint32
    expected = [ExampleSource(config).load(LaneStream(0, 1), number) for number in range(8)]
    for available, held in ((2 * half, 2), (2 * half - 1, 1), (half - 1, 0)):
        monkeypatch.setattr("ffn.training.examples.CACHE_BYTES", available)
        source = ExampleSource(config)
        assert sum(volume.labels.held_bytes > 0 for volume in source._volumes) == held
        for number, example in enumerate(expected):
            same = source.load(LaneStream(0, 1), number)
            np.testing.assert_array_equal(same.image, example.image)
            np.testing.assert_array_equal(same.labels, example.labels)


def test_patches_that_stick_out_are_counted_and_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = upright(folder, moves="max_pred_moves")
    source, drawn = ExampleSource(config), centres(config)
    inside = Box((8, 8, 8), (28, 28, 28))
    fits = [i for i in range(60) if inside.contains(Box.centred(drawn.draw(i), (1, 1, 1)))]
    index = 0
    while index <= fits[-1]:
        index = source.load(LaneStream(0, 1), index).index + 1
    assert source.left_out == fits[-1] + 1 - len(fits)
    assert capsys.readouterr().err.count("sticks out are left out") == 1


def test_the_size_of_network_voxels_decides(tmp_path: Path) -> None:
    write_volume(tmp_path / "volume.h5")
    with h5py.File(tmp_path / "volume.h5", "r+") as file:
        for name in ("image", "labels"):
            file[name].attrs["voxel_size_nm"] = (20.0, 10.0, 10.0)
    orders = {}
    for factors in ([1, 2, 2], [2, 2, 2]):
        values = settings(tmp_path)
        values["network"].update(fov=[5, 5, 5], deltas=[1, 1, 1], downsample=factors)
        config = parse_config({**values, "run": f"by-{factors[0]}", "prepare": {"min_size": 10}})
        prepare_training(config)
        orders[factors[0]] = ExampleSource(config)._permutable
    assert orders == {1: ["z", "y", "x"], 2: ["y", "x"]}


def test_fewer_centres_than_lanes_are_refused(folder: Path) -> None:
    source = ExampleSource(config_of(folder))
    assert source.available == 24**3
    source.load(LaneStream(0, source.available), 0)
    with pytest.raises(DataError, match=r"data\.train: there are 13824 centres of examples, fewer than the 13825"):
        source.load(LaneStream(7, source.available + 1), 0)
