"""A run's segmentation as one HDF5 file: the same voxels, written once, in bounded memory."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from exported import BOX, make_run

from ffn.cli import main
from ffn.config import Config
from ffn.errors import StageError
from ffn.export import export_hdf5, export_run, hdf5
from ffn.files import write_json
from ffn.geometry import Box
from ffn.locks import lock
from ffn.runs import SEGMENTATION_STORE, RunPaths
from ffn.volumes import create_hdf5, open_volume
from ffn.volumes.zarr import ZarrVolume


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return make_run(tmp_path)


def config_file(config: Config) -> str:
    path = Path(config.results).parent / "config.json"
    path.write_text(json.dumps(config.model_dump(mode="json")))
    return str(path)


def test_voxels_voxel_size_and_place_are_those_of_the_store(config: Config) -> None:
    path, written = export_hdf5(config)
    assert written
    assert path == RunPaths.of(config).export / "segmentation.h5"
    assert [entry.name for entry in path.parent.iterdir()] == ["segmentation.h5"]
    with open_volume(f"{path}:labels") as copy, open_volume(RunPaths.of(config).segmentation) as store:
        assert copy.dtype == np.uint64
        assert copy.voxel_size == store.voxel_size == (12.0, 10.0, 8.0)
        assert copy.offset == store.offset == BOX.start
        np.testing.assert_array_equal(copy[...], store[...])
    with h5py.File(path) as file:
        assert dict(file["labels"].attrs).keys() == {"voxel_size_nm", "offset_zyx", "made_from"}
        assert file["labels"].attrs["voxel_size_nm"].tolist() == [12, 10, 8]
        assert file["labels"].attrs["offset_zyx"].tolist() == list(BOX.start)
        assert (file["labels"].chunks, file["labels"].compression) == ((40, 64, 64), "gzip")


def test_volume_is_read_in_blocks(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hdf5, "BLOCK", (64, 64, 64))
    boxes, read = [], ZarrVolume.read
    monkeypatch.setattr(ZarrVolume, "read", lambda self, box: boxes.append(box) or read(self, box))
    path, _ = export_hdf5(config)
    assert [box.shape for box in boxes] == [(40, 64, 64), (40, 64, 6)]
    monkeypatch.undo()
    np.testing.assert_array_equal(
        open_volume(f"{path}:labels")[...], open_volume(RunPaths.of(config).segmentation)[...]
    )


def test_same_again_does_nothing(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["export", "--config", config_file(config), "--format", "h5"]
    path = RunPaths.of(config).export / "segmentation.h5"
    assert main(command) == 0
    told = capsys.readouterr()
    assert told.out == f"Labels are in {path}:labels.\n"
    assert "export: 179200/179200 voxels" in told.err
    before = path.stat()
    assert main(command) == 0
    assert capsys.readouterr().out == f"{path} is already complete.\n"
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_copy_of_another_segmentation_is_kept(config: Config) -> None:
    path, _ = export_hdf5(config)
    before = path.read_bytes()
    write_json(RunPaths.of(config).assemble / "done.json", {"facts": {"another": "segmentation"}})
    with pytest.raises(StageError, match=r"is a copy of another segmentation \(assemble .*now.*Delete it, or choose"):
        export_hdf5(config)
    assert path.read_bytes() == before
    other, written = export_hdf5(config, path.with_name("other.h5"))
    assert written
    assert other.exists()


@pytest.mark.parametrize("kind", ["another dataset", "labels", "text", "folder"])
def test_what_it_did_not_make_is_kept(config: Config, tmp_path: Path, kind: str) -> None:
    output = tmp_path / "mine.h5"
    if kind == "folder":
        output.mkdir()
    elif kind == "text":
        output.write_text("mine")
    else:
        with create_hdf5(output, kind, (2, 2, 2), np.uint64, None) as volume:
            volume.write(Box.of_shape((2, 2, 2)), np.ones((2, 2, 2), np.uint64))
    with pytest.raises(StageError, match=r"mine.h5 exists and was not made by this command"):
        export_hdf5(config, output)
    assert list(tmp_path.glob("mine.h5.*")) == []


def test_layers_and_file_do_not_disturb_each_other(config: Config) -> None:
    path, _ = export_hdf5(config)
    before = path.read_bytes()
    export_run(config)
    assert path.read_bytes() == before
    assert export_hdf5(config) == (path, False)
    path.unlink()
    assert export_hdf5(config) == (path, True)
    export_run(config)


def test_narrower_labels_become_uint64(config: Config) -> None:
    """Results of versions before there were stores are read too."""
    folder = RunPaths.of(config).assemble
    values = np.arange(8, dtype=np.uint32).reshape(2, 2, 2)
    with create_hdf5(folder / "segmentation.h5", "labels", (2, 2, 2), np.uint32, (9, 9, 9), offset=(1, 2, 3)) as old:
        old.write(Box.of_shape((2, 2, 2)), values)
    path, _ = export_hdf5(config)
    with open_volume(f"{path}:labels") as copy:
        assert (copy.dtype, copy.offset, copy.voxel_size) == (np.uint64, (1, 2, 3), (9, 9, 9))
        np.testing.assert_array_equal(copy[...], values)


def test_only_one_process_writes(config: Config) -> None:
    path = RunPaths.of(config).export / "segmentation.h5"
    script = "import sys; from ffn.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", script, "export", "--config", config_file(config), "--format", "h5"]
    with lock(path.with_name("segmentation.h5.lock")):
        second = subprocess.run(command, capture_output=True, text=True, check=False)
    assert second.returncode == 2
    assert "Another process works in" in second.stderr
    assert not path.exists()


_KILLED = """
import os, signal, sys
from pathlib import Path
from ffn.config import load_config
from ffn.export import export_hdf5, hdf5
from ffn.volumes import WritableVolume

written, write = [], WritableVolume.write
def dying(volume, box, values):
    write(volume, box, values)
    written.append(box)
    if len(written) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
WritableVolume.write, hdf5.BLOCK = dying, (64, 64, 64)
export_hdf5(load_config(Path(sys.argv[1])))
"""


def test_killed_export_begins_anew_and_leaves_nothing(config: Config) -> None:
    file, folder = config_file(config), RunPaths.of(config).export
    ended = subprocess.run([sys.executable, "-c", _KILLED, file], capture_output=True, text=True, check=False)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert any(path.name.endswith(".partial") for path in folder.iterdir())
    assert not (folder / "segmentation.h5").exists()
    path, written = export_hdf5(config)
    assert written
    assert [entry.name for entry in folder.iterdir()] == ["segmentation.h5"]
    np.testing.assert_array_equal(
        open_volume(f"{path}:labels")[...], open_volume(RunPaths.of(config).segmentation)[...]
    )


def test_full_disk_is_told_and_nothing_is_left(config: Config, tmp_path: Path) -> None:
    """A limit on the file's size, reported as a full disk, stands for it."""
    script = (
        "import errno, resource, signal, sys\n"
        "from ffn import cli\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))\n"
        "cli._DISK_ERRORS[errno.EFBIG] = cli._DISK_ERRORS[errno.ENOSPC]\n"
        "sys.exit(cli.main(sys.argv[1:]))\n"
    )
    command = ["export", "--config", config_file(config), "--format", "h5", "--output", str(tmp_path / "out/full.h5")]
    ended = subprocess.run([sys.executable, "-c", script, *command], capture_output=True, text=True, check=False)
    assert ended.returncode == 2, ended.stderr
    assert "ffn: error: the disk is full" in ended.stderr
    assert "full.h5" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not (tmp_path / "out").exists()


def test_run_that_is_not_complete(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    (RunPaths.of(config).assemble / "done.json").unlink()
    assert main(["export", "--config", config_file(config), "--format", "h5"]) == 2
    assert "assemble is not complete (no done.json in it); run `ffn assemble` first." in capsys.readouterr().err
    assert not RunPaths.of(config).export.exists()


def test_lost_store_is_named(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    store = RunPaths.of(config).assemble / SEGMENTATION_STORE
    store.rename(store.with_name("elsewhere"))
    assert main(["export", "--config", config_file(config), "--format", "h5"]) == 2
    assert f"There is no zarr store {store}/0" in capsys.readouterr().err
    assert not RunPaths.of(config).export.exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--format", "tiff"], "invalid choice: 'tiff' (choose from"),
        (["--format", "h5", "--step", "mips"], "--step goes with --format precomputed"),
        (["--format", "h5", "--ranks", "2"], "--ranks goes with --format precomputed"),
        (["--output", "a.h5"], "--output goes with --format h5"),
    ],
)
def test_options_that_do_not_go_together(
    config: Config, capsys: pytest.CaptureFixture[str], arguments: list[str], told: str
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["export", "--config", config_file(config), *arguments])
    assert told in capsys.readouterr().err


def test_name_without_a_known_ending(config: Config, tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"labels.zarr must end in .h5, .hdf5 or .hdf"):
        export_hdf5(config, tmp_path / "labels.zarr")
