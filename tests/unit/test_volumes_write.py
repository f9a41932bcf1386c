"""Writing HDF5: complete or not there, whatever happens while writing."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from ffn.errors import GeometryError, VolumeError
from ffn.geometry import Box, blocks
from ffn.volumes import create_hdf5, create_hdf5_file, open_volume, parse_output

SHAPE = (70, 40, 90)
LABELS = np.random.default_rng(1).integers(0, 2**63, SHAPE, dtype=np.uint64)


def test_blocks_written_are_blocks_read(tmp_path: Path) -> None:
    path = tmp_path / "deep/er/a.h5"
    with create_hdf5(path, "labels", SHAPE, np.uint64, (30.0, 18.0, 18.0), offset=(5, 6, 7)) as volume:
        assert volume.chunk == (64, 40, 64)
        for block in blocks(Box.of_shape(SHAPE), volume.chunk):
            volume.write(block, LABELS[block.slices])
        assert not path.exists()
    with open_volume(f"{path}:labels") as read:
        assert read.dtype == np.uint64
        assert read.voxel_size == (30.0, 18.0, 18.0)
        np.testing.assert_array_equal(read[...], LABELS)
    with h5py.File(path) as file:
        assert file["labels"].attrs["offset_zyx"].tolist() == [5, 6, 7]
    assert [p.name for p in path.parent.iterdir()] == ["a.h5"]


def test_several_datasets_and_fill_values(tmp_path: Path) -> None:
    with create_hdf5_file(tmp_path / "a.h5") as file:
        image = file.add("image", (4, 5, 6), np.uint8, None, fill=7)
        image.annotate(seed=3)
        file.add("deep/labels", (4, 5, 6), np.uint64, (1, 2, 3))
        image.write(Box((1, 1, 1), (2, 2, 2)), np.array([[[9]]], np.uint8))
    with h5py.File(tmp_path / "a.h5") as plain:
        assert plain["image"].attrs["seed"] == 3
    volume = open_volume(f"{tmp_path}/a.h5:image")
    assert volume.voxel_size is None
    assert volume[0, 0, 0] == 7
    assert volume[1, 1, 1] == 9
    assert open_volume(f"{tmp_path}/a.h5:deep/labels").voxel_size == (1.0, 2.0, 3.0)


def test_narrow_values_fit_into_wide_volumes_only(tmp_path: Path) -> None:
    box = Box((0, 0, 0), (1, 1, 2))
    with create_hdf5(tmp_path / "a.h5", "labels", (2, 2, 2), np.uint64, None) as volume:
        volume.write(box, np.array([[[1, 2]]], np.uint32))
        with pytest.raises(TypeError, match="int64 does not fit"):
            volume.write(box, np.array([[[1, 2]]]))
        with pytest.raises(GeometryError, match="outside the volume being written"):
            volume.write(box.shifted((0, 0, 1)), np.zeros((1, 1, 2), np.uint64))
        with pytest.raises(GeometryError, match=r"has shape \(1, 1, 2\), the values to write"):
            volume.write(box, np.zeros((1, 1, 1), np.uint64))


def test_a_failure_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"

    def write(value: int, fail: bool) -> None:
        with create_hdf5(path, "raw", (2, 2, 2), np.uint8, None) as volume:
            volume.write(Box.of_shape((2, 2, 2)), np.full((2, 2, 2), value, np.uint8))
            if fail:
                raise KeyboardInterrupt

    write(1, fail=False)
    with pytest.raises(KeyboardInterrupt):
        write(2, fail=True)
    assert open_volume(f"{path}:raw")[0, 0, 0] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["a.h5"]


_PROGRAM = """
import os, resource, signal, sys
from pathlib import Path
import numpy as np
from ffn.geometry import Box
from ffn.volumes import create_hdf5

path, mode = Path(sys.argv[1]), sys.argv[2]
box = Box.of_shape((64, 64, 64))
if mode == "full":
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    room = int(sys.argv[3])
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))
try:
    with create_hdf5(path, "raw", (256, 64, 64), np.uint8, None) as volume:
        for z in range(0, 256, 64):
            volume.write(box.shifted((z, 0, 0)), np.ones(box.shape, np.uint8))
            if mode == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
except OSError as error:
    print(error.errno, error.filename)
    sys.exit(3)
"""


def run(path: Path, mode: str, room: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", _PROGRAM, str(path), mode, str(room)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_killed_writer_leaves_no_file_and_can_run_again(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    assert run(path, "kill").returncode == -signal.SIGKILL
    assert not path.exists()
    assert run(path, "whole").returncode == 0
    assert open_volume(f"{path}:raw")[...].all()
    assert os.listdir(tmp_path) == ["a.h5"]  # noqa: PTH208


@pytest.mark.parametrize("room", [100, 300_000, 4 * 64**3], ids=["at once", "on the way", "when closing"])
def test_a_disk_without_room_is_told_with_its_error_number(tmp_path: Path, room: int) -> None:
    """A limit on the file's size stands for the full disk: the same system call fails."""
    ended = run(tmp_path / "a.h5", "full", room)
    assert ended.returncode == 3, ended.stderr
    assert ended.stdout == f"{errno.EFBIG} {tmp_path / 'a.h5'}\n"
    assert list(tmp_path.iterdir()) == []


def test_output_uris() -> None:
    assert parse_output("a/b.h5:x/y", "labels") == (Path("a/b.h5"), "x/y")
    assert parse_output("b.hdf5", "labels") == (Path("b.hdf5"), "labels")
    for uri in ("b.h5.gz:x", "folder", "b.h5:", "b.zarr/x"):
        with pytest.raises(VolumeError, match=r"expected the form file\.h5:dataset"):
            parse_output(uri, "labels")
