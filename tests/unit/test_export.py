"""Layers opened by cloud-volume equal the arrays; the state; resuming and refusing."""

import glob
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import forks
import neuroglancer
import numpy as np
import pytest
from cloudvolume import CloudVolume
from exported import BOX, make_run
from killed_export import DyingTask

from ffn.blockwise import JobPart, Share
from ffn.blockwise.ledger import Entry, LedgerWriter
from ffn.cli import main
from ffn.config import Config, parse_config
from ffn.errors import StageError, VolumeError, WorkerError
from ffn.export import export_run, shards, with_server
from ffn.export.state import contrast_of
from ffn.files import write_json
from ffn.runs import RunPaths
from ffn.volumes import create_hdf5, open_volume

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    config = make_run(tmp_path_factory.mktemp("a run"))
    export_run(config)
    return config


def cloud(config: Config, name: str, mip: int = 0) -> CloudVolume:
    return CloudVolume(f"precomputed://file://{RunPaths.of(config).export / name}", mip=mip, progress=False)


def arrays(config: Config) -> dict[str, np.ndarray]:
    test = config.data.test
    return {
        "image": open_volume(test.image, box=BOX)[...],
        "truth": open_volume(str(test.labels), box=BOX)[...],
        "segmentation": open_volume(RunPaths.of(config).segmentation)[...],
    }


@pytest.mark.parametrize("name", ["image", "truth", "segmentation"])
def test_layer_equals_array_where_it_lies_in_the_source(config: Config, name: str) -> None:
    layer = cloud(config, name)
    expected = arrays(config)[name]
    assert layer.resolution.tolist() == [8, 10, 12]
    assert layer.voxel_offset.tolist() == [7, 6, 5]
    assert layer.chunk_size.tolist() == [32, 32, 16]
    assert layer.dtype == expected.dtype.name
    np.testing.assert_array_equal(np.asarray(layer[:])[..., 0].T, expected)
    middle = np.asarray(layer[30:40, 20:33, 10:12])[..., 0].T
    np.testing.assert_array_equal(middle, expected[5:7, 14:27, 23:33])


@pytest.mark.parametrize("name", ["image", "truth", "segmentation"])
def test_lower_resolutions_exist_and_lie_in_the_same_place(config: Config, name: str) -> None:
    full = arrays(config)[name]
    layer = cloud(config, name, 1)
    assert len(cloud(config, name).available_mips) == 3
    assert layer.resolution.tolist() == [16, 20, 24]
    assert layer.voxel_offset.tolist() == [3, 3, 2]
    assert layer.shape[:3] == (36, 32, 21)
    values = np.asarray(layer[:])[..., 0].T
    # Box 5:45 starts at an odd z: its first pair is complete at 6. A voxel of mip 1 covers 2 x 2 x 2.
    z, y, x = 3, 4, 5
    pooled = full[2 * z - 5 : 2 * z - 3, 2 * y - 6 : 2 * y - 4, 2 * x - 7 : 2 * x - 5]
    found = values[z - 2, y - 3, x - 3]
    if name == "image":
        assert found == int(pooled.mean() + 0.5)
    else:
        ids, votes = np.unique(pooled, return_counts=True)
        assert found in ids[votes == votes.max()]
        assert set(np.unique(values)) <= set(np.unique(full))
    assert cloud(config, name, 2).shape[:3] == (19, 17, 11)


def test_labels_are_compressed_and_chunks_lie_in_shards(config: Config) -> None:
    info = json.loads((RunPaths.of(config).export / "segmentation/info").read_text())
    assert {scale["encoding"] for scale in info["scales"]} == {"compressed_segmentation"}
    assert {scale["sharding"]["data_encoding"] for scale in info["scales"]} == {"gzip"}
    assert info["data_type"] == "uint64"
    assert info["type"] == "segmentation"
    # All 3 x 2 x 3 chunks in one file.
    assert [path.name for path in (RunPaths.of(config).export / "segmentation/8_10_12").iterdir()] == ["0.shard"]


def test_state_is_one_that_neuroglancer_reads(config: Config) -> None:
    written = json.loads((RunPaths.of(config).export / "state.json").read_text())
    assert [layer["source"] for layer in written["layers"]] == [
        "precomputed://image", "precomputed://segmentation", "precomputed://truth"
    ]  # fmt: skip
    served = with_server(written, "http://127.0.0.1:9000")
    assert served["layers"][1]["source"] == "precomputed://http://127.0.0.1:9000/segmentation"
    state = neuroglancer.ViewerState(served)
    assert state.dimensions.names == ("x", "y", "z")
    assert state.dimensions.scales == pytest.approx((8e-9, 10e-9, 12e-9))
    assert list(state.position) == [42.5, 38.5, 25.5]
    assert [layer.layer.type for layer in state.layers] == ["image", "segmentation", "segmentation"]
    assert [layer.visible for layer in state.layers] == [True, True, False]
    assert state.layout.type == "4panel"


def test_contrast_leaves_out_extremes(config: Config) -> None:
    low, high = contrast_of(open_volume(config.data.test.image, box=BOX))
    assert 30 < low < 70
    assert 150 < high < 190


def test_finished_export_is_not_repeated_and_other_settings_are_refused(config: Config) -> None:
    (shard,) = (RunPaths.of(config).export / "image/8_10_12").iterdir()
    before = shard.stat().st_mtime_ns
    export_run(config)
    assert shard.stat().st_mtime_ns == before
    other = config.model_copy(update={"export": config.export.model_copy(update={"mips": 1})})
    with pytest.raises(StageError, match=r"export\.mips"):
        export_run(other)


def test_export_needs_an_assembled_segmentation(tmp_path: Path) -> None:
    config = make_run(tmp_path)
    (RunPaths.of(config).assemble / "done.json").unlink()
    with pytest.raises(StageError, match="ffn assemble"):
        export_run(config)


def test_without_ground_truth_there_is_no_truth_layer(tmp_path: Path) -> None:
    made = make_run(tmp_path, mips=0)
    values = made.model_dump(mode="json")
    del values["data"]["test"]["labels"]
    folder = export_run(parse_config(values))
    assert not (folder / "truth").exists()
    state = json.loads((folder / "state.json").read_text())
    assert [layer["name"] for layer in state["layers"]] == ["image", "segmentation"]


def test_voxel_size_must_be_known(tmp_path: Path) -> None:
    config = make_run(tmp_path)
    with create_hdf5(tmp_path / "bare.h5", "image", (60, 80, 90), np.uint8, None):
        pass
    values = config.model_dump(mode="json")
    values["data"]["test"]["image"] = f"{tmp_path}/bare.h5:image"
    with pytest.raises(VolumeError, match=r"data\.voxel_size"):
        export_run(parse_config(values))
    values["data"]["voxel_size"] = [7.5, 5, 5]
    folder = export_run(parse_config(values))
    layer = CloudVolume(f"precomputed://file://{folder}/image", mip=1, progress=False)
    assert layer.resolution.tolist() == [10, 10, 15]
    assert layer.scale["key"] == "10_10_15"
    assert json.loads((folder / "image/info").read_text())["scales"][0]["key"] == "5_5_7.5"


def test_segmentation_of_another_shape(tmp_path: Path) -> None:
    config = make_run(tmp_path)
    values = config.model_dump(mode="json")
    values["data"]["test"]["box"] = "0:40,0:40,0:40"
    with pytest.raises(VolumeError, match=r"segmentation.zarr.*\(40, 64, 70\).*\(40, 40, 40\)"):
        export_run(parse_config(values))


def test_folder_of_an_earlier_version_is_refused_with_what_to_do(tmp_path: Path) -> None:
    config = make_run(tmp_path, mips=0)
    folder = RunPaths.of(config).export
    settings = {"export": {"chunk": [16, 32, 32], "mips": 0}}
    write_json(folder / "done.json", {"hash": "of the earlier version", "settings": settings, "facts": {}})
    with pytest.raises(StageError, match=r"format: there None, now 'sharded precomputed'.*delete that folder"):
        export_run(config)


@pytest.fixture
def many_units(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of a small volume, and a process for each."""
    monkeypatch.setattr(shards, "_EDGES", ())
    monkeypatch.setattr(shards, "_LARGEST_EDGE", 32)
    monkeypatch.setattr("ffn.export.run._VOXELS_OF_A_WORKER", 1)


def layers_of(config: Config) -> dict[str, np.ndarray]:
    return {
        f"{name} {mip}": np.asarray(cloud(config, name, mip)[:])
        for name in ("image", "segmentation", "truth")
        for mip in range(3)
    }


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.shard")}


@pytest.mark.usefixtures("many_units")
def test_layers_are_the_same_whatever_the_number_of_units_and_workers(config: Config, tmp_path: Path) -> None:
    one, three = make_run(tmp_path / "one", workers=1), make_run(tmp_path / "three", workers=3)
    for made in (one, three):
        export_run(made)
    assert len(files(RunPaths.of(one).export)) > len(files(RunPaths.of(config).export)) + 20
    assert files(RunPaths.of(three).export) == files(RunPaths.of(one).export)
    expected = layers_of(config)
    for name, found in layers_of(one).items():
        np.testing.assert_array_equal(found, expected[name], err_msg=name)


@pytest.mark.usefixtures("many_units")
def test_steps_in_parts_make_the_same_layers(config: Config, tmp_path: Path) -> None:
    made = make_run(tmp_path, workers=1)
    for part in (2, 0, 1):
        export_run(made, Share("layer", JobPart(part, 3)))
        assert not (RunPaths.of(made).export / "done.json").exists()
    export_run(made, Share("mips"))
    assert json.loads((RunPaths.of(made).export / "done.json").read_text())["facts"]["layers"] == [
        "image", "segmentation", "truth"
    ]  # fmt: skip
    expected = layers_of(config)
    for name, found in layers_of(made).items():
        np.testing.assert_array_equal(found, expected[name], err_msg=name)


@pytest.mark.usefixtures("many_units")
def test_lower_levels_wait_for_all_units(tmp_path: Path) -> None:
    made = make_run(tmp_path, workers=1)
    export_run(made, Share("layer", JobPart(0, 2)))
    with pytest.raises(
        StageError, match=r"units of the step layer are not done. Run `ffn export --config FILE --step layer`"
    ):
        export_run(made, Share("mips"))


@pytest.mark.usefixtures("many_units")
def test_a_lost_shard_is_made_again(config: Config, tmp_path: Path) -> None:
    made = make_run(tmp_path, workers=1)
    export_run(made, Share("layer"))
    export = RunPaths.of(made).export
    before = files(export)
    lost, *_, cut = sorted(export.rglob("*.shard"))
    lost.unlink()
    cut.write_bytes(cut.read_bytes()[:-1])
    export_run(made)
    after = files(export)
    assert {name: after[name] for name in before} == before


def test_a_worker_that_is_killed_ends_in_one_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ffn.export.run._VOXELS_OF_A_WORKER", 1)
    monkeypatch.setattr("ffn.export.run.LayerTask", DyingTask)
    config = make_run(tmp_path, workers=2)
    with pytest.raises(WorkerError, match=r"2 worker processes was killed.*Use fewer export\.workers"):
        export_run(config)
    monkeypatch.undo()
    export_run(config)
    assert (RunPaths.of(config).export / "done.json").exists()


def test_killed_export_is_completed_by_the_same_command(config: Config, tmp_path: Path) -> None:
    killed = make_run(tmp_path, chunk=[8, 8, 8], workers=1)  # many chunks: killed long before the end
    file = tmp_path / "config.json"
    file.write_text(json.dumps(killed.model_dump(mode="json")))
    export = RunPaths.of(killed).export
    process = subprocess.Popen(
        [sys.executable, "-m", "ffn", "export", "--config", str(file)], stderr=subprocess.DEVNULL
    )
    while process.poll() is None and not list(export.glob("*/*.partial")):
        time.sleep(0.001)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (export / "done.json").exists()
    assert main(["export", "--config", str(file)]) == 0
    assert sorted(path.name for path in export.iterdir()) == [
        "done.json", "image", "segmentation", "started.json", "state.json", "truth"
    ]  # fmt: skip
    assert list(export.rglob("*.partial")) == []
    for name, expected in arrays(config).items():
        np.testing.assert_array_equal(np.asarray(cloud(killed, name)[:])[..., 0].T, expected)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """All files of an export in small units."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "_EDGES", ())
        patch.setattr(shards, "_LARGEST_EDGE", 32)
        return contents(export_run(make_run(tmp_path_factory.mktemp("whole"), workers=1)))


def contents(folder: Path) -> dict[str, bytes]:
    """All files but the markers, which name the folder."""
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return {name: content for name, content in found.items() if name not in ("done.json", "started.json")}


@pytest.mark.usefixtures("many_units")
@pytest.mark.slow
@pytest.mark.parametrize(
    ("where", "count"),
    [
        ("after-rename", 2),  # a layer's info
        ("before-rename", 3),  # its first shard
        ("after-rename", 3),
        ("before-rename", 40),
        ("before-note", 1),
        ("after-note", 5),
        ("before-note", 20),
        ("before-note", 37),  # levels above the units
        ("after-note", 37),
    ],
)
def test_killed_and_run_again_ends_in_the_same_files_and_one_unit_is_lost(
    whole: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, count: int
) -> None:
    config = make_run(tmp_path, workers=1)
    file = tmp_path / "config.json"
    file.write_text(json.dumps(config.model_dump(mode="json")))
    ended = forks.run("killed_export:main", file, where, str(count))
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    export = RunPaths.of(config).export
    assert not (export / "done.json").exists()
    noted = sum(len(ledger.read_bytes().splitlines()) - 1 for ledger in export.rglob("*.jsonl"))
    if where.endswith("note"):
        assert noted == count - (where == "before-note")
    done, add = [], LedgerWriter.add

    def watched(writer: LedgerWriter, unit: int, *args: Any) -> Entry:
        done.append((writer.folder.parent.name, unit))
        return add(writer, unit, *args)

    monkeypatch.setattr(LedgerWriter, "add", watched)
    export_run(config)
    assert len(done) == len(set(done)) == 37 - noted
    assert contents(export) == whole


@pytest.mark.slow
def test_two_exports_of_one_run_at_once(whole: dict[str, bytes], tmp_path: Path) -> None:
    """The first is stopped in the middle, the second begins and ends, the first goes on."""
    config = make_run(tmp_path, workers=1)
    file = tmp_path / "config.json"
    file.write_text(json.dumps(config.model_dump(mode="json")))
    command = [sys.executable, str(HERE / "killed_export.py"), str(file), "before-rename", "0"]
    environment = {**os.environ, "PYTHONPATH": str(HERE.parents[1])}
    export = RunPaths.of(config).export
    first = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    # Not Path.glob, which fails where a folder goes while it looks into it.
    while first.poll() is None and not glob.glob(f"{export}/*/*/*.shard"):  # noqa: PTH207
        time.sleep(0.001)
    first.send_signal(signal.SIGSTOP)
    second = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    first.send_signal(signal.SIGCONT)
    told = first.communicate()[1]
    assert (first.returncode, second.returncode) == (0, 0), (told, second.stderr)
    assert contents(export) == whole


FULL_DISK = """
set -e
mount -t tmpfs -o size={size}k none {export}
"$0" -m ffn export --config {config} || echo "ended $?"
find {export} -name '*.partial' | wc -l
mount -o remount,size=64m {export}
"$0" -m ffn export --config {config}
ls {export}
"""


@pytest.mark.slow
@pytest.mark.parametrize("size", [12, 100, 200])
def test_a_full_disk_is_told_and_the_same_command_goes_on(tmp_path: Path, size: int) -> None:
    isolated = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    (tmp_path / "full").mkdir()
    mount = ["mount -t tmpfs -o size=32k none full"]
    if shutil.which("unshare") is None or subprocess.run([*isolated, *mount], cwd=tmp_path, check=False).returncode:
        pytest.skip("needs a small file system: no permission to mount one here")
    config = make_run(tmp_path, workers=1)
    file, export = tmp_path / "config.json", RunPaths.of(config).export
    file.write_text(json.dumps(config.model_dump(mode="json")))
    export.mkdir()
    script = FULL_DISK.format(size=size, export=export, config=file)
    environment = {**os.environ, "PYTHONPATH": str(HERE.parents[1])}
    done = subprocess.run(
        [*isolated, script, sys.executable], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert "ffn: error: the disk is full" in done.stderr
    assert "Traceback" not in done.stderr
    first, left, *rest = done.stdout.splitlines()
    assert (first, left) == ("ended 2", "0")
    assert rest[1:] == ["done.json", "image", "segmentation", "started.json", "state.json", "truth"]
