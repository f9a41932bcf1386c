"""Voxels that no object took, given to the objects around them."""

import edt
import numpy as np
import pytest
from tiled import finished_tiles, labelled

from ffn.assembly.fill import fill
from ffn.assembly.labelled import Segmented
from ffn.assembly.run import assemble
from ffn.assembly.spec import AssemblySpec
from ffn.config import Assembly, parse_config
from ffn.errors import ConfigError
from ffn.geometry import Box
from ffn.runs import labels_in
from ffn.volumes import create_hdf5, open_volume

ISOTROPIC = (10.0, 10.0, 10.0)


def two_neurons(length=24, membrane=8):
    """Bright tissue with a dark membrane across x, nearer to the one of the labels at both ends."""
    image = np.full((7, 7, length), 200, np.uint8)
    image[:, :, membrane] = 60
    labels = np.zeros(image.shape, np.uint64)
    labels[:, :, :3], labels[:, :, -3:] = 2**40, 7
    return labels, image


def test_neighbours_meet_on_the_membrane():
    labels, image = two_neurons()
    filled = fill(labels, image, 1000, ISOTROPIC)
    # Half way between the two would be x = 11.
    assert (filled[:, :, :8] == 2**40).all()
    assert (filled[:, :, 9:] == 7).all()
    assert (filled != 0).all()


def test_nothing_farther_than_the_distance_is_filled_and_no_object_changes():
    labels, image = two_neurons()
    filled = fill(labels, image, 40, ISOTROPIC)
    assert (filled[:, :, :7] == 2**40).all()  # 4 voxels from x = 2
    assert (filled[:, :, 7:17] == 0).all()
    assert (filled[:, :, 17:] == 7).all()
    np.testing.assert_array_equal(filled[labels != 0], labels[labels != 0])


def test_the_distance_is_in_nanometres():
    labels = np.zeros((9, 9, 9), np.uint64)
    labels[4, 4, 4] = 3
    filled = fill(labels, np.full(labels.shape, 100, np.uint8), 60, (30.0, 10.0, 20.0))
    # Half axes of 2, 6 and 3 voxels.
    assert (filled[:, 4, 4] != 0).tolist() == [False] * 2 + [True] * 5 + [False] * 2
    assert (filled[4, :, 4] != 0).all()
    assert (filled[4, 4, :] != 0).tolist() == [False] + [True] * 7 + [False]
    assert filled[2, 4, 5] == 0


@pytest.mark.parametrize("value", [0, 5])
def test_all_free_or_nothing_free_stays(value):
    labels = np.full((4, 4, 4), value, np.uint64)
    np.testing.assert_array_equal(fill(labels, np.zeros((4, 4, 4), np.uint8), 100, ISOTROPIC), labels)


def cells(seed=3, shape=(40, 44, 48)):
    """Truth, an image with dark membranes, and labels that stop 2 voxels short of them; one cell has none."""
    rng = np.random.default_rng(seed)
    centres = rng.uniform(0, shape, (14, 3))
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    truth = np.linalg.norm(grid[..., None, :] - centres, axis=-1).argmin(axis=-1).astype(np.uint64) + 1
    depth = edt.edt(truth, black_border=False, order="C")
    image = np.clip(30 + 30 * depth, 0, 200).astype(np.uint8)
    labels = np.where((depth > 2) & (truth != 5), truth, 0).astype(np.uint64)
    return truth, image, labels


def test_filling_completes_neurons_but_not_those_without_any_object():
    truth, image, labels = cells()
    filled = fill(labels, image, 30, ISOTROPIC)
    known = truth != 5
    assert (labels[known] == 0).mean() > 0.15
    assert (filled[known] == truth[known]).mean() > 0.97
    # What no object grew in is left free, but for the rim that is near another object.
    assert (filled[truth == 5] == 0).mean() > 0.5


@pytest.mark.parametrize("block", [(16, 16, 16), (40, 44, 48)])
def test_blocks_fill_like_the_whole(tmp_path, block):
    _, image, labels = cells()
    shape, corner = labels.shape, (3, 0, 5)
    for name, values in (("labels", labels), ("image", image)):
        whole = tuple(n + c for n, c in zip(shape, corner, strict=True))
        size, start = (whole, corner) if name == "image" else (shape, (0, 0, 0))
        with create_hdf5(tmp_path / f"{name}.h5", name, size, values.dtype, ISOTROPIC) as volume:
            volume.write(Box.of_shape(shape).shifted(start), values)
    box = Box.of_shape(shape).shifted(corner)
    tiles = Segmented([box], [f"{tmp_path / 'labels.h5'}:labels"], [19])
    rule = Assembly(fill_nm=30, block=block)
    spec = AssemblySpec(tiles, box, rule, tmp_path / "out", f"{tmp_path / 'image.h5'}:image", ISOTROPIC)
    result = labelled(spec, [np.arange(20, dtype=np.uint64)])
    expected = fill(labels, image, 30, ISOTROPIC)
    np.testing.assert_array_equal(result != 0, expected != 0)
    assert (result == expected).mean() > 0.9995


def finished_run(tmp_path, voxel_size):
    labels, image = two_neurons()
    with create_hdf5(tmp_path / "image.h5", "image", image.shape, np.uint8, voxel_size) as volume:
        volume.write(Box.of_shape(image.shape), image)
    values = {
        "run": "filled",
        "results": str(tmp_path / "results"),
        "data": {"test": {"image": f"{tmp_path / 'image.h5'}:image"}},
        "network": {"fov": [7, 7, 7], "deltas": [1, 1, 1]},
        "inference": {"checkpoint": "unused"},
        "assembly": {"fill_nm": 1000, "workers": 1},
    }
    results, box = tmp_path / "results" / "filled", Box.of_shape(labels.shape)
    filled = np.where(labels == 7, 2, (labels != 0).astype(np.uint64))
    finished_tiles(results / "infer", [box], [filled], voxel_size=voxel_size)
    return parse_config(values), results / "assemble"


def test_assembly_fills(tmp_path):
    config, output = finished_run(tmp_path, ISOTROPIC)
    assemble(config)
    with open_volume(labels_in(output)) as volume:
        result = volume[...]
    assert (result[:, :, :8] == 1).all()
    assert (result[:, :, 9:] == 2).all()


def test_assembly_needs_the_voxel_size_to_fill(tmp_path):
    config, output = finished_run(tmp_path, None)
    with pytest.raises(ConfigError, match=r"fill_nm is in nanometres.*data\.voxel_size"):
        assemble(config)
    assert not output.exists()
