"""Everything wrong with a run's inputs is told at once, before anything runs."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from ffn.config import Config, parse_config
from ffn.errors import ConfigError
from ffn.geometry import Box
from ffn.preflight import check_inputs, require_training_inputs
from ffn.volumes import create_hdf5

NETWORK = {"depth": 2, "features": 2, "fov": [9, 9, 9], "deltas": [2, 2, 2]}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def volume(
    name: str,
    shape: tuple[int, int, int] = (20, 24, 28),
    voxel_size: tuple[float, float, float] | None = (8, 8, 8),
    dtype: type = np.uint8,
) -> str:
    path = Path(f"{name}.h5")
    with create_hdf5(path, "raw", shape, dtype, voxel_size) as out:
        out.write(Box.of_shape(shape), np.ones(shape, dtype))
    return f"{path}:raw"


def config(data: dict[str, Any], **sections: Any) -> Config:
    return parse_config({"run": "a", "data": data, "network": NETWORK, **sections})


def good_data() -> dict[str, Any]:
    image, labels = volume("image"), volume("labels", dtype=np.uint64)
    region = {"image": image, "labels": labels}
    return {"train": {**region, "box": "0:20,0:20,0:20"}, "test": region}


def test_good_inputs_have_no_problems() -> None:
    assert check_inputs(config(good_data())) == []
    require_training_inputs(config(good_data()))


def test_the_embedded_volume_needs_no_files() -> None:
    region = {"image": "synthetic", "labels": "synthetic", "box": "0:80,0:160,0:160"}
    assert check_inputs(config({"train": region, "test": region})) == []
    outside = {**region, "box": "0:80,0:160,0:161"}
    (problem,) = check_inputs(config({"train": region, "test": outside}))
    assert problem == "data.test.box: 0:80,0:160,0:161 is outside the image, which has 160 x 160 x 160 voxels (z,y,x)."


def test_all_problems_come_in_one_report() -> None:
    data = {
        "train": {"image": "none.h5:raw", "labels": volume("labels")},
        "test": {"image": volume("image"), "labels": volume("small", (20, 24, 27)), "box": "0:20,0:24,10:29"},
    }
    problems = check_inputs(config(data, inference={"checkpoint": "nowhere/model.ckpt"}))
    assert len(problems) == 4
    told = "\n".join(problems)
    for part in (
        "data.train.image: There is no file none.h5",
        "data.test.labels: Image and labels differ in shape",
        "data.test.box: 0:20,0:24,10:29 is outside the image, which has 20 x 24 x 28 voxels",
        "inference.checkpoint: there is no checkpoint nowhere/model.ckpt",
    ):
        assert part in told


def only_problem(settings: Config) -> str:
    (problem,) = check_inputs(settings)
    return problem


def test_types_that_cannot_be_images_or_labels() -> None:
    data = good_data()
    data["test"] = {"image": volume("signed", dtype=np.int16)}
    assert "data.test.image: signed.h5:raw holds int16" in only_problem(config(data))
    data["test"] = {"image": data["train"]["image"], "labels": volume("floats", dtype=np.float32)}
    assert "data.test.labels: floats.h5:raw holds float32; labels must be whole numbers" in only_problem(config(data))


def test_volumes_smaller_than_the_field_of_view() -> None:
    data = good_data()
    data["test"] = {"image": volume("flat", (8, 24, 28))}
    problem = only_problem(config(data))
    assert problem.startswith("data.test.image: The field of view (9 voxels along z) is larger than the volume (8)")


def test_training_regions_smaller_than_an_example() -> None:
    data = good_data()
    data["train"]["box"] = "0:12,0:20,0:20"
    problems = check_inputs(config(data))
    assert any("(fov and its moves) takes 13 network voxels along z, the region has 12" in p for p in problems)
    data["train"]["box"] = "0:16,0:20,0:20"
    assert check_inputs(config(data)) == []
    assert "takes 17 network voxels along z" in only_problem(config(data, training={"moves": "max_pred_moves"}))
    assert (
        "prepare.lom_radius) takes 21 network voxels along z"
        in check_inputs(config(data, prepare={"lom_radius": [10, 4, 4]}))[0]
    )


def test_an_unknown_voxel_size_is_asked_for() -> None:
    data = good_data()
    data["test"] = {"image": volume("plain", voxel_size=None)}
    assert "plain.h5:raw does not state its voxel size; give data.voxel_size" in only_problem(config(data))
    assert check_inputs(config({**data, "voxel_size": [8, 8, 8]})) == []


def test_only_equal_axes_can_be_swapped() -> None:
    data = good_data()
    image, labels = volume("thick", voxel_size=(30, 8, 8)), data["train"]["labels"]
    data["train"] = {"image": image, "labels": labels}
    assert check_inputs(config(data)) == []
    swapped = {"permutable_axes": ["z", "y"]}
    assert "z and y differ in voxel size (30 and 8 nm)" in only_problem(config(data, training=swapped))
    flat = {**NETWORK, "fov": [5, 9, 9]}
    problem = only_problem(parse_config({"run": "a", "data": good_data(), "network": flat, "training": swapped}))
    assert "z and y differ in network.fov or deltas ((5, 2) and (9, 2))" in problem


def test_what_a_source_brings_is_left_out_until_it_is_there(here: Path) -> None:
    data = good_data()
    data["sources"] = [
        {"dataset": "fib25_test", "folder": "data/sample"},
        {"dataset": "fib25_checkpoint", "folder": "data/released"},
    ]
    data["test"] = {"image": "data/sample/grayscale_maps", "labels": "data/sample/groundtruth.h5.gz"}
    settings = config(data, inference={"checkpoint": "data/released/model.ckpt-27465036"})
    assert check_inputs(settings) == []
    (here / "data/sample/grayscale_maps").mkdir(parents=True)
    (here / "data/released").mkdir()
    problems = check_inputs(settings)
    assert [p.split(":")[0] for p in problems] == ["data.test.image", "data.test.labels", "inference.checkpoint"]


def test_weights_of_all_passes_are_looked_for(here: Path) -> None:
    for name in ("own.ckpt.index", "own.ckpt.data-00000-of-00001", "exported.npz"):
        (here / name).touch()
    passes = [{"checkpoint": "own.ckpt"}, {"checkpoint": "exported.npz"}, {"checkpoint": "none.ckpt"}]
    problem = only_problem(config(good_data(), inference={"checkpoint": "never_used", "passes": passes}))
    assert problem.startswith("inference.passes.2.checkpoint: there is no checkpoint none.ckpt")
    assert check_inputs(config(good_data(), inference={"checkpoint": "exported.npz"})) == []
    (here / "own.ckpt.data-00000-of-00001").unlink()
    assert "there is no checkpoint own.ckpt" in only_problem(
        config(good_data(), inference={"checkpoint": "exported.npz", "passes": [{"checkpoint": "own.ckpt"}, {}]})
    )


def test_volumes_to_learn_from_together_must_be_alike() -> None:
    labels = volume("labels", dtype=np.uint64)
    region = {"image": volume("image"), "labels": labels}
    wide = {"image": volume("wide", dtype=np.uint16), "labels": labels}
    fine = {"image": volume("fine", voxel_size=(4, 4, 4)), "labels": labels}
    data = {"train": [region, {**region, "weight": 2}], "validation": {**region, "image": volume("apart")}}
    assert check_inputs(config({**data, "test": region})) == []
    problem = only_problem(config({"train": [region, wide], "test": region}))
    assert problem.startswith("data.train.1.image: wide.h5:raw holds uint16, but image.h5:raw of data.train.0 uint8;")
    problem = only_problem(config({"train": region, "validation": fine, "test": region}))
    assert problem.startswith(
        "data.validation.image: the voxels of fine.h5:raw are 4 x 4 x 4 nm (z,y,x), but those of image.h5:raw of "
        "data.train 8 x 8 x 8 nm (z,y,x);"
    )
    assert check_inputs(config({"train": [region, fine], "test": region, "voxel_size": [8, 8, 8]})) == []


def test_a_volume_of_several_channels_is_named() -> None:
    labels = volume("labels", dtype=np.uint64)
    region = {"image": volume("image"), "labels": labels}
    with h5py.File("colour.h5", "w") as file:
        file["raw"] = np.ones((3, 20, 24, 28), np.uint8)
    problem = only_problem(config({"train": [region, {**region, "image": "colour.h5:raw"}], "test": region}))
    assert problem.startswith("data.train.1.image: colour.h5:raw has 4 dimensions")
    assert "one channel" in problem


def test_the_held_out_region_is_looked_at_like_the_others() -> None:
    data = good_data()
    other = volume("other")
    data["validation"] = {"image": other, "labels": data["test"]["labels"], "box": "0:12,0:20,0:20"}
    problems = check_inputs(config(data))
    assert any(p.startswith("data.validation: the training example (fov and its moves) takes 13") for p in problems)
    data["validation"] = {"image": "none.h5:raw", "labels": data["test"]["labels"]}
    assert "data.validation.image: There is no file none.h5" in only_problem(config(data))


def test_swapping_asks_for_the_size_of_network_voxels() -> None:
    data = good_data()
    data["train"] = {"image": volume("thick", voxel_size=(16, 8, 8)), "labels": data["train"]["labels"]}
    swapped = {"permutable_axes": ["z", "y"]}
    network = {**NETWORK, "fov": [5, 5, 5], "deltas": [1, 1, 1], "downsample": [1, 2, 2]}
    assert check_inputs(parse_config({"run": "a", "data": data, "network": network, "training": swapped})) == []
    assert "z and y differ in voxel size" in only_problem(config(data, training=swapped))


def test_training_is_told_of_its_own_inputs_only() -> None:
    wide = {"image": volume("wide", dtype=np.uint16), "labels": volume("labels", dtype=np.uint64)}
    data = {"train": [good_data()["train"], wide], "test": {"image": "none.h5:raw"}}
    with pytest.raises(ConfigError) as caught:
        require_training_inputs(config(data))
    told = str(caught.value)
    assert told.startswith("The training data of run 'a' have 1 problem:\n")
    assert "wide.h5:raw holds uint16, but image.h5:raw of data.train" in told


def stored(name: str, shape: tuple[int, ...]) -> str:
    with h5py.File(f"{name}.h5", "w") as file:
        file["raw"] = np.zeros(shape, np.uint8)
    return f"{name}.h5:raw"


def test_masks_are_there_and_cover_the_image() -> None:
    good = {
        "masks": [{"volume": stored("same", (20, 24, 28))}, {"boxes": ["0:9,0:9,0:99"]}, {"image": True, "max": 3}],
        "seed_masks": [{"volume": stored("coarse", (20, 6, 7))}],
        "shift_mask": {"volume": stored("shift", (2, 20, 5, 6)), "scale": 5},
    }
    assert check_inputs(config(good_data(), inference=good)) == []
    bad = {
        "masks": [{"volume": "none.h5:raw"}, {"boxes": ["0:9,0:9,0:9", "20:21,0:9,0:9"]}],
        "seed_masks": [{"volume": stored("other", (20, 13, 28))}, {"volume": "same.h5:raw", "channel": 0}],
        "shift_mask": {"volume": "shift.h5:raw", "scale": 4},
    }
    problems = check_inputs(config(good_data(), inference=bad))
    assert len(problems) == 5
    told = "\n".join(problems)
    for part in (
        "inference.masks.0.volume: There is no file none.h5",
        "inference.masks.1.boxes: 20:21,0:9,0:9 is outside the image, which has 20 x 24 x 28 voxels (z,y,x)",
        "inference.seed_masks.0.volume: other.h5:raw has (20, 13, 28) voxels (z,y,x), the image (20, 24, 28)",
        "inference.seed_masks.1.volume: same.h5:raw has shape (20, 24, 28); expected four axes c,z,y,x",
        "inference.shift_mask.volume: shift.h5:raw has (20, 5, 6) voxels (z,y,x), the image (20, 24, 28); expected a "
        "volume of the same region, with (20, 6, 7) voxels",
    ):
        assert part in told


def test_a_mask_is_compared_in_nanometres() -> None:
    data = good_data()
    mask = {"volume": volume("mask", (20, 12, 28), voxel_size=(8, 12, 8))}
    problem = only_problem(config(data, inference={"masks": [mask]}))
    assert problem.startswith("inference.masks.0.volume: mask.h5:raw has voxels of 12 nm along y, the image of 8 nm")


def test_masks_over_the_embedded_volume_and_of_a_source() -> None:
    region = {"image": "synthetic", "labels": "synthetic"}
    data = {
        "train": {**region, "box": "0:80,0:160,0:160"},
        "test": region,
        "sources": [{"dataset": "fib25_test", "folder": "data/sample"}],
    }
    good = {"masks": [{"volume": stored("mask", (160, 80, 80))}, {"volume": "data/sample/mask.h5:raw"}]}
    assert check_inputs(config(data, inference=good)) == []
    problem = only_problem(config(data, inference={"masks": [{"volume": stored("odd", (160, 81, 80))}]}))
    assert "odd.h5:raw has (160, 81, 80) voxels (z,y,x), the image (160, 160, 160)" in problem


def test_origins_of_an_earlier_run_are_there(here: Path) -> None:
    inference = {"seed_policy": ["PolicyPeaks", {"name": "PolicyInvertOrigins", "folder": "earlier/infer"}]}
    problem = only_problem(config(good_data(), inference=inference))
    assert problem == (
        "inference.seed_policy: there is no folder earlier/infer with the origins.json of an earlier run."
    )
    (here / "earlier/infer/pass-0/ledger/0000-0001").mkdir(parents=True)
    assert len(check_inputs(config(good_data(), inference=inference))) == 1
    (here / "earlier/infer/pass-0/ledger/0000-0001/one.jsonl").write_text("{}")
    assert check_inputs(config(good_data(), inference=inference)) == []


@pytest.mark.parametrize("name", ["weights.npz", "model.ckpt", "model.ckpt.index"])
def test_checkpoints_in_every_form_are_found(here: Path, name: str) -> None:
    for file in ("weights.npz", "model.ckpt.index", "model.ckpt.data-00000-of-00001"):
        (here / file).touch()
    assert check_inputs(config(good_data(), inference={"checkpoint": name})) == []
    assert "no file other.npz" in only_problem(config(good_data(), inference={"checkpoint": "other.npz"}))


def test_checkpoints_and_fields_of_view_of_passes() -> None:
    passes = [{}, {"checkpoint": "nowhere/model.ckpt"}, {"network": {"downsample": [1, 1, 4]}}]
    problems = check_inputs(config(good_data(), inference={"passes": passes}))
    assert problems == [
        "inference.passes.1.checkpoint: there is no checkpoint nowhere/model.ckpt (no file nowhere/model.ckpt.index, "
        "or no nowhere/model.ckpt.data-...).",
        "inference.passes.2.network: The field of view (36 voxels along x) is larger than the test region (28); use a "
        "smaller network.fov or a larger volume.",
    ]


def test_given_segments_are_labels_of_the_image() -> None:
    def problems(uri: str) -> list[str]:
        return check_inputs(config(good_data(), inference={"init_segmentation": uri}))

    assert problems(volume("given", dtype=np.uint32)) == []
    assert "inference.init_segmentation: There is no file none.h5" in problems("none.h5:raw")[0]
    assert "(20, 24, 27) voxels (z,y,x), the image of data.test (20, 24, 28)" in problems(volume("g", (20, 24, 27)))[0]
    assert "inference.init_segmentation: real.h5:raw holds float32" in problems(volume("real", dtype=np.float32))[0]
