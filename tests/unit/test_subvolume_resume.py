"""A sub-volume that is killed and run again ends in the same files; and what bad input gets."""

import errno
import json
import os
import shutil
import signal
import sys

import forks
import numpy as np
import pytest
import yaml
from flooding import Batches, SmallNetwork, blobs, literal_flood
from scipy import ndimage
from tiled import kept_files

from ffn.cli import main
from ffn.config import Config, parse_config
from ffn.errors import CheckpointError, DataError, GeometryError, StageError
from ffn.geometry import Box
from ffn.inference.canvas import Canvas
from ffn.inference.kept import Keeper
from ffn.inference.options import FloodOptions
from ffn.inference.state import save_state
from ffn.inference.subvolume import run_tile, run_tiles
from ffn.inference.tile import Tile
from ffn.locks import lock
from ffn.model.orientation import Orientation
from ffn.prepare.seeds import coarse_seeds, peak_seeds
from ffn.stages import Stage
from ffn.volumes import create_hdf5, open_volume

LOADED = ("ffn.inference.subvolume",)
SHAPE = (34, 36, 38)
VALUES = {
    "run": "killed",
    "data": {"test": {"image": "unused"}, "voxel_size": [10, 10, 10]},
    "network": {"depth": 2, "features": 2, "fov": [9, 9, 9], "deltas": [2, 2, 2]},
    "inference": {"checkpoint": "unused", "min_segment_size": 100},
}


def configured(**inference) -> Config:
    return parse_config({**VALUES, "inference": {**VALUES["inference"], **inference}})


@pytest.fixture
def inputs(tmp_path):
    """An image and the two files of a checkpoint (which only the real executor would read)."""
    grey = np.clip(128 + 33 * blobs(2, SHAPE), 0, 255).astype(np.uint8)
    image = tmp_path / "image.h5"
    with create_hdf5(image, "image", SHAPE, np.uint8, (10.0, 10.0, 10.0)) as volume:
        volume.write(Box.of_shape(SHAPE), grey)
    checkpoint = tmp_path / "model.ckpt"
    for suffix in (".index", ".data-00000-of-00001"):
        checkpoint.with_name(checkpoint.name + suffix).write_bytes(suffix.encode())
    return f"{image}:image", checkpoint


@pytest.fixture
def small_network(monkeypatch):
    network = SmallNetwork(2)
    executor = type(sys)("ffn.inference.executor")
    executor.load_executor = lambda *_, **__: Batches(network)
    monkeypatch.setitem(sys.modules, executor.__name__, executor)
    return network


def killed(tmp_path, inputs, output, every_s, where, count):
    """Run the tile in a process of its own, which kills itself (`killed_tile.py`)."""
    config = tmp_path / f"every{every_s}.yaml"
    config.write_text(yaml.safe_dump({**VALUES, "inference": {**VALUES["inference"], "checkpoint_every_s": every_s}}))
    ended = forks.run("killed_tile:main", config, *inputs, output, where, str(count), loaded=LOADED)
    assert ended.returncode == -signal.SIGKILL, ended.stderr


def contents(folder):
    """All files; timing.json is the one that may differ."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "timing.json"}


@pytest.fixture
def undisturbed(tmp_path, inputs, small_network):
    output = tmp_path / "undisturbed"
    run_tile(configured(), Tile(*inputs, None, output))
    return output


ALWAYS, NEVER = 1e-9, 1e9


@pytest.mark.parametrize(("every_s", "seed"), [(ALWAYS, 1), (ALWAYS, 3), (NEVER, 2)])
def test_killed_while_filling(tmp_path, inputs, undisturbed, small_network, every_s, seed):
    total = json.loads((undisturbed / "counters.json").read_text())["fovs"]
    rng, output = np.random.default_rng(seed), tmp_path / "killed"
    for _ in range(3):
        killed(tmp_path, inputs, output, every_s, "fov", rng.integers(2, total // 4))
        assert (output / "state.npz").exists()
        assert not (output / "done.json").exists()
    small_network.calls = 0
    run_tile(configured(), Tile(*inputs, None, output))
    assert contents(output) == contents(undisturbed)
    assert small_network.calls == total if every_s == NEVER else small_network.calls < total


@pytest.mark.parametrize(
    ("where", "count"), [("before", 1), ("after", 1), ("before", 3), ("after", 3), ("after", 6), ("before", 8)]
)
def test_killed_while_writing(tmp_path, inputs, undisturbed, where, count):
    # With no state saved on the way there are 8 files: started, state, five results and done.
    output = tmp_path / "killed"
    killed(tmp_path, inputs, output, NEVER, f"{where}-rename", count)
    run_tile(configured(), Tile(*inputs, None, output))
    assert contents(output) == contents(undisturbed)


def test_killed_just_after_done(tmp_path, inputs, undisturbed, small_network):
    output = tmp_path / "killed"
    killed(tmp_path, inputs, output, NEVER, "after-rename", 8)
    assert (output / "done.json").exists()
    small_network.calls = 0
    run_tile(configured(), Tile(*inputs, None, output))
    assert small_network.calls == 0
    assert contents(output) == contents(undisturbed)


def test_files_say_what_the_literal_algorithm_says(inputs, undisturbed):
    config = configured()
    with open_volume(inputs[0]) as volume:
        grey = (volume[...].astype(np.float32) - np.float32(128)) / np.float32(33)
    seeds = peak_seeds(grey, config.network.fov)
    expected, origins, overlaps, _ = literal_flood(
        grey, seeds, FloodOptions.of(config.network, config.inference), SmallNetwork(2)
    )
    assert len(origins) > 2
    with open_volume(f"{undisturbed / 'segmentation.h5'}:labels") as labels:
        assert labels.dtype == np.uint64
        assert labels.voxel_size == (10.0, 10.0, 10.0)
        np.testing.assert_array_equal(labels[...], expected)
    keys = ("id", "seed_zyx", "fovs", "voxels")
    written = json.loads((undisturbed / "origins.json").read_text())
    assert [tuple(record) for record in written] == [keys] * len(origins)
    assert [(r["id"], tuple(r["seed_zyx"]), r["fovs"], r["voxels"]) for r in written] == origins
    reached = {str(i): sorted(map(list, other.items())) for i, other in overlaps.items() if other}
    assert json.loads((undisturbed / "overlaps.json").read_text()) == reached


def test_a_box_is_its_own_volume(tmp_path, inputs, small_network):
    box = Box((3, 4, 5), (30, 31, 32))
    run_tile(configured(), Tile(*inputs, box, tmp_path / "box"))
    with (
        open_volume(inputs[0]) as volume,
        create_hdf5(tmp_path / "crop.h5", "image", box.shape, np.uint8, None) as crop,
    ):
        crop.write(Box.of_shape(box.shape), volume.read(box))
    run_tile(configured(), Tile(f"{tmp_path / 'crop.h5'}:image", inputs[1], None, tmp_path / "crop"))
    for name in ("origins.json", "counters.json"):
        assert (tmp_path / "box" / name).read_bytes() == (tmp_path / "crop" / name).read_bytes()
    with (
        open_volume(f"{tmp_path / 'box' / 'segmentation.h5'}:labels") as a,
        open_volume(f"{tmp_path / 'crop' / 'segmentation.h5'}:labels") as b,
    ):
        np.testing.assert_array_equal(a[...], b[...])


def test_lower_resolution_is_filled_on_the_pooled_image(tmp_path, inputs, small_network):
    factors, voxel_size = (1, 2, 2), [20, 5, 5]
    coarse = np.clip(128 + 33 * blobs(2, SHAPE), 0, 255).astype(np.uint8)
    fine = coarse.repeat(2, 1).repeat(2, 2)[:, :-1]  # an odd number of rows
    with create_hdf5(tmp_path / "fine.h5", "image", fine.shape, np.uint8, voxel_size) as volume:
        volume.write(Box.of_shape(fine.shape), fine)
    network = {**VALUES["network"], "downsample": factors}
    config = parse_config({**VALUES, "data": {**VALUES["data"], "voxel_size": voxel_size}, "network": network})
    run_tile(config, Tile(f"{tmp_path}/fine.h5:image", inputs[1], None, tmp_path / "fine"))

    grey, fine_grey = ((v.astype(np.float32) - np.float32(128)) / np.float32(33) for v in (coarse, fine))
    seeds = coarse_seeds(fine_grey, factors, config.network.fov, (20.0, 5.0, 5.0))
    expected, origins, *_ = literal_flood(
        grey, seeds, FloodOptions.of(config.network, config.inference), SmallNetwork(2)
    )
    assert len(origins) > 2
    labels = open_volume(f"{tmp_path}/fine/segmentation.h5:labels")[...]
    # Inside an object its map is above the threshold in all voxels that are interpolated; at its border that decides.
    around = (1, 3, 3)
    inside = ndimage.minimum_filter(expected, around) == ndimage.maximum_filter(expected, around)
    repeated, inside = (a.repeat(2, 1).repeat(2, 2)[:, :-1] for a in (expected, inside))
    np.testing.assert_array_equal(labels[inside], repeated[inside])
    assert 0.9 < np.mean(labels == repeated) < 1
    for record, (_, seed, fovs, _) in zip(
        json.loads((tmp_path / "fine/origins.json").read_text()), origins, strict=True
    ):
        assert record["voxels"] == np.count_nonzero(labels == record["id"])
        assert record["seed_zyx"] == [seed[0], 2 * seed[1] + 1, 2 * seed[2] + 1]
        assert record["fovs"] == fovs


def test_killed_while_filling_at_a_lower_resolution(tmp_path, inputs, small_network):
    network = {**VALUES["network"], "downsample": (1, 2, 2), "fov": [9, 7, 7]}
    values = {**VALUES, "network": network, "inference": {**VALUES["inference"], "min_segment_size": 20}}
    config = parse_config({**values, "inference": {**values["inference"], "checkpoint_every_s": ALWAYS}})
    run_tile(config, Tile(*inputs, None, tmp_path / "undisturbed"))
    found = json.loads((tmp_path / "undisturbed" / "origins.json").read_text())
    assert len(found) > 1

    class KilledNetwork(SmallNetwork):
        def __call__(self, image, object_map):
            if self.calls == sum(record["fovs"] for record in found) - 1:
                raise KeyboardInterrupt
            return super().__call__(image, object_map)

    sys.modules["ffn.inference.executor"].load_executor = lambda *_, **__: Batches(KilledNetwork(2))
    with pytest.raises(KeyboardInterrupt):
        run_tile(config, Tile(*inputs, None, tmp_path / "killed"))
    sys.modules["ffn.inference.executor"].load_executor = lambda *_, **__: Batches(small_network)
    run_tile(config, Tile(*inputs, None, tmp_path / "killed"))
    assert contents(tmp_path / "killed") == contents(tmp_path / "undisturbed")


@pytest.mark.parametrize(("concurrent", "batch_size"), [(1, 1), (3, 2), (8, 8)])
def test_tiles_side_by_side_are_the_same_as_one_after_the_other(tmp_path, inputs, monkeypatch, concurrent, batch_size):
    boxes = [Box((0, 0, 0), (34, 20, 38)), Box((0, 16, 0), (34, 36, 38)), Box((3, 4, 5), (30, 31, 32))]
    network = Batches(SmallNetwork(2), batch_size)
    executor = type(sys)("ffn.inference.executor")
    executor.load_executor = lambda *_, **__: network
    monkeypatch.setitem(sys.modules, executor.__name__, executor)
    tiles = [Tile(*inputs, box, tmp_path / f"{number}", index=number) for number, box in enumerate(boxes)]
    asked = []
    executor.load_executor = lambda *_, **how: asked.append(how) or network
    with Keeper(Stage(tmp_path / "infer" / "pass-0", {}), len(tiles), range(len(tiles))) as keeper:
        run_tiles(configured(concurrent=concurrent, batch_size=batch_size), tiles, [], keeper)
    assert [(how["batch_size"], how["most"]) for how in asked] == [(batch_size, min(concurrent, len(tiles)))]
    assert max(network.sizes) == min(concurrent, batch_size, len(tiles))
    found = kept_files(tmp_path / "infer")
    for number, box in enumerate(boxes):
        network.batch_size = 1
        run_tile(configured(), Tile(*inputs, box, tmp_path / "alone" / f"{number}"))
        alone = contents(tmp_path / "alone" / f"{number}")
        assert {f"pass-0/tile-{number:04d}/{name}": content for name, content in alone.items()}.items() <= found.items()


def turned(grey, orientation, rim):
    return orientation.apply(np.pad(grey, [(r, r) for r in rim], mode="reflect"))


@pytest.mark.parametrize(("mirror", "number"), [(False, 3), (True, 0), (True, 5)])
def test_a_pass_fills_the_turned_volume_within_its_rim(tmp_path, inputs, small_network, mirror, number):
    config = configured(mirror=mirror, passes=8)
    run_tile(config, Tile(*inputs, None, tmp_path / "pass", turn=number))
    orientation = Orientation.listed("zyx")[number]
    rim = (4, 4, 4) if mirror else (0, 0, 0)
    with open_volume(inputs[0]) as volume:
        grey = (volume[...].astype(np.float32) - np.float32(128)) / np.float32(33)
    seeds = peak_seeds(grey, (1, 1, 1) if mirror else config.network.fov)
    is_seed = np.zeros(grey.shape, np.float32)
    is_seed[tuple(seeds.T)] = 1
    wide = np.zeros([n + 2 * r for n, r in zip(grey.shape, rim, strict=True)], np.float32)
    wide[tuple(slice(r, r + n) for r, n in zip(rim, grey.shape, strict=True))] = is_seed
    options = FloodOptions.of(config.network, config.inference)
    expected, origins, *_ = literal_flood(
        turned(grey, orientation, rim), np.argwhere(orientation.apply(wide)), options, SmallNetwork(2)
    )
    back = orientation.undo(expected)[tuple(slice(r, r + n) for r, n in zip(rim, grey.shape, strict=True))]
    with open_volume(f"{tmp_path / 'pass' / 'segmentation.h5'}:labels") as labels:
        np.testing.assert_array_equal(labels[...], back)
    written = json.loads((tmp_path / "pass" / "origins.json").read_text())
    assert [record["fovs"] for record in written] == [fovs for _, _, fovs, _ in origins]
    for record in written:
        assert record["seed_zyx"] in seeds.tolist()
        assert back[tuple(record["seed_zyx"])] == record["id"]
        assert record["voxels"] == np.count_nonzero(back == record["id"])


def test_box_smaller_than_the_fov(tmp_path, inputs, small_network):
    with pytest.raises(GeometryError, match="8 voxels along y, fewer than the network's fov 9"):
        run_tile(configured(), Tile(*inputs, Box((0, 0, 0), (20, 8, 20)), tmp_path / "out"))
    with pytest.raises(GeometryError, match="outside"):
        run_tile(configured(), Tile(*inputs, Box((0, 0, 0), (20, 99, 20)), tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_no_seeds(tmp_path, inputs, small_network):
    with create_hdf5(tmp_path / "flat.h5", "image", SHAPE, np.uint8, None, fill=99):
        pass
    image = f"{tmp_path / 'flat.h5'}:image"
    box = Box((0, 0, 0), (9, 9, 9))
    with pytest.raises(DataError, match="No seeds in box 0:9,0:9,0:9"):
        run_tile(configured(), Tile(image, inputs[1], box, tmp_path / "alone"))
    assert not (tmp_path / "alone").exists()
    run_tile(configured(), Tile(image, inputs[1], box, tmp_path / "tile", may_be_empty=True))
    assert json.loads((tmp_path / "tile" / "origins.json").read_text()) == []
    with open_volume(f"{tmp_path / 'tile' / 'segmentation.h5'}:labels") as labels:
        assert not labels[...].any()


def test_other_settings_are_refused_and_nothing_is_touched(tmp_path, inputs, undisturbed):
    before = contents(undisturbed)
    with pytest.raises(StageError, match=r"inference\.segment_threshold: there 0\.6, now 0\.5"):
        run_tile(configured(segment_threshold=0.5), Tile(*inputs, None, undisturbed))
    with pytest.raises(StageError, match=r"inference\.offers_compared: there 1, now 4"):
        run_tile(configured(quality="fast", min_unseen=0, join_share=1), Tile(*inputs, None, undisturbed))
    inputs[1].with_name("model.ckpt.index").write_bytes(b"other weights")
    with pytest.raises(StageError, match="checkpoint_sha256"):
        run_tile(configured(), Tile(*inputs, None, undisturbed))
    assert contents(undisturbed) == before


def test_a_folder_with_results_of_unknown_origin_is_refused(tmp_path, inputs, small_network):
    output = tmp_path / "mine"
    output.mkdir()
    (output / "segmentation.h5").write_bytes(b"precious")
    with pytest.raises(StageError, match=r"already holds segmentation\.h5"):
        run_tile(configured(), Tile(*inputs, None, output))
    assert (output / "segmentation.h5").read_bytes() == b"precious"


def test_settings_that_do_not_change_the_result_may_change(tmp_path, inputs, undisturbed):
    before = contents(undisturbed)
    run_tile(configured(checkpoint_every_s=5, intra_op_threads=1), Tile(*inputs, None, undisturbed))
    assert contents(undisturbed) == before


def test_only_one_process_works_in_a_folder(tmp_path, inputs, undisturbed):
    output = tmp_path / "locked"
    with lock(output / "lock"):
        with pytest.raises(StageError, match=r"Another process works in .*locked: process \d+ on .* since 20"):
            run_tile(configured(), Tile(*inputs, None, output))
        assert [path.name for path in output.iterdir()] == ["lock"]
    run_tile(configured(), Tile(*inputs, None, output))
    assert contents(output) == contents(undisturbed)


def test_who_waited_for_the_lock_finds_the_work_done(tmp_path, inputs, undisturbed, small_network, monkeypatch):
    """Another process finishes while this one waits."""
    output, locked = tmp_path / "other", Stage.locked

    def after_another(*args, **how):
        if not output.exists():
            shutil.copytree(undisturbed, output)
        return locked(*args, **how)

    monkeypatch.setattr(Stage, "locked", after_another)
    run_tile(configured(), Tile(*inputs, None, output))
    assert contents(output) == contents(undisturbed)
    assert (output / "timing.json").read_bytes() == (undisturbed / "timing.json").read_bytes()


def test_missing_checkpoint(tmp_path, inputs, small_network):
    with pytest.raises(CheckpointError, match="There is no checkpoint"):
        run_tile(configured(), Tile(inputs[0], tmp_path / "nowhere.ckpt", None, tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def half(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def without_stage(path):
    """As a version wrote it that knew one seed policy."""
    with np.load(path) as state:
        arrays = dict(state)
    facts = {key: value for key, value in json.loads(arrays["facts"].tobytes()).items() if key != "stage"}
    np.savez(path, **{**arrays, "facts": np.frombuffer(json.dumps(facts).encode(), np.uint8)})


@pytest.mark.parametrize("spoil", [lambda path: path.write_bytes(b"PK nothing"), half, without_stage])
def test_unreadable_state(tmp_path, inputs, undisturbed, spoil):
    (undisturbed / "done.json").unlink()
    canvas = Canvas(np.zeros(SHAPE, np.float32), FloodOptions.of(configured().network, configured().inference))
    save_state(undisturbed / "state.npz", canvas, np.empty((0, 3), np.int64))
    spoil(undisturbed / "state.npz")
    with pytest.raises(StageError, match=r"state\.npz cannot be read"):
        run_tile(configured(), Tile(*inputs, None, undisturbed))


def test_disk_full_while_saving(tmp_path, inputs, undisturbed, monkeypatch, capsys):
    config, output = tmp_path / "config.yaml", tmp_path / "full"
    config.write_text(yaml.safe_dump({**VALUES, "inference": {**VALUES["inference"], "checkpoint_every_s": ALWAYS}}))
    command = ["infer", "--config", str(config), "--image", inputs[0], "--checkpoint", str(inputs[1])]
    save, saved = np.savez, []

    def savez(file, **arrays):
        saved.append(1)
        if len(saved) > 40:
            file.write(b"half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        save(file, **arrays)

    with monkeypatch.context() as patch:
        patch.setattr(np, "savez", savez)
        assert main([*command, "--output", str(output)]) == 2
    assert "ffn: error: the disk is full" in capsys.readouterr().err
    assert sorted(path.name for path in output.iterdir()) == ["started.json", "state.npz"]
    assert main([*command, "--output", str(output)]) == 0
    assert contents(output) == contents(undisturbed)
