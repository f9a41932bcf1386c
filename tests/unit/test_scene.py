"""What a flood fill is given: seeds by hand, segments, masks, several policies; turned like the image."""

import json
import sys
import tracemalloc

import numpy as np
import pytest
from flooding import Batches, SmallNetwork, blobs, literal_flood

from ffn.assembly.passes import join_passes
from ffn.assembly.split_consensus import split_consensus
from ffn.bundles import open_file
from ffn.cli import main
from ffn.config import Config, parse_config
from ffn.errors import DataError, GeometryError, StageError, VolumeError
from ffn.geometry import Box
from ffn.inference.kept import folder_of, ledger_of
from ffn.inference.options import FloodOptions
from ffn.inference.scene import Scene
from ffn.inference.state import save_state
from ffn.inference.subvolume import run_tile
from ffn.inference.tile import Tile
from ffn.inference.tiles import infer_tiles
from ffn.model.orientation import Orientation
from ffn.prepare.seeds import peak_seeds
from ffn.runs import RunPaths
from ffn.stages import Stage
from ffn.volumes import create_hdf5, open_volume

SHAPE = (34, 36, 38)
VALUES = {
    "run": "scene",
    "data": {"test": {"image": "unused"}, "voxel_size": [10, 10, 10]},
    "network": {"depth": 2, "features": 2, "fov": [9, 9, 9], "deltas": [2, 2, 2]},
    "inference": {"checkpoint": "unused", "min_segment_size": 100},
}


def configured(network=None, **inference) -> Config:
    return parse_config(
        {
            **VALUES,
            "network": {**VALUES["network"], **(network or {})},
            "inference": {**VALUES["inference"], **inference},
        }
    )


def write(path, array, voxel_size=(10.0, 10.0, 10.0)):
    with create_hdf5(path, "data", array.shape, array.dtype, voxel_size) as volume:
        volume.write(Box.of_shape(array.shape), array)
    return f"{path}:data"


@pytest.fixture
def image(tmp_path):
    return write(tmp_path / "image.h5", np.clip(128 + 33 * blobs(2, SHAPE), 0, 255).astype(np.uint8))


@pytest.fixture
def checkpoint(tmp_path):
    for suffix in (".index", ".data-00000-of-00001"):
        (tmp_path / f"model.ckpt{suffix}").write_bytes(suffix.encode())
    return tmp_path / "model.ckpt"


@pytest.fixture(autouse=True)
def small_network(monkeypatch):
    executor = type(sys)("ffn.inference.executor")
    executor.load_executor = lambda *_, **__: Batches(SmallNetwork(2))
    monkeypatch.setitem(sys.modules, executor.__name__, executor)


def labels_of(folder):
    with open_volume(f"{folder}/segmentation.h5:labels") as volume:
        return volume[...].astype(np.int64)


def records(folder):
    return json.loads((folder / "origins.json").read_text())


def normalised(image):
    with open_volume(image) as volume:
        return (volume[...].astype(np.float32) - np.float32(128)) / np.float32(33)


# --- seeds by hand


def test_seeds_by_hand_are_counted_in_the_image(tmp_path, image, checkpoint):
    run_tile(configured(), Tile(image, checkpoint, None, tmp_path / "all"))
    first = records(tmp_path / "all")[0]
    box = Box((2, 1, 0), SHAPE)
    place = tuple(first["seed_zyx"])
    run_tile(configured(), Tile(image, checkpoint, box, tmp_path / "one", seeds=(place,)))
    (record,) = records(tmp_path / "one")
    assert record["seed_zyx"] == [c - s for c, s in zip(place, box.start, strict=True)]
    assert labels_of(tmp_path / "one")[tuple(record["seed_zyx"])] == 1


def test_the_command_takes_seeds(tmp_path, image, checkpoint, capsys):
    config = tmp_path / "config.yaml"
    config.write_text(json.dumps(VALUES))
    line = ["infer", "--config", str(config), "--image", image, "--checkpoint", str(checkpoint)]
    assert main([*line, "--seed", "4,4,4", "--seed", "20,20,20", "--output", str(tmp_path / "two")]) == 0
    assert json.loads((tmp_path / "two/counters.json").read_text())["seeds"] == 2
    assert "2 seeds gave a segment" in capsys.readouterr().err or len(records(tmp_path / "two")) == 2
    assert main([*line, "--seed", "20,20,99", "--output", str(tmp_path / "none")]) == 2
    assert "The seed 20,20,99 (z,y,x) lies outside the box" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()
    with pytest.raises(SystemExit):
        main(["infer", "--config", str(config), "--tile", "0", "--seed", "4,4,4"])
    assert "--seed cannot be combined with --tile" in capsys.readouterr().err


def test_a_seed_without_room_or_on_something(tmp_path, image, checkpoint):
    given = np.zeros(SHAPE, np.uint32)
    given[20:24, 20:24, 20:24] = 77
    masks = [{"boxes": ["10:12,10:12,10:12"]}]
    config = configured(init_segmentation=write(tmp_path / "given.h5", given), seed_masks=masks)
    for place, error, message in [
        ((3, 20, 20), GeometryError, "The seed 3,20,20 .* too near a face .* inference.mirror"),
        ((11, 11, 11), DataError, "The seed 11,11,11 .* lies on a mask"),
        ((21, 22, 23), DataError, "The seed 21,22,23 .* lies in segment 77 of inference.init_segmentation"),
    ]:
        with pytest.raises(error, match=message):
            run_tile(config, Tile(image, checkpoint, None, tmp_path / "out", seeds=(place,)))
        assert not (tmp_path / "out").exists()
    mirrored = configured(mirror=True)
    run_tile(mirrored, Tile(image, checkpoint, None, tmp_path / "mirrored", seeds=((0, 20, 20),)))


def test_lost_seeds_are_explained(tmp_path, image, checkpoint, capsys):
    config = configured(min_segment_size=100_000)
    run_tile(config, Tile(image, checkpoint, None, tmp_path / "out", seeds=((16, 16, 16), (20, 20, 20))))
    error = capsys.readouterr().err
    assert "0 of 2 seeds gave a segment. Not: " in error
    assert "min_segment_size 100000" in error or "move_threshold" in error


# --- given segments


@pytest.mark.parametrize("turn", [0, 5])
@pytest.mark.parametrize("downsample", [[1, 1, 1], [1, 2, 2]])
@pytest.mark.parametrize("mirror", [False, True])
def test_given_segments_stay_and_are_listed(tmp_path, image, checkpoint, turn, downsample, mirror):
    given = np.zeros(SHAPE, np.uint32)
    given[4:20, 4:16, 8:20] = 900
    given[24:30, 20:32, 20:32] = 5
    uri = write(tmp_path / "given.h5", given)
    network = {"downsample": downsample, "fov": [9, 7, 7]}
    config = configured(network, init_segmentation=uri, mirror=mirror, save_probability=True, min_segment_size=20)
    run_tile(config, Tile(image, checkpoint, None, tmp_path / "out", turn=turn))
    labels = labels_of(tmp_path / "out")
    assert records(tmp_path / "out")[:2] == [
        {"id": 1, "given": 5, "voxels": int((given == 5).sum())},
        {"id": 2, "given": 900, "voxels": int((given == 900).sum())},
    ]
    np.testing.assert_array_equal(labels == 2, given == 900)
    np.testing.assert_array_equal(labels == 1, given == 5)
    assert labels.max() > 2
    assert [record["id"] for record in records(tmp_path / "out")] == list(range(1, labels.max() + 1))
    assert json.loads((tmp_path / "out/done.json").read_text())["facts"]["segments"] == labels.max()
    with open_volume(f"{tmp_path}/out/probability.h5:qprob") as volume:
        probability = volume[...]
    assert probability.shape == SHAPE
    assert (probability[6:18, 6:14, 10:18] == 255).all()
    if downsample == [1, 1, 1]:
        np.testing.assert_array_equal(probability > 0, labels > 0)


def test_given_segments_take_no_more_memory_than_seeds(tmp_path):
    shape = (64, 64, 64)
    image = write(tmp_path / "image.h5", np.full(shape, 128, np.uint8))
    uri = write(tmp_path / "given.h5", np.arange(64**3, dtype=np.uint64).reshape(shape) // 4096 * 7)
    tracemalloc.start()
    scene = Scene.of(configured(init_segmentation=uri), image, Box.of_shape(shape), 0)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert scene.given_ids.tolist() == [7 * n for n in range(1, 64)]
    assert scene.canvas.labels.max() == 63
    assert peak < 40 * 64**3


def test_given_segments_that_were_made_anew_are_other_ones(tmp_path, image, checkpoint):
    given = np.zeros(SHAPE, np.uint32)
    given[4:20, 4:16, 8:20] = 900
    (tmp_path / "coarse").mkdir()
    config = configured(init_segmentation=write(tmp_path / "coarse" / "segmentation.h5", given))
    Stage(tmp_path / "coarse", {"segment_threshold": 0.6}).finish()
    run_tile(config, Tile(image, checkpoint, None, tmp_path / "out"))
    run_tile(config, Tile(image, checkpoint, None, tmp_path / "out"))
    Stage(tmp_path / "coarse", {"segment_threshold": 0.5}).finish()
    with pytest.raises(StageError, match="init_segmentation_done"):
        run_tile(config, Tile(image, checkpoint, None, tmp_path / "out"))


@pytest.mark.parametrize("mirror", [False, True])
def test_the_share_that_is_told_is_that_of_the_sub_volume(tmp_path, image, checkpoint, mirror, capsys):
    run_tile(configured(mirror=mirror), Tile(image, checkpoint, None, tmp_path / "out"))
    assert f", {np.mean(labels_of(tmp_path / 'out') > 0):.1%} of the voxels" in capsys.readouterr().err


def test_given_segments_of_another_shape(tmp_path, image, checkpoint):
    uri = write(tmp_path / "given.h5", np.ones((9, 9, 9), np.uint32))
    with pytest.raises(VolumeError, match="differ in shape"):
        run_tile(configured(init_segmentation=uri), Tile(image, checkpoint, None, tmp_path / "out"))
    assert not (tmp_path / "out").exists()


# --- masks and policies


@pytest.mark.parametrize("turn", [0, 3])
def test_masks_are_turned_with_the_image(tmp_path, image, checkpoint, turn):
    rng = np.random.default_rng(0)
    no_move, no_seed = (np.zeros(SHAPE, np.uint8) for _ in range(2))
    no_move[rng.random(SHAPE) < 0.2] = 1
    no_seed[:, :18] = 1
    config = configured(
        masks=[{"volume": write(tmp_path / "moves.h5", no_move)}],
        seed_masks=[{"volume": write(tmp_path / "seeds.h5", no_seed)}],
    )
    run_tile(config, Tile(image, checkpoint, None, tmp_path / "out", turn=turn))
    forbidden = (no_move > 0) | (no_seed > 0)
    grey, orientation = normalised(image), Orientation.listed("zyx")[turn]
    seeds = peak_seeds(grey, config.network.fov, (10, 10, 10), forbidden)
    is_seed = np.zeros(SHAPE, bool)
    is_seed[tuple(seeds.T)] = True
    expected, origins, _, count = literal_flood(
        np.ascontiguousarray(orientation.apply(grey)),
        np.argwhere(orientation.apply(is_seed)),
        FloodOptions.of(config.network, config.inference),
        SmallNetwork(2),
        orientation.apply(no_move > 0),
        orientation.apply(no_seed > 0),
    )
    assert len(origins) > 0
    assert count["skip_restricted_pos"] > 0
    np.testing.assert_array_equal(labels_of(tmp_path / "out"), orientation.undo(expected))
    counters = json.loads((tmp_path / "out/counters.json").read_text())
    assert counters["skip_restricted_pos"] == count["skip_restricted_pos"]


def test_a_later_policy_sees_what_the_first_left_and_states_know_the_policy(tmp_path, image, checkpoint, monkeypatch):
    policies = [{"name": "PolicyGrid3d", "step": 12, "offsets": [6]}, "PolicyPeaks"]
    config = configured(seed_policy=policies, checkpoint_every_s=1e-9)
    run_tile(config, Tile(image, checkpoint, None, tmp_path / "whole"))
    alone = configured(seed_policy=policies[:1])
    run_tile(alone, Tile(image, checkpoint, None, tmp_path / "first"))
    many, few = len(records(tmp_path / "whole")), len(records(tmp_path / "first"))
    assert many > few > 0
    assert records(tmp_path / "whole")[:few] == records(tmp_path / "first")

    total = json.loads((tmp_path / "whole/counters.json").read_text())["fovs"]

    class Stopped(SmallNetwork):
        def __call__(self, grey, object_map):
            if self.calls == total - 2:
                raise KeyboardInterrupt
            return super().__call__(grey, object_map)

    monkeypatch.setattr(sys.modules["ffn.inference.executor"], "load_executor", lambda *_, **__: Batches(Stopped(2)))
    with pytest.raises(KeyboardInterrupt):
        run_tile(config, Tile(image, checkpoint, None, tmp_path / "again"))
    network = SmallNetwork(2)
    monkeypatch.setattr(sys.modules["ffn.inference.executor"], "load_executor", lambda *_, **__: Batches(network))
    run_tile(config, Tile(image, checkpoint, None, tmp_path / "again"))
    assert network.calls < total // 2
    for name in ("segmentation.h5", "origins.json", "counters.json"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.parametrize("saved", [False, True])
def test_killed_between_two_policies(tmp_path, image, checkpoint, monkeypatch, saved):
    """Just before, or just after, the state with the seeds of the second policy is written."""
    config = configured(seed_policy=[{"name": "PolicyGrid3d", "step": 12, "offsets": [6]}, "PolicyPeaks"])
    run_tile(config, Tile(image, checkpoint, None, tmp_path / "whole"))

    def killing(path, canvas, seeds, stage=0):
        if stage == 0 or saved:
            save_state(path, canvas, seeds, stage)
        if stage == 1:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("ffn.inference.subvolume.save_state", killing)
        with pytest.raises(KeyboardInterrupt):
            run_tile(config, Tile(image, checkpoint, None, tmp_path / "again"))
    run_tile(config, Tile(image, checkpoint, None, tmp_path / "again"))
    for name in ("segmentation.h5", "origins.json", "counters.json"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_reversed_seeds_are_reversed_in_a_turned_volume_too(image):
    box = Box.of_shape(SHAPE)
    for turn in (0, 5):
        forward = Scene.of(configured(), image, box, turn).seeds(0)
        backward = Scene.of(configured(reverse_seeds=True), image, box, turn).seeds(0)
        np.testing.assert_array_equal(backward, forward[::-1])
        np.testing.assert_array_equal(forward, np.unique(forward, axis=0))


def test_an_order_that_is_none_of_place_is_kept(image):
    box = Box.of_shape(SHAPE)
    config = configured(seed_policy="PolicyMax")
    plain = Scene.of(config, image, box, 0)
    turned = Scene.of(config, image, box, 5)
    seeds = plain.seeds(0)
    np.testing.assert_array_equal(turned.framing.seeds_before(turned.seeds(0)), seeds)
    grey = normalised(image)[tuple(seeds.T)]
    assert (np.diff(grey) <= 0).all()
    assert (np.diff(grey) < 0).any()


@pytest.mark.parametrize("consensus", ["vote", "split"])
def test_passes_of_several_kinds_become_one_segmentation(tmp_path, image, checkpoint, consensus):
    """Seeds in both orders, other weights, another resolution, another quality: each pass is what it would be alone."""
    for suffix in (".index", ".data-00000-of-00001"):
        (tmp_path / f"other.ckpt{suffix}").write_bytes(f"other {suffix}".encode())
    passes = [
        {},
        {"reverse_seeds": True, "checkpoint": str(tmp_path / "other.ckpt")},
        {"network": {"downsample": [1, 2, 2], "fov": [9, 7, 7]}, "min_segment_size": 25},
        {"quality": "balanced", "turn": 3},
    ]
    inference = {"checkpoint": str(checkpoint), "consensus": consensus, "split_min_size": 50}
    values = {
        **VALUES,
        "results": str(tmp_path / "results"),
        "data": {"test": {"image": image}, "voxel_size": [10] * 3},
    }
    config = parse_config({**values, "inference": {**VALUES["inference"], **inference, "passes": passes}})
    paths = RunPaths.of(config)
    for number, differences in enumerate(passes):
        infer_tiles(config, [0], number)
        turn, network = differences.get("turn", 0), differences.get("network", {})
        own = {key: value for key, value in differences.items() if key not in ("turn", "network")}
        alone = configured(network, **{**own, "checkpoint": "unused"})
        run_tile(alone, Tile(image, checkpoint, None, tmp_path / f"alone-{number}", turn=turn))
        kept = folder_of(ledger_of(paths.infer_pass(number))[0])
        np.testing.assert_array_equal(labels_of(kept), labels_of(tmp_path / f"alone-{number}"))
    join_passes(config, [0])
    agreed = folder_of(ledger_of(paths.consensus)[0])
    labels = labels_of(agreed)
    assert labels.shape == SHAPE
    with open_file(agreed / "origins.json") as file:
        assert 0 < labels.max() == len(json.load(file))
    if consensus == "split":
        everything = [labels_of(folder_of(ledger_of(paths.infer_pass(number))[0])) for number in range(len(passes))]
        np.testing.assert_array_equal(labels > 0, split_consensus(everything, 50) > 0)
