"""Zarr: OME-NGFF metadata, axes of length one, and stores that are no volume."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from ffn.errors import VolumeError
from ffn.volumes import open_volume

VALUES = np.arange(4 * 6 * 8, dtype=np.uint16).reshape(4, 6, 8)


def axes(unit: str | None, names: str = "tczyx") -> list[dict[str, str]]:
    return [{"name": name, "type": "space"} | ({"unit": unit} if unit and name in "zyx" else {}) for name in names]


def ngff(path: Path, unit: str | None, names: str = "tczyx", version: str = "0.4", **extra: Any) -> Path:
    """Two levels, the coarser one listed last; voxels 4 x 2 x 2 units, then 4 x 4 x 4."""
    group = zarr.open_group(path, mode="w", zarr_format=2 if version == "0.4" else 3)
    lead = (None,) * (len(names) - 3)
    levels = []
    for name, values, scale in (("s0", VALUES, [4.0, 2.0, 2.0]), ("s1", VALUES[:, ::2, ::2], [4.0, 4.0, 4.0])):
        group.create_array(name, data=values[(*lead, ...)])
        transform = {"type": "scale", "scale": [1.0] * len(lead) + scale}
        levels.append({"path": name, "coordinateTransformations": [transform]})
    image = {"version": version, "axes": axes(unit, names), "datasets": levels, **extra}
    group.attrs.update({"multiscales": [image]} if version == "0.4" else {"ome": {"multiscales": [image]}})
    return path


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize(
    ("unit", "factor"), [("nanometer", 1.0), ("micrometer", 1000.0), ("angstrom", 0.1), (None, 1.0)]
)
def test_ngff_voxel_size_is_in_nanometres(tmp_path: Path, version: str, unit: str | None, factor: float) -> None:
    path = ngff(tmp_path / "a.zarr", unit, version=version)
    finest = open_volume(str(path))
    assert finest.voxel_size == pytest.approx((4 * factor, 2 * factor, 2 * factor))
    np.testing.assert_array_equal(finest[...], VALUES)
    coarse = open_volume(f"{path}/s1")
    assert coarse.voxel_size == pytest.approx((4 * factor, 4 * factor, 4 * factor))
    np.testing.assert_array_equal(coarse[1:3, 2], VALUES[1:3, ::2, ::2][:, 2])


def test_a_scale_of_the_whole_image_counts_too(tmp_path: Path) -> None:
    shared = [{"type": "scale", "scale": [1.0, 1.0, 10.0, 10.0, 10.0]}]
    path = ngff(tmp_path / "a.zarr", "nanometer", coordinateTransformations=shared)
    assert open_volume(str(path)).voxel_size == (40.0, 20.0, 20.0)


def test_an_unknown_unit_leaves_the_voxel_size_open(tmp_path: Path) -> None:
    assert open_volume(str(ngff(tmp_path / "a.zarr", "parsec"))).voxel_size is None


def test_axes_in_another_order_are_refused(tmp_path: Path) -> None:
    with pytest.raises(VolumeError, match="has the axes x,y,z; expected z,y,x"):
        open_volume(str(ngff(tmp_path / "a.zarr", "nanometer", names="xyz")))


@pytest.mark.parametrize("version", [2, 3])
def test_plain_arrays_with_attributes(tmp_path: Path, version: int) -> None:
    group = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=version)
    array = group.create_array("deep/raw", data=VALUES, chunks=(2, 3, 4))
    array.attrs["resolution"] = [40, 4, 4]
    volume = open_volume(f"{tmp_path}/a.zarr/deep/raw")
    assert volume.voxel_size == (40.0, 4.0, 4.0)
    assert volume.chunk == (2, 3, 4)
    assert volume.dtype == np.uint16


def test_stores_are_known_by_their_contents_too(tmp_path: Path) -> None:
    zarr.create_array(tmp_path / "store", data=VALUES)
    np.testing.assert_array_equal(open_volume(str(tmp_path / "store"))[...], VALUES)


def test_groups_and_wrong_paths_list_what_is_there(tmp_path: Path) -> None:
    group = zarr.open_group(tmp_path / "a.zarr", mode="w")
    group.create_array("volumes/raw", data=VALUES)
    with pytest.raises(VolumeError, match=r"is a zarr group: name one of its arrays, volumes.*volumes/raw"):
        open_volume(f"{tmp_path}/a.zarr")
    with pytest.raises(VolumeError, match=r"no 'labels' in .*a\.zarr/volumes; it holds raw"):
        open_volume(f"{tmp_path}/a.zarr/volumes/labels")
    with pytest.raises(VolumeError, match=r"There is no zarr store .*b\.zarr"):
        open_volume(f"{tmp_path}/b.zarr/raw")


def test_broken_stores(tmp_path: Path) -> None:
    (tmp_path / "a.zarr").mkdir()
    (tmp_path / "a.zarr/zarr.json").write_text("{broken")
    with pytest.raises(VolumeError, match="not a readable zarr"):
        open_volume(f"{tmp_path}/a.zarr")


def test_channels_are_refused(tmp_path: Path) -> None:
    zarr.create_array(tmp_path / "a.zarr", data=np.zeros((2, 4, 6, 8), np.uint8))
    with pytest.raises(VolumeError, match="all axes before z,y,x must have length 1"):
        open_volume(f"{tmp_path}/a.zarr")


def test_damaged_chunks_are_told(tmp_path: Path) -> None:
    zarr.create_array(tmp_path / "a.zarr", data=VALUES, chunks=(2, 6, 8), zarr_format=2)
    (tmp_path / "a.zarr/1.0.0").write_bytes(b"broken")
    volume = open_volume(f"{tmp_path}/a.zarr")
    np.testing.assert_array_equal(volume[:2], VALUES[:2])
    with pytest.raises(VolumeError, match="damaged inside"):
        volume[2]
