"""Archives of the files of many units."""

import errno
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest

from ffn import bundles
from ffn.bundles import Bundle, inside, is_whole, open_file, take_out
from ffn.errors import VolumeError
from ffn.geometry import Box
from ffn.volumes import create_hdf5, open_volume


def made(folder: Path, content: bytes) -> list[Path]:
    folder.mkdir(parents=True)
    (folder / "origins.json").write_bytes(content)
    (folder / "empty").touch()
    return sorted(folder.iterdir())


def filled(tmp_path: Path, count: int) -> tuple[Path, list[dict[str, object]]]:
    with Bundle(tmp_path / "archives") as bundle:
        facts = [bundle.add(made(tmp_path / f"{n}", b"%d" % n * 700), f"tile-{n}") for n in range(count)]
    return tmp_path / "archives", facts


def read(path: Path) -> bytes:
    with open_file(path) as file:
        return file.read()


def test_files_are_read_as_if_the_archive_were_a_folder(tmp_path):
    archives, facts = filled(tmp_path, 3)
    (archive,) = archives.iterdir()
    for number, fact in enumerate(facts):
        assert fact["archive"] == archive.name
        assert read(archive / f"tile-{number}" / "origins.json") == b"%d" % number * 700
        assert read(archive / f"tile-{number}" / "empty") == b""
    assert inside(archive / "tile-1" / "empty") == (archive, "tile-1/empty")
    assert inside(tmp_path / "0" / "empty") is None
    assert read(tmp_path / "0" / "empty") == b""
    with pytest.raises(FileNotFoundError, match=r"no tile-3/origins\.json in"):
        open_file(archive / "tile-3" / "origins.json")


def test_a_file_of_an_archive_can_be_read_from_any_place(tmp_path):
    archives, _ = filled(tmp_path, 2)
    (archive,) = archives.iterdir()
    with open_file(archive / "tile-1" / "origins.json") as file:
        assert file.seek(-5, os.SEEK_END) == 695
        assert (file.read(), file.read()) == (b"11111", b"")
        file.seek(3)
        file.seek(2, os.SEEK_CUR)
        assert (file.tell(), file.read(4)) == (5, b"1111")


def test_any_tar_program_opens_it(tmp_path):
    archives, _ = filled(tmp_path, 2)
    (path,) = archives.iterdir()
    with tarfile.open(path) as archive:
        assert archive.getnames() == [f"tile-{n}/{name}" for n in range(2) for name in ("empty", "origins.json")]
        assert {(member.uid, member.uname) for member in archive} == {(0, "")}


def test_what_was_written_before_a_kill_is_there(tmp_path):
    """At every length: of the units that were added, those that fit are whole, and are read."""
    archives, facts = filled(tmp_path, 3)
    (archive,) = archives.iterdir()
    content = archive.read_bytes()
    for length in range(0, len(content) + 1, 128):
        archive.write_bytes(content[:length])
        for number, fact in enumerate(facts):
            assert is_whole(archives, fact) == (fact["end"] <= length)
            if is_whole(archives, fact):
                assert read(archive / f"tile-{number}" / "origins.json") == b"%d" % number * 700
    archive.unlink()
    assert not is_whole(archives, facts[0])
    assert not is_whole(archives, {})


def test_archives_stay_small(tmp_path, monkeypatch):
    monkeypatch.setattr(bundles, "UNITS", 2)
    archives, facts = filled(tmp_path, 5)
    assert len(list(archives.iterdir())) == 3
    for number, fact in enumerate(facts):
        assert read(archives / fact["archive"] / f"tile-{number}" / "origins.json") == b"%d" % number * 700


def no_space(_: int) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_after_a_full_disk_comes_another_archive(tmp_path, monkeypatch):
    with Bundle(tmp_path / "archives") as bundle:
        first = bundle.add(made(tmp_path / "0", b"a"), "tile-0")
        files = made(tmp_path / "1", b"b")
        with monkeypatch.context() as full:
            full.setattr(os, "fsync", no_space)
            with pytest.raises(OSError, match="No space"):
                bundle.add(files, "tile-1")
        again = bundle.add(made(tmp_path / "2", b"c"), "tile-1")
    assert first["archive"] != again["archive"]
    assert read(tmp_path / "archives" / again["archive"] / "tile-1" / "origins.json") == b"c"


def test_the_files_of_a_unit_are_taken_out(tmp_path):
    archives, facts = filled(tmp_path, 2)
    take_out(archives / facts[1]["archive"], "tile-1", tmp_path / "out")
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == {
        "origins.json": b"1" * 700,
        "empty": b"",
    }
    with pytest.raises(FileNotFoundError, match="nothing under tile-2"):
        take_out(archives / facts[1]["archive"], "tile-2", tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_a_volume_in_an_archive(tmp_path):
    values = np.arange(5 * 6 * 7, dtype=np.uint64).reshape(5, 6, 7)
    folder = tmp_path / "unit"
    with create_hdf5(folder / "segmentation.h5", "labels", values.shape, np.uint64, (30.0, 8.0, 8.0)) as volume:
        volume.write(Box.of_shape(values.shape), values)
    with Bundle(tmp_path / "archives") as bundle:
        fact = bundle.add([folder / "segmentation.h5"], "tile-0")
    place = tmp_path / "archives" / str(fact["archive"]) / "tile-0"
    with open_volume(f"{place}/segmentation.h5:labels") as volume:
        assert (volume.dtype, volume.voxel_size) == (np.uint64, (30.0, 8.0, 8.0))
        np.testing.assert_array_equal(volume.read(Box((1, 2, 3), (4, 5, 6))), values[1:4, 2:5, 3:6])
    with pytest.raises(VolumeError, match=r"There is no file .*tile-0/probability\.h5"):
        open_volume(f"{place}/probability.h5:qprob")
