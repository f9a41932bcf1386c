"""Masks over sub-volumes against loops over single voxels."""

import itertools
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import zarr

from ffn.config import Config, parse_config
from ffn.config.masks import Mask
from ffn.errors import VolumeError
from ffn.geometry import Box
from ffn.inference import masks as masks_module
from ffn.inference.masks import Forbidden, chosen, forbidden
from ffn.volumes import coarse_shape, open_image

SHAPE = (11, 14, 17)
WHOLE = Box.of_shape(SHAPE)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    # Smaller than the volumes here, so that there are several blocks.
    monkeypatch.setattr(masks_module, "_BLOCK", (4, 5, 6))
    store("image", np.random.default_rng(0).integers(0, 256, SHAPE, np.uint8), (8.0, 8.0, 8.0))
    return tmp_path


def store(name: str, values: np.ndarray, voxel_size: tuple[float, float, float] | None = None) -> str:
    with h5py.File(f"{name}.h5", "w") as file:
        file["values"] = values
        if voxel_size is not None:
            file["values"].attrs["voxel_size_nm"] = voxel_size
    return f"{name}.h5:values"


def some(shape: tuple[int, ...], share: float = 0.1, seed: int = 1) -> np.ndarray:
    return (np.random.default_rng(seed).random(shape) < share).astype(np.uint8)


def config(downsample: tuple[int, int, int] = (1, 1, 1), **inference: Any) -> Config:
    network = {"fov": [3, 3, 3], "deltas": [1, 1, 1], "downsample": list(downsample)}
    region = {"image": "image.h5:values", "labels": "image.h5:values"}
    return parse_config(
        {"run": "a", "data": {"train": region, "test": region}, "network": network, "inference": inference}
    )


def masks_of(settings: Config, box: Box = WHOLE, phase: tuple[int, int, int] = (0, 0, 0)) -> Forbidden:
    with open_image("image.h5:values") as image:
        return forbidden(settings, image, box, phase)


def no_move(*masks: dict[str, Any], box: Box = WHOLE, **more: Any) -> np.ndarray:
    found = masks_of(config(masks=list(masks), **more), box).no_move
    assert found is not None
    assert found.dtype == bool
    return found


def grey() -> np.ndarray:
    with h5py.File("image.h5", "r") as file:
        return file["values"][...]


def test_without_masks_nothing_is_forbidden():
    assert masks_of(config()) == Forbidden(None, None)


def test_values_of_a_volume():
    values = np.random.default_rng(2).integers(0, 5, SHAPE, np.uint8)
    uri = store("mask", values)
    np.testing.assert_array_equal(no_move({"volume": uri}), values != 0)
    np.testing.assert_array_equal(no_move({"volume": uri, "invert": True}), values == 0)
    np.testing.assert_array_equal(no_move({"volume": uri, "min": 2, "max": 3}), (values == 2) | (values == 3))
    np.testing.assert_array_equal(no_move({"volume": uri, "min": 2}), values >= 2)
    np.testing.assert_array_equal(no_move({"volume": uri, "max": 3, "invert": True}), values > 3)
    np.testing.assert_array_equal(no_move({"volume": uri, "values": [1, 4]}), (values == 1) | (values == 4))


def test_values_of_the_image():
    image = grey()
    np.testing.assert_array_equal(no_move({"image": True, "max": 30}), image <= 30)
    np.testing.assert_array_equal(no_move({"image": True, "values": [0, 7, 255]}), np.isin(image, [0, 7, 255]))


def test_boxes():
    expected = np.zeros(SHAPE, bool)
    expected[2:5, :, 3:9] = expected[9:, 12:, :4] = True
    # The second one reaches beyond the image.
    boxes = ["2:5,0:14,3:9", "9:20,12:15,0:4"]
    np.testing.assert_array_equal(no_move({"boxes": boxes}), expected)
    np.testing.assert_array_equal(no_move({"boxes": boxes, "invert": True}), ~expected)


def test_sources_add_up_and_seeds_are_forbidden_where_moves_are():
    a, b, c = (some(SHAPE, seed=seed) for seed in (1, 2, 3))
    settings = config(
        masks=[{"volume": store("a", a)}, {"volume": store("b", b)}], seed_masks=[{"volume": store("c", c)}]
    )
    found = masks_of(settings)
    np.testing.assert_array_equal(found.no_move, (a | b) > 0)
    np.testing.assert_array_equal(found.no_seed, (a | b | c) > 0)
    only_seeds = masks_of(config(seed_masks=[{"volume": "c.h5:values"}]))
    assert only_seeds.no_move is None
    np.testing.assert_array_equal(only_seeds.no_seed, c > 0)
    only_moves = masks_of(config(masks=[{"volume": "a.h5:values"}]))
    np.testing.assert_array_equal(only_moves.no_seed, a > 0)


def test_a_sub_volume_counts_from_its_corner():
    box = Box((3, 2, 5), (9, 13, 17))
    mask = some(SHAPE)
    np.testing.assert_array_equal(no_move({"volume": store("mask", mask)}, box=box), mask[box.slices] > 0)
    np.testing.assert_array_equal(no_move({"image": True, "min": 99}, box=box), grey()[box.slices] >= 99)
    expected = np.zeros(SHAPE, bool)
    expected[4:8, 4:8, 4:8] = True
    np.testing.assert_array_equal(no_move({"boxes": ["4:8,4:8,4:8"]}, box=box), expected[box.slices])


@pytest.mark.parametrize("voxel_size", [None, (8.0, 16.0, 32.0)])
def test_a_coarser_mask_covers_the_voxels_of_each_of_its_own(voxel_size):
    coarse = some((11, 7, 5))
    expected = coarse.repeat(2, 1).repeat(4, 2)[:, :14, :17] > 0
    uri = store("coarse", coarse, voxel_size)
    np.testing.assert_array_equal(no_move({"volume": uri}), expected)
    box = Box((1, 3, 2), (10, 14, 16))
    np.testing.assert_array_equal(no_move({"volume": uri}, box=box), expected[box.slices])


def test_any_voxel_of_a_finer_mask_counts():
    # 33 voxels, of which the last image voxel covers only one.
    fine = some((22, 14, 33), 0.03)
    padded = np.pad(fine, [(0, 0), (0, 0), (0, 1)])
    expected = padded.reshape(11, 2, 14, 17, 2).any(axis=(1, 4))
    np.testing.assert_array_equal(no_move({"volume": store("fine", fine)}), expected)


@pytest.mark.parametrize("phase", [(0, 0, 0), (1, 1, 0), (1, 2, 0)])
@pytest.mark.parametrize("mask_shape", [SHAPE, (11, 7, 5)])
def test_a_network_voxel_is_forbidden_by_any_of_its_image_voxels(phase, mask_shape):
    factors, box = (2, 3, 1), Box((1, 0, 4), (11, 13, 15))
    mask = some(mask_shape, 0.05)
    settings = config(factors, masks=[{"volume": store("mask", mask)}, {"boxes": ["5:6,5:6,5:6"]}])
    cells = [-(-n // m) for n, m in zip(SHAPE, mask_shape, strict=True)]
    expected = np.zeros(coarse_shape(box.shape, factors, phase), bool)
    for z, y, x in itertools.product(*map(range, box.shape)):
        image = tuple(p + a for p, a in zip((z, y, x), box.start, strict=True))
        if mask[tuple(p // c for p, c in zip(image, cells, strict=True))] or image == (5, 5, 5):
            expected[tuple((p + s) // f for p, s, f in zip((z, y, x), phase, factors, strict=True))] = True
    assert expected.any()
    assert not expected.all()
    np.testing.assert_array_equal(masks_of(settings, box, phase).no_move, expected)


def shifted_places(field: np.ndarray, threshold: float, scale: int, reach: tuple[int, int, int]) -> np.ndarray:
    """The definition, position by position: the largest shift, along x or y, of any cell that the reach touches."""
    largest = np.abs(field.astype(np.float64)).max(axis=0)
    found = np.zeros(SHAPE, bool)
    for position in itertools.product(*map(range, SHAPE)):
        low = [max(p - r, 0) for p, r in zip(position, reach, strict=True)]
        high = [p + r for p, r in zip(position, reach, strict=True)]
        cells = largest[
            low[0] : high[0] + 1, low[1] // scale : high[1] // scale + 1, low[2] // scale : high[2] // scale + 1
        ]
        found[position] = (cells >= threshold).any()
    return found


def shifts(scale: int, dtype: type = np.float32) -> np.ndarray:
    rng = np.random.default_rng(5)
    field = rng.normal(0, 1.6, (2, 11, -(-14 // scale), -(-17 // scale)))
    field[0, 3, 1, 2], field[1, 7, -1, -1], field[1, 0, 0, 0] = -4.0, 4.0, -128.0
    return field.astype(dtype)


@pytest.mark.parametrize("scale", [1, 3])
@pytest.mark.parametrize("reach", [None, (0, 0, 0), (0, 2, 4), (2, 1, 0)])
@pytest.mark.parametrize("dtype", [np.float32, np.int8])
def test_shifts_forbid_what_they_reach(scale, reach, dtype):
    field = shifts(scale, dtype)
    shift_mask = {"volume": store("shift", field), "scale": scale, "reach": reach}
    expected = shifted_places(field, 4.0, scale, reach or (1, 1, 1))
    found = masks_of(config(shift_mask=shift_mask))
    assert expected.any()
    assert not expected.all()
    np.testing.assert_array_equal(found.no_move, expected)
    assert found.no_seed is None
    box = Box((2, 3, 5), (9, 11, 17))
    np.testing.assert_array_equal(masks_of(config(shift_mask=shift_mask), box).no_move, expected[box.slices])


def test_shifts_from_zarr_over_pooled_voxels_beside_a_mask():
    field, mask = shifts(2), some(SHAPE, 0.02)
    zarr.save_array("shift.zarr", field)
    settings = config(
        (1, 2, 2),
        masks=[{"volume": store("mask", mask)}],
        shift_mask={"volume": "shift.zarr", "scale": 2, "threshold": 3.5, "reach": [1, 0, 2]},
    )
    pooled = [
        np.pad(fine, [(0, 0), (0, 0), (0, 1)]).reshape(11, 7, 2, 9, 2).any(axis=(2, 4))
        for fine in (mask > 0, shifted_places(field, 3.5, 2, (1, 0, 2)))
    ]
    found = masks_of(settings)
    np.testing.assert_array_equal(found.no_seed, pooled[0])
    np.testing.assert_array_equal(found.no_move, pooled[0] | pooled[1])


def test_the_field_of_view_is_the_reach_that_counts_if_none_is_given():
    field = np.zeros((2, *SHAPE), np.float32)
    field[1, 5, 7, 8] = -9
    settings = config((1, 1, 2), shift_mask={"volume": store("shift", field)})
    expected = np.zeros((11, 14, 9), bool)
    # 3 x 3 x 6 image voxels: 1, 1 and 3 to each side; x 5 to 11 lies in the network voxels 2 to 5.
    expected[4:7, 6:9, 2:6] = True
    np.testing.assert_array_equal(masks_of(settings).no_move, expected)


def test_a_channel_of_several():
    values = np.stack([some(SHAPE, seed=1), some(SHAPE, seed=2)])
    uri = store("channels", values)
    np.testing.assert_array_equal(no_move({"volume": uri, "channel": 1}), values[1] > 0)
    with pytest.raises(VolumeError, match=r"expected four axes c,z,y,x with a channel 2"):
        no_move({"volume": uri, "channel": 2})


def test_large_labels_are_told_apart():
    values = np.array([2**60, 2**60 + 1, 5], np.uint64)
    mask = Mask(volume="a", values=[2**60 + 1, -3, 2.5, 5.0])
    assert chosen(values, mask).tolist() == [False, True, True]
    assert chosen(np.array([0.5, 2.5]), mask).tolist() == [False, True]


@pytest.mark.parametrize(
    ("shape", "voxel_size", "words"),
    [
        ((11, 14, 12), None, r"\(11, 14, 12\) voxels \(z,y,x\), the image \(11, 14, 17\)"),
        ((11, 14, 25), None, r"expected a volume of the same region, with \(11, 14, 34\) voxels"),
        ((11, 7, 17), (8.0, 8.0, 8.0), r"expected a volume of the same region, with \(11, 14, 17\) voxels"),
        ((11, 14, 17), (8.0, 12.0, 8.0), "voxels of 12 nm along y, the image of 8 nm; expected a whole multiple"),
    ],
)
def test_a_volume_of_another_region_is_refused(shape, voxel_size, words):
    with pytest.raises(VolumeError, match=words):
        no_move({"volume": store("other", np.ones(shape, np.uint8), voxel_size)})


def test_shifts_of_another_region_are_refused():
    with pytest.raises(VolumeError, match=r"expected a volume of the same region, with \(11, 7, 9\) voxels"):
        masks_of(config(shift_mask={"volume": store("shift", shifts(1)), "scale": 2}))
    with pytest.raises(VolumeError, match=r"has shape \(11, 14, 17\); expected four axes"):
        masks_of(config(shift_mask={"volume": "image.h5:values"}))
