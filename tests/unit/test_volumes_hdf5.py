"""HDF5: names, voxel sizes, gzipped files, superpixels and bodies, and every way a file can be wrong."""

import gzip
import os
import threading
from pathlib import Path

import h5py
import numpy as np
import pytest

from ffn.errors import VolumeError
from ffn.geometry import Box
from ffn.volumes import cache, open_volume
from ffn.volumes.hdf5 import BodyVolume


@pytest.fixture(autouse=True)
def user_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/ffn-workflow/volumes"


def write(path: Path, **datasets: object) -> Path:
    with h5py.File(path, "w") as file:
        for name, values in datasets.items():
            file[name] = values
    return path


CUBE = np.arange(60, dtype=np.int32).reshape(3, 4, 5)


@pytest.mark.parametrize(
    ("where", "name", "value", "expected"),
    [
        ("raw", "voxel_size_nm", [30, 18, 18], (30.0, 18.0, 18.0)),
        ("raw", "resolution", np.array([40.0, 4.0, 4.0]), (40.0, 4.0, 4.0)),
        ("raw", "voxel_size", 10, (10.0, 10.0, 10.0)),
        ("raw", "element_size_um", [0.04, 0.01, 0.01], (40.0, 10.0, 10.0)),
        ("/", "voxel_size_nm_zyx", [8, 8, 8], (8.0, 8.0, 8.0)),
        ("raw", "resolution", "high", None),
        ("raw", "resolution", [4, 4], None),
        ("raw", "resolution", [0, 4, 4], None),
        ("raw", "other", [4, 4, 4], None),
    ],
)
def test_voxel_size_from_attributes(tmp_path: Path, where: str, name: str, value: object, expected: object) -> None:
    path = write(tmp_path / "a.h5", raw=CUBE)
    with h5py.File(path, "a") as file:
        file[where].attrs[name] = value
    assert open_volume(f"{path}:raw").voxel_size == expected
    assert open_volume(f"{path}:raw", voxel_size=(3.0, 2.0, 1.0)).voxel_size == (3.0, 2.0, 1.0)


def test_the_datasets_own_voxel_size_goes_first(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5", raw=CUBE)
    with h5py.File(path, "a") as file:
        file.attrs["resolution"] = [1, 1, 1]
        file["raw"].attrs["resolution"] = [2, 2, 2]
    assert open_volume(f"{path}:/raw").voxel_size == (2.0, 2.0, 2.0)


def test_a_wrong_dataset_lists_what_is_there(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5", raw=CUBE, **{"labels/bodies": CUBE})
    with pytest.raises(VolumeError, match=r"no dataset 'nope'.*labels/bodies \(3, 4, 5\), raw \(3, 4, 5\)"):
        open_volume(f"{path}:nope")
    with pytest.raises(VolumeError, match="no dataset 'labels'"):
        open_volume(f"{path}:labels")
    with pytest.raises(VolumeError, match=r"names no dataset.*labels/bodies"):
        open_volume(str(path))
    with pytest.raises(VolumeError, match="has 2 dimensions"):
        open_volume(f"{write(tmp_path / 'flat.h5', raw=CUBE[0])}:raw")
    with pytest.raises(VolumeError, match="it holds no datasets"):
        open_volume(f"{write(tmp_path / 'empty.h5')}:raw")


def test_missing_and_broken_files(tmp_path: Path) -> None:
    with pytest.raises(VolumeError, match=r"There is no file .*none\.h5"):
        open_volume(f"{tmp_path}/none.h5:raw")
    with pytest.raises(VolumeError, match=r"There is no file .*none\.h5\.gz"):
        open_volume(f"{tmp_path}/none.h5.gz:raw")
    (tmp_path / "text.h5").write_text("this is not HDF5")
    with pytest.raises(VolumeError, match=r"damaged or not HDF5 \(file signature not found\)"):
        open_volume(f"{tmp_path}/text.h5:raw")
    whole = write(tmp_path / "whole.h5", raw=np.arange(100_000).reshape(10, 100, 100)).read_bytes()
    (tmp_path / "half.h5").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(VolumeError, match=r"damaged or not HDF5 \(truncated file"):
        open_volume(f"{tmp_path}/half.h5:raw")


def test_damage_inside_a_dataset_is_told_when_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        data = file.create_dataset("raw", data=CUBE, chunks=(1, 4, 5), compression="gzip")
        chunk = data.id.get_chunk_info(2)
    with path.open("r+b") as raw:
        raw.seek(chunk.byte_offset)
        raw.write(b"\xff" * chunk.size)
    volume = open_volume(f"{path}:raw")
    np.testing.assert_array_equal(volume[:2], CUBE[:2])
    with pytest.raises(VolumeError, match=r"a\.h5:raw is damaged inside"):
        volume[2]


def gzipped(path: Path) -> Path:
    packed = path.with_name(f"{path.name}.gz")
    packed.write_bytes(gzip.compress(path.read_bytes()))
    return packed


def test_gzipped_files_are_decompressed_once(tmp_path: Path, user_cache: Path) -> None:
    packed = gzipped(write(tmp_path / "a.h5", raw=CUBE))
    np.testing.assert_array_equal(open_volume(f"{packed}:raw")[...], CUBE)
    (copy,) = user_cache.glob("*.h5")
    before = copy.stat()
    np.testing.assert_array_equal(open_volume(f"{packed}:raw")[...], CUBE)
    assert copy.stat() == before

    packed.write_bytes(gzip.compress(write(tmp_path / "b.h5", raw=CUBE + 1).read_bytes()))
    os.utime(packed, ns=(1, 1))
    np.testing.assert_array_equal(open_volume(f"{packed}:raw")[...], CUBE + 1)


def test_a_truncated_gzip_leaves_nothing_in_the_cache(tmp_path: Path, user_cache: Path) -> None:
    packed = gzipped(write(tmp_path / "a.h5", raw=np.random.default_rng(0).random((10, 20, 30))))
    packed.write_bytes(packed.read_bytes()[:-2000])
    with pytest.raises(VolumeError, match="damaged or not gzip"):
        open_volume(f"{packed}:raw")
    packed.write_text("no gzip at all")
    with pytest.raises(VolumeError, match="damaged or not gzip"):
        open_volume(f"{packed}:raw")
    assert not list(user_cache.glob("*"))


def test_many_readers_at_once_get_one_whole_copy(tmp_path: Path, user_cache: Path) -> None:
    packed = gzipped(write(tmp_path / "a.h5", raw=np.random.default_rng(0).random((20, 100, 100))))
    start = threading.Barrier(4)
    copies = []

    def ask() -> None:
        start.wait()
        copies.append(cache.gunzipped(packed).read_bytes())

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert copies == [(tmp_path / "a.h5").read_bytes()] * 4
    assert len(list(user_cache.glob("*.h5"))) == 1


STACK = np.array([[[0, 3, 7], [7, 9, 3]]], np.int32)


def test_superpixels_without_gaps_read_as_bodies(tmp_path: Path) -> None:
    stack = np.array([[[0, 1, 2], [3, 2, 4]]], np.int32)
    table = np.array([[0, 0], [1, 115], [2, 7], [3, 115]], np.int64)
    volume = open_volume(str(write(tmp_path / "truth.h5", stack=stack, transforms=table)))
    np.testing.assert_array_equal(volume[:, 0], [[0, 115, 7]])
    np.testing.assert_array_equal(volume[...], [[[0, 115, 7], [115, 7, 0]]])


@pytest.mark.parametrize("far", [0, 1 << 40], ids=["small ids", "large ids"])
def test_superpixels_read_as_bodies(tmp_path: Path, far: int) -> None:
    wide = STACK.astype(np.int64)
    stack = np.where(wide == 9, 9 + far, wide)
    table = [[9 + far, 2**40 + 1], [0, 0], [7, 11], [3, 11]]
    path = write(tmp_path / "truth.h5", stack=stack, transforms=np.array(table, np.int64))
    volume = open_volume(str(path))
    assert isinstance(volume, BodyVolume)
    assert volume.dtype == np.uint64
    np.testing.assert_array_equal(volume[...], [[[0, 11, 11], [11, 2**40 + 1, 11]]])
    np.testing.assert_array_equal(volume.read(Box((0, 1, 1), (1, 2, 2))), [[[2**40 + 1]]])
    np.testing.assert_array_equal(open_volume(f"{path}:stack")[...], stack)


@pytest.mark.parametrize("far", [0, 1 << 40], ids=["small ids", "large ids"])
def test_superpixels_without_a_body_are_unknown_and_told_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], far: int
) -> None:
    table = np.array([[3, 5], [8 + far, 6]], np.int64)
    volume = open_volume(str(write(tmp_path / "truth.h5", stack=STACK, transforms=table)))
    np.testing.assert_array_equal(volume[...], [[[0, 5, 0], [0, 0, 5]]])
    volume[...]
    told = capsys.readouterr().err
    assert told.count("have no body") == 1
    assert "superpixel 7 and 1 more" in told


@pytest.mark.parametrize("table", [np.zeros((0, 2), int), np.zeros((3, 3), int), np.zeros(4, int), np.zeros((2, 2))])
def test_transforms_that_are_no_table_are_refused(tmp_path: Path, table: np.ndarray) -> None:
    path = write(tmp_path / "truth.h5", stack=STACK, transforms=table)
    with pytest.raises(VolumeError, match="expected rows of two whole numbers"):
        open_volume(str(path))
