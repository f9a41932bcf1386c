"""The stage `assemble` under many workers, after kills, on a full disk, in little memory, and with bad input."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import psutil
import pytest
import yaml
from tiled import cells, finished_tiles, run_with_tiles, same_partition

from ffn.assembly.evidence import groups
from ffn.assembly.run import assemble
from ffn.assembly.write import require_room
from ffn.cli import main
from ffn.config import Config, parse_config
from ffn.errors import ConfigError, DataError, StageError, VolumeError, WorkerError
from ffn.geometry import Box, overlapping_tiles
from ffn.preflight import check_inputs
from ffn.stages import Stage
from ffn.volumes import create_hdf5, open_volume
from ffn.workers import Workers

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
SPLIT = {"disconnected": "split", "min_size": 20}
FILES = ["done.json", "equivalences.h5", "equivalences.json", "segmentation.h5", "started.json"]


def folder_of(config: Config) -> Path:
    return Path(config.results) / config.run / "assemble"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def with_rule(config: Config, **rule) -> Config:
    values = config.model_dump(mode="json")
    values["assembly"].update(rule)
    return parse_config(values)


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


@pytest.mark.slow
@pytest.mark.parametrize("rule", [{}, SPLIT], ids=["keep", "split"])
def test_files_are_the_same_whatever_the_number_of_workers(tmp_path, rule):
    config, truth, _ = run_with_tiles(tmp_path, **rule)
    assemble(config)
    alone = contents(folder_of(config))
    assert list(alone) == FILES
    with open_volume(f"{folder_of(config) / 'segmentation.h5'}:labels") as volume:
        assert same_partition(truth, volume[...])
    shutil.rmtree(folder_of(config))
    assemble(with_rule(config, workers=3))
    assert contents(folder_of(config)) == alone


def test_the_number_of_workers_may_change_later(tmp_path):
    config, _, _ = run_with_tiles(tmp_path)
    assemble(config)
    assemble(with_rule(config, workers=2))
    with pytest.raises(StageError, match=r"assembly\.min_size: there 0, now 7"):
        assemble(with_rule(config, min_size=7))


def test_all_equivalences_are_on_disk_and_thresholds_are_told(tmp_path):
    config, _, _ = run_with_tiles(tmp_path)
    assemble(config)
    facts = json.loads((folder_of(config) / "equivalences.json").read_text())
    assert (facts["min_overlap_voxels"], facts["min_overlap_fraction"]) == (5, 0.5)
    with h5py.File(folder_of(config) / "equivalences.h5") as file:
        columns = {name: file[name][...] for name in file}
    assert len(columns["ids"]) == facts["segments_in_tiles"]
    assert columns["ids"].max() == facts["objects_in_tiles"]
    rows = zip(columns["tile_a"], columns["tile_b"], columns["id_a"], columns["id_b"], strict=True)
    listed = [(*pair["tiles"], *pair["ids"]) for pair in facts["pairs"]]
    assert [tuple(row) for row in rows] == listed
    assert len(listed) == facts["equivalences"]


@pytest.mark.parametrize("kind", ["uint32", "uint64"])
def test_the_type_on_disk(tmp_path, kind):
    config, truth, _ = run_with_tiles(tmp_path, dtype=kind)
    assemble(config)
    with open_volume(f"{folder_of(config) / 'segmentation.h5'}:labels") as volume:
        assert volume.dtype == kind
        assert same_partition(truth, volume[...])


def test_more_objects_than_ids():
    require_room(2**32 - 1, "uint32")
    with pytest.raises(DataError, match=r"4294967296 objects, but assembly\.dtype uint32 holds ids up to 4294967295"):
        require_room(2**32, "uint32")


# --- kills


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A configuration with its files, in a folder to copy, by rule."""
    made = {}
    for name, rule in {"keep": {}, "split": SPLIT}.items():
        config, _, _ = run_with_tiles(tmp_path_factory.mktemp(name), **rule)
        assemble(config)
        made[name] = config, contents(folder_of(config))
        shutil.rmtree(folder_of(config))
    return made


def killed(config: Config, tmp_path: Path, where: str, count: int) -> list[int]:
    """Kill an assembly; returns its workers."""
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    command = [sys.executable, str(HERE / "killed_assembly.py"), str(path), where, str(count)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, env=environment())
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    return [int(word) for word in ended.stdout.split()]


@pytest.mark.parametrize(
    ("rule", "where", "count"),
    [
        # Files: 1 started.json, 2 to 7 a part for each sub-volume, 8 equivalences.h5, 9 segmentation.h5,
        # 10 equivalences.json, 11 done.json; with `split` 9 pieces.h5, and so on.
        ("keep", "after-rename", 1),
        ("keep", "before-rename", 3),
        ("keep", "after-rename", 8),
        ("keep", "chunk", 5),
        ("keep", "after-rename", 9),
        ("split", "chunk", 7),
        ("split", "after-rename", 9),
        ("split", "before-rename", 11),
        ("split", "after-rename", 12),
    ],
)
def test_killed_and_run_again_ends_in_the_same_files(finished, tmp_path, rule, where, count):
    config, expected = finished[rule]
    shutil.rmtree(folder_of(config), ignore_errors=True)
    killed(config, tmp_path, where, count)
    assemble(config)
    assert contents(folder_of(config)) == expected


def test_what_was_counted_is_not_counted_again(finished, tmp_path, monkeypatch):
    config, expected = finished["keep"]
    shutil.rmtree(folder_of(config), ignore_errors=True)
    killed(config, tmp_path, "after-rename", 3)
    assert len(list((folder_of(config) / "pairs").iterdir())) == 2
    counted = []
    results = Workers.results

    def watched(self, work, tasks):
        counted.append(tasks)
        return results(self, work, tasks)

    monkeypatch.setattr(Workers, "results", watched)
    assemble(config)
    assert counted[0] == [2, 3, 4, 5]
    assert contents(folder_of(config)) == expected


@pytest.mark.slow
def test_workers_end_with_the_process_that_started_them(finished, tmp_path):
    config, expected = finished["keep"]
    shutil.rmtree(folder_of(config), ignore_errors=True)
    workers = [
        psutil.Process(pid)
        for pid in killed(with_rule(config, workers=2), tmp_path, "chunk", 1)
        if psutil.pid_exists(pid)
    ]
    _, alive = psutil.wait_procs(workers, timeout=60)
    assert alive == []
    assemble(config)
    assert contents(folder_of(config)) == expected


def end_worker(_: None, task: int) -> int:
    if task == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return task


def out_of_memory(_: None, task: int) -> int:
    raise MemoryError("Unable to allocate 1 EiB")


def nothing() -> None:
    """The bench of workers that need none."""


def test_a_worker_that_is_killed_is_told():
    with Workers(2, nothing) as workers, pytest.raises(WorkerError, match=r"2 worker processes was killed.*fewer"):
        list(workers.results(end_worker, range(10)))


@pytest.mark.parametrize("count", [1, 2])
def test_too_little_memory_is_told(count):
    with (
        Workers(count, nothing, "Use a smaller assembly.block.") as workers,
        pytest.raises(WorkerError, match=r"Memory ran out .*smaller assembly\.block"),
    ):
        list(workers.results(out_of_memory, range(3)))


# --- a full disk

FULL_DISK = """
cd {folder}
mount -t tmpfs -o size={size}k none . && cd .
"$0" -m ffn assemble --config {config} ; echo "ended $?"
find . -type f
mount -o remount,size=8m .
"$0" -m ffn assemble --config {config} || exit 9
sha256sum *
"""


@pytest.mark.slow
@pytest.mark.parametrize(("rule", "size"), [("keep", 8), ("keep", 32), ("keep", 52), ("split", 56)])
def test_a_full_disk_is_told_and_the_same_command_goes_on(finished, tmp_path, rule, size):
    config, expected = finished[rule]
    isolated = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    mount = "mount -t tmpfs -o size=32k none full"
    (tmp_path / "full").mkdir()
    if shutil.which("unshare") is None or subprocess.run([*isolated, mount], cwd=tmp_path, check=False).returncode:
        pytest.skip("needs a small file system: no permission to mount one here")
    shutil.rmtree(folder_of(config), ignore_errors=True)
    folder_of(config).mkdir()
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    script = FULL_DISK.format(folder=folder_of(config), config=path, size=size)
    command = [*isolated, script, sys.executable]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment())
    assert done.returncode == 0, done.stderr
    assert "ffn: error: the disk is full" in done.stderr
    assert "Traceback" not in done.stderr
    first, second = done.stdout.split("ended 2\n")[1], done.stdout
    assert ".partial" not in first
    for name, data in expected.items():
        assert f"{hashlib.sha256(data).hexdigest()}  {name}\n" in second


# --- memory

LITTLE_MEMORY = """
import resource, sys
from pathlib import Path
import numpy as np
from ffn.assembly.run import assemble
from ffn.config import load_config
config, room, voxels = load_config(Path(sys.argv[1])), int(sys.argv[2]), int(sys.argv[3])
data = next(int(line.split()[1]) << 10 for line in open("/proc/self/status") if line.startswith("VmData"))
resource.setrlimit(resource.RLIMIT_DATA, (data + room,) * 2)
try:
    np.empty(voxels, np.uint64)
except MemoryError:
    assemble(config)
    sys.exit(0)
sys.exit("the volume fits into the memory")
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits on memory work on Linux only")
@pytest.mark.parametrize("rule", [{}, {"disconnected": "split", "min_size": 1}], ids=["keep", "split"])
def test_a_volume_larger_than_memory(tmp_path, rule):
    """126 MB of labels with 40 MB for everything."""
    shape = (240, 256, 256)
    with create_hdf5(tmp_path / "image.h5", "image", shape, np.uint8, (10.0, 10.0, 10.0)):
        pass
    values = {
        "run": "large",
        "results": str(tmp_path / "results"),
        "data": {"test": {"image": f"{tmp_path / 'image.h5'}:image"}},
        "network": {"fov": [9, 9, 9], "deltas": [2, 2, 2]},
        "inference": {"checkpoint": "unused", "subvolume_size": [136] * 3, "subvolume_overlap": [16] * 3},
        "assembly": {"block": [64, 64, 64], "workers": 1, **rule},
    }
    config = parse_config(values)
    boxes = overlapping_tiles(Box.of_shape(shape), (136,) * 3, (16,) * 3)

    def pieces():
        for box in boxes:
            yield np.unique(cells(box), return_inverse=True)[1].reshape(box.shape).astype(np.uint64)

    finished_tiles(tmp_path / "results" / "large" / "infer", boxes, pieces())
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(values))
    room = 40 << 20
    command = [sys.executable, "-c", LITTLE_MEMORY, str(path), str(room), str(int(np.prod(shape)))]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment())
    assert done.returncode == 0, done.stderr
    with open_volume(f"{folder_of(config) / 'segmentation.h5'}:labels") as volume:
        assert 8 * volume[...].size >= 3 * room
        assert same_partition(cells(Box.of_shape(shape)), volume[...])


# --- bad input


def test_all_unfinished_sub_volumes_are_listed(tmp_path):
    config, _, infer = run_with_tiles(tmp_path)
    for index in (1, 3):
        (infer / f"tile-{index:04d}" / "done.json").unlink()
    with pytest.raises(StageError) as told:
        assemble(config)
    lines = str(told.value).splitlines()
    assert lines[0] == "2 of the 6 sub-volumes of run joined cannot be assembled:"
    assert [line.split(" (")[0] for line in lines[1:]] == ["  - Sub-volume 1", "  - Sub-volume 3"]
    assert not folder_of(config).exists()


def test_of_many_the_first_are_listed(tmp_path):
    with create_hdf5(tmp_path / "image.h5", "image", (30, 90, 90), np.uint8, (10.0, 10.0, 10.0)):
        pass
    config = parse_config(
        {
            "run": "many",
            "results": str(tmp_path),
            "data": {"test": {"image": f"{tmp_path / 'image.h5'}:image"}},
            "network": {"fov": [9, 9, 9], "deltas": [2, 2, 2]},
            "inference": {"checkpoint": "no", "subvolume_size": [30, 18, 18], "subvolume_overlap": [6, 6, 6]},
        }
    )
    with pytest.raises(StageError) as told:
        assemble(config)
    lines = str(told.value).splitlines()
    assert lines[0].startswith("49 of the 49 sub-volumes")
    assert len(lines) == 22
    assert lines[-1] == "  - and 29 more"


def test_sub_volumes_made_with_other_settings_are_listed(tmp_path):
    config, _, infer = run_with_tiles(tmp_path)
    for index in (0, 2):
        marker = infer / f"tile-{index:04d}" / "done.json"
        settings = json.loads(marker.read_text())["settings"]
        marker.unlink()
        Stage(marker.parent, {**settings, "inference": {"segment_threshold": 0.25}}).finish(segments=9)
    with pytest.raises(StageError) as told:
        assemble(config)
    text = str(told.value)
    for index in (0, 2):
        assert f"Sub-volume {index} " in text
    assert text.count("inference.segment_threshold: there 0.25, now 0.6") == 2


def test_sub_volumes_of_other_weights_are_listed(tmp_path):
    config, _, infer = run_with_tiles(tmp_path)
    for index, weights in enumerate(["a", "a", "b", "a", "a", "a"]):
        marker = infer / f"tile-{index:04d}" / "done.json"
        record = json.loads(marker.read_text())
        marker.unlink()
        Stage(marker.parent, {**record["settings"], "checkpoint_sha256": weights}).finish(**record["facts"])
    with pytest.raises(
        StageError, match=r"^Sub-volume 2 .*than the first one \(checkpoint_sha256: first 'a', now 'b'\)"
    ):
        assemble(config)


def damaged(path: Path, how: str) -> None:
    if how == "missing":
        path.unlink()
    elif how == "half":
        os.truncate(path, path.stat().st_size // 2)
    elif how == "other":
        path.write_text("no labels")
    else:
        path.unlink()
        with create_hdf5(path, "labels", (5, 5, 5), np.uint64, None):
            pass


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("missing", "There is no file"),
        ("half", "is damaged or not HDF5"),
        ("other", "is damaged or not HDF5"),
        ("small", r"holds uint64 of the shape \(5, 5, 5\); expected uint64 of the shape \(28, 24, 24\)"),
    ],
)
def test_damaged_labels_are_named(tmp_path, how, expected):
    config, _, infer = run_with_tiles(tmp_path)
    for index in (1, 2):
        damaged(infer / f"tile-{index:04d}" / "segmentation.h5", how)
    with pytest.raises(VolumeError, match=expected) as told:
        assemble(config)
    for index in (1, 2):
        assert f"tile-{index:04d}/segmentation.h5" in str(told.value)
    assert not folder_of(config).exists()


@pytest.mark.parametrize("workers", [1, 2])
def test_labels_that_are_damaged_inside(tmp_path, capfd, workers):
    config, _, infer = run_with_tiles(tmp_path, workers=workers)
    path = infer / "tile-0002" / "segmentation.h5"
    with h5py.File(path) as file:
        place = file["labels"].id.get_chunk_info(0).byte_offset
    with path.open("r+b") as file:
        file.seek(place + 20)
        file.write(b"\0" * 40)
    values = tmp_path / "config.yaml"
    values.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    assert main(["assemble", "--config", str(values)]) == 2
    told = capfd.readouterr().err
    assert "tile-0002/segmentation.h5:labels is damaged inside" in told
    assert "Traceback" not in told


def test_labels_of_another_run(tmp_path):
    config, _, infer = run_with_tiles(tmp_path)
    marker = infer / "tile-0003" / "done.json"
    record = json.loads(marker.read_text())
    marker.unlink()
    Stage(marker.parent, record["settings"]).finish(segments=2)
    with pytest.raises(VolumeError, match=r"tile-0003.* holds the id \d+, but ids up to 2 by the done\.json"):
        assemble(config)


@pytest.mark.parametrize("facts", [{}, {"segments": "9"}, {"segments": 9, "largest_id": "9"}])
def test_a_marker_that_counts_nothing(tmp_path, facts):
    config, _, infer = run_with_tiles(tmp_path)
    marker = infer / "tile-0003" / "done.json"
    marker.write_text(json.dumps({**json.loads(marker.read_text()), "facts": facts}))
    with pytest.raises(StageError, match=r"tile-0003/done\.json does not say how many segments there are"):
        assemble(config)


def test_a_broken_marker(tmp_path):
    config, _, infer = run_with_tiles(tmp_path)
    (infer / "tile-0001" / "done.json").write_text("{")
    with pytest.raises(StageError, match=r"tile-0001/done\.json is not a marker"):
        assemble(config)


# --- overlaps


def test_too_small_an_overlap_is_found_before_anything_runs(tmp_path):
    # Neighbours along y share 28 x 24 voxels of each plane, along z nothing is cut.
    config, _, _ = run_with_tiles(tmp_path, overlap=1, min_overlap_voxels=700)
    (problem, other) = [line for line in check_inputs(config) if "overlap" in line]
    assert problem.startswith("inference.subvolume_overlap 1 along y: neighbouring sub-volumes share 672 voxels")
    assert problem.endswith("the smallest overlap that works is 2.")
    assert "along x" in other
    with pytest.raises(ConfigError, match="smallest overlap that works is 2"):
        assemble(config)
    assert not folder_of(config).exists()
    assert not [line for line in check_inputs(with_rule(config, min_overlap_voxels=672)) if "overlap" in line]
    (line, _) = [line for line in check_inputs(with_rule(config, min_overlap_voxels=28 * 24 * 24)) if "overlap" in line]
    assert "no overlap works with sub-volumes of 24" in line


def test_groups_are_few_and_cover_all():
    for tiles in (1, 5, 4096, 4097, 100_000):
        listed = groups(tiles)
        assert [tile for group in listed for tile in group] == list(range(tiles))
        assert len(listed) <= 4096
