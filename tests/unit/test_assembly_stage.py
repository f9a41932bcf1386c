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
from ffn.assembly.tasks import require_room
from ffn.blockwise import JobPart, Share
from ffn.blockwise.ledger import LedgerWriter
from ffn.cli import main
from ffn.config import Config, parse_config
from ffn.errors import ConfigError, DataError, StageError, VolumeError
from ffn.geometry import Box, overlapping_tiles
from ffn.inference.kept import copy_files, ledger_of
from ffn.inference.tiles import tiles as boxes_of
from ffn.planning.extent import extent_of
from ffn.planning.outputs import Cut, outputs
from ffn.preflight import check_inputs
from ffn.runs import labels_in
from ffn.stages import settings_hash
from ffn.volumes import create_hdf5, open_volume

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
SPLIT = {"disconnected": "split", "min_size": 20}
FILES = {"done.json", "equivalences.h5", "equivalences.json", "segmentation.zarr", "started.json"}


def folder_of(config: Config) -> Path:
    return Path(config.results) / config.run / "assemble"


def contents(folder: Path) -> dict[str, bytes]:
    """All files by their path in the folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


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
    assert {name.split("/")[0] for name in alone} == FILES
    with open_volume(labels_in(folder_of(config))) as volume:
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
    with open_volume(labels_in(folder_of(config))) as volume:
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
    for name, rule in {"keep": {}, "split": SPLIT, "min_size": {"min_size": 300}}.items():
        config, _, _ = run_with_tiles(tmp_path_factory.mktemp(name), **rule)
        assemble(config)
        made[name] = config, contents(folder_of(config))
        shutil.rmtree(folder_of(config))
    return made


def restore(folder: Path, files: dict[str, bytes]) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def killed(config: Config, tmp_path: Path, where: str, count: int) -> list[int]:
    """Kill an assembly; returns its workers."""
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    command = [sys.executable, str(HERE / "killed_assembly.py"), str(path), where, str(count)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, env=environment())
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    return [int(word) for word in ended.stdout.split()]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rule", "where", "count"),
    [
        # Units, by default: 1 to 6 a group of sub-volumes, 7 the ids, 8 to 25 shards, 26 the summary. With `split` 8 to
        # 25 the pieces, 26 to 43 what touches, 44 the objects, 45 to 62 shards, 63 the summary.
        ("keep", "after-rename", 1),
        ("keep", "before-note", 1),
        ("keep", "after-note", 3),
        ("keep", "before-rename", 2),
        ("keep", "before-note", 7),
        ("keep", "shard", 1),
        ("keep", "shard", 5),
        ("keep", "before-note", 26),
        ("keep", "after-note", 26),
        ("split", "shard", 7),
        ("split", "after-note", 25),
        ("split", "before-note", 30),
        ("split", "before-rename", 3),
        ("split", "after-note", 44),
        ("split", "shard", 25),
        ("split", "after-note", 63),
        ("min_size", "shard", 5),
        ("min_size", "before-note", 26),
        ("min_size", "shard", 20),
    ],
)
def test_killed_and_run_again_ends_in_the_same_files(finished, tmp_path, rule, where, count):
    config, expected = finished[rule]
    shutil.rmtree(folder_of(config), ignore_errors=True)
    killed(config, tmp_path, where, count)
    assert not (folder_of(config) / "done.json").exists()
    assemble(config)
    assert contents(folder_of(config)) == expected


def test_killed_after_all_is_done_only_clears(finished, tmp_path):
    config, expected = finished["split"]
    shutil.rmtree(folder_of(config), ignore_errors=True)
    killed(config, tmp_path, "after-rename", 7)  # done.json
    assert (folder_of(config) / "done.json").exists()
    assert (folder_of(config) / "steps").exists()
    assemble(config)
    assert contents(folder_of(config)) == expected


@pytest.mark.parametrize("count", [2, 9, 13])
def test_a_kill_loses_one_unit(finished, tmp_path, monkeypatch, count):
    """What is in the ledger is not done again; of what was under way one unit is."""
    config, expected = finished["keep"]
    shutil.rmtree(folder_of(config), ignore_errors=True)
    killed(config, tmp_path, "before-note", count)
    noted = [line for file in folder_of(config).rglob("*.jsonl") for line in file.read_bytes().splitlines()[1:]]
    assert len(noted) == count - 1
    done, add = [], LedgerWriter.add

    def watched(writer, unit, *args):
        done.append((writer.folder.parent.name, unit))
        return add(writer, unit, *args)

    monkeypatch.setattr(LedgerWriter, "add", watched)
    assemble(config)
    assert len(done) == len(set(done)) == 26 - (count - 1)
    assert contents(folder_of(config)) == expected


@pytest.mark.slow
def test_workers_end_with_the_process_that_started_them(finished, tmp_path):
    config, expected = finished["keep"]
    shutil.rmtree(folder_of(config), ignore_errors=True)
    workers = [
        psutil.Process(pid)
        for pid in killed(with_rule(config, workers=2), tmp_path, "before-note", 3)
        if psutil.pid_exists(pid)
    ]
    _, alive = psutil.wait_procs(workers, timeout=60)
    assert alive == []
    assemble(config)
    assert contents(folder_of(config)) == expected


# --- several processes


def command_of(config: Config, tmp_path: Path, *options: str) -> list[str]:
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    return [sys.executable, "-m", "ffn", "assemble", "--config", str(path), *options]


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["keep", "split", "min_size"])
def test_steps_in_parts_make_the_same_files(finished, tmp_path, rule):
    """As three jobs of a cluster do it, each of them with two processes that a launcher started."""
    config, expected = finished[rule]
    shutil.rmtree(folder_of(config), ignore_errors=True)
    steps = {
        "keep": ["overlaps", "ids", "labels", "summary"],
        "split": ["overlaps", "ids", "pieces", "touching", "objects", "labels", "summary"],
        "min_size": ["overlaps", "ids", "pieces", "objects", "labels", "summary"],
    }[rule]
    for step in steps:
        parts = 1 if step in ("ids", "objects", "summary") else 3
        jobs = []
        for part in range(1, parts + 1):
            command = command_of(config, tmp_path, "--step", step, "--part", f"{part}/{parts}", "--ranks", "2")
            for rank in range(2):
                launched = {**environment(), "PMI_RANK": str(rank), "PMI_SIZE": "2"}
                jobs.append(subprocess.Popen(command, env=launched, stderr=subprocess.PIPE, text=True))
        for job in jobs:
            told = job.communicate()[1]
            assert job.returncode == 0, told
    assert contents(folder_of(config)) == expected


def test_a_step_waits_for_the_one_before(finished, tmp_path):
    config, _ = finished["split"]
    shutil.rmtree(folder_of(config), ignore_errors=True)
    assemble(config, Share("overlaps", JobPart(0, 2)))
    with pytest.raises(StageError, match=r"3 of the 6 units of the step overlaps are not done.*--step overlaps"):
        assemble(config, Share("ids"))
    with pytest.raises(StageError, match=r"has no step label; there are overlaps, ids, pieces"):
        assemble(config, Share("label"))


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["keep", "split"])
def test_two_assemblies_of_one_run_at_once(finished, tmp_path, rule):
    """The first is stopped in the middle, the second begins and ends, the first goes on."""
    config, expected = finished[rule]
    shutil.rmtree(folder_of(config), ignore_errors=True)
    command = command_of(config, tmp_path)
    first = subprocess.Popen(command, env=environment(), stderr=subprocess.PIPE, text=True)
    while first.poll() is None and not list(folder_of(config).glob("segmentation.zarr/0/c/*/*/*")):
        pass
    first.send_signal(signal.SIGSTOP)
    second = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    first.send_signal(signal.SIGCONT)
    told = first.communicate()[1]
    assert (first.returncode, second.returncode) == (0, 0), (told, second.stderr)
    assemble(config)
    assert contents(folder_of(config)) == expected


# --- damage


@pytest.mark.parametrize("rule", ["keep", "split"])
def test_a_shard_that_was_cut_short_is_made_again(finished, tmp_path, rule):
    config, expected = finished[rule]
    shutil.rmtree(folder_of(config), ignore_errors=True)
    killed(config, tmp_path, "before-note", {"keep": 20, "split": 30}[rule])
    shards = sorted(path for path in folder_of(config).rglob("0/c/*/*/*") if path.is_file())
    os.truncate(shards[1], shards[1].stat().st_size // 2)
    shards[2].unlink()
    assemble(config)
    assert contents(folder_of(config)) == expected


def test_a_line_that_was_cut_short_is_passed_over(finished, tmp_path):
    config, expected = finished["keep"]
    shutil.rmtree(folder_of(config), ignore_errors=True)
    killed(config, tmp_path, "after-note", 4)
    (ledger,) = folder_of(config).rglob("*.jsonl")
    os.truncate(ledger, ledger.stat().st_size - 7)
    assemble(config)
    assert contents(folder_of(config)) == expected


def test_a_finished_shard_that_was_cut_short_is_told(finished, tmp_path):
    config, expected = finished["keep"]
    restore(folder_of(config), expected)
    shard = next(path for path in sorted(folder_of(config).rglob("0/c/*/*/*")) if path.is_file())
    os.truncate(shard, shard.stat().st_size // 2)
    with open_volume(labels_in(folder_of(config))) as volume, pytest.raises(VolumeError, match="is damaged inside"):
        volume[...]


def test_a_store_of_another_layout_is_told(finished, tmp_path):
    config, expected = finished["keep"]
    shutil.rmtree(folder_of(config), ignore_errors=True)
    killed(config, tmp_path, "after-note", 9)
    metadata = folder_of(config) / "segmentation.zarr" / "0" / "zarr.json"
    metadata.write_text(metadata.read_text().replace('"uint64"', '"uint32"'))
    with pytest.raises(StageError, match=r"segmentation\.zarr is a store of another layout.*Move it away"):
        assemble(config)
    shutil.rmtree(folder_of(config) / "segmentation.zarr")
    assemble(config)
    assert contents(folder_of(config)) == expected


def test_other_blocks_are_refused(finished):
    config, expected = finished["keep"]
    restore(folder_of(config), expected)
    with pytest.raises(StageError, match=r"assembly\.block.*there \[16, 16, 16\], now \[32, 32, 32\]"):
        assemble(with_rule(config, block=[32, 32, 32], shard=None))
    assert contents(folder_of(config)) == expected


def test_an_assembly_of_an_older_version_is_kept(finished, capfd):
    """One HDF5 file, and no shards in its settings."""
    config, expected = finished["keep"]
    restore(folder_of(config), expected)
    with open_volume(labels_in(folder_of(config))) as volume:
        labels = volume[...]
    shutil.rmtree(folder_of(config) / "segmentation.zarr")
    with create_hdf5(folder_of(config) / "segmentation.h5", "labels", labels.shape, np.uint64, None) as volume:
        volume.write(Box.of_shape(labels.shape), labels)
    for name in ("started.json", "done.json"):
        path = folder_of(config) / name
        record = json.loads(path.read_text())
        del record["settings"]["shard"]
        path.write_text(json.dumps({**record, "hash": settings_hash(record["settings"])}))
    before = contents(folder_of(config))
    assemble(config)
    assert "one HDF5 file of an older version" in capfd.readouterr().err
    assert contents(folder_of(config)) == before
    with open_volume(labels_in(folder_of(config))) as volume:
        np.testing.assert_array_equal(volume[...], labels)
    with pytest.raises(StageError, match=r"assembly\.min_size"):
        assemble(with_rule(config, min_size=7))


# --- a full disk

FULL_DISK = """
cd {folder}
mount -t tmpfs -o size={size}k none . && cd .
"$0" -m ffn assemble --config {config} ; echo "ended $?"
find . -type f
mount -o remount,size=8m .
"$0" -m ffn assemble --config {config} || exit 9
find . -type f ! -path './steps/*' -exec sha256sum {{}} +
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
        assert f"{hashlib.sha256(data).hexdigest()}  ./{name}\n" in second


# --- memory

LITTLE_MEMORY = """
import re, sys
from pathlib import Path
import tensorstore, zarr
from ffn.assembly.run import assemble
from ffn.config import load_config
from ffn.volumes import hdf5
# Of 16 open sub-volumes unpacked chunks would hide what this is about: 16 MiB each, whatever the volume.
hdf5.CHUNKS_HELD = 1 << 20
def kilobytes(name):
    return int(re.search(name + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
config = load_config(Path(sys.argv[1]))
before = kilobytes("VmRSS")
assemble(config)
print((kilobytes("VmHWM") - before) << 10)
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="what a process holds is read from /proc")
@pytest.mark.parametrize("rule", [{}, {"disconnected": "split", "min_size": 1}], ids=["keep", "split"])
def test_a_volume_larger_than_memory(tmp_path, rule):
    """280 MB of labels, of which no process ever holds a third."""
    shape = (327, 327, 327)
    with create_hdf5(tmp_path / "image.h5", "image", shape, np.uint8, (10.0, 10.0, 10.0)):
        pass
    values = {
        "run": "large",
        "results": str(tmp_path / "results"),
        "data": {"test": {"image": f"{tmp_path / 'image.h5'}:image"}},
        "network": {"fov": [9, 9, 9], "deltas": [2, 2, 2]},
        "inference": {"checkpoint": "unused", "subvolume_size": [136] * 3, "subvolume_overlap": [16] * 3},
        "assembly": {"block": [64, 64, 64], "shard": [64, 64, 64], "workers": 1, **rule},
    }
    config = parse_config(values)
    boxes = overlapping_tiles(Box.of_shape(shape), (136,) * 3, (16,) * 3)

    def pieces():
        for box in boxes:
            yield np.unique(cells(box), return_inverse=True)[1].reshape(box.shape).astype(np.uint64)

    finished_tiles(tmp_path / "results" / "large" / "infer", boxes, pieces())
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(values))
    command = [sys.executable, "-c", LITTLE_MEMORY, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment())
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 8 * np.prod(shape) / 3
    with open_volume(labels_in(folder_of(config))) as volume:
        assert same_partition(cells(Box.of_shape(shape)), volume[...])


# --- bad input


def test_all_unfinished_sub_volumes_are_listed(tmp_path):
    config, _, _ = run_with_tiles(tmp_path, how={"leaves_out": (1, 3)})
    with pytest.raises(StageError) as told:
        assemble(config)
    lines = str(told.value).splitlines()
    assert lines[0] == "2 of the 6 sub-volumes of run joined cannot be assembled:"
    assert [line.split(" (")[0] for line in lines[1:]] == ["  - Sub-volume 1", "  - Sub-volume 3"]
    assert not folder_of(config).exists()


def test_sub_volumes_of_a_lost_archive_are_not_finished(tmp_path):
    config, _, infer = run_with_tiles(tmp_path)
    next(infer.glob("pass-0/archives/*.tar")).unlink()
    with pytest.raises(StageError, match=r"^6 of the 6 sub-volumes of run joined cannot be assembled"):
        assemble(config)


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
    with pytest.raises(StageError, match=r"The inference of run many is not finished.*--tile 0-48`"):
        assemble(config)
    boxes = boxes_of(config)
    pieces = (np.ones(box.shape, np.uint64) for box in boxes)
    finished_tiles(tmp_path / "many" / "infer", boxes, pieces, leaves_out=range(1, 49))
    with pytest.raises(StageError) as told:
        assemble(config)
    lines = str(told.value).splitlines()
    assert lines[0].startswith("48 of the 49 sub-volumes")
    assert len(lines) == 22
    assert lines[-1] == "  - and 28 more"


def test_sub_volumes_made_with_other_settings(tmp_path):
    config, _, _ = run_with_tiles(tmp_path, how={"inference": {"segment_threshold": 0.25}})
    with pytest.raises(StageError, match=r"inference\.segment_threshold: there 0\.25, now 0\.6"):
        assemble(config)


def test_sub_volumes_in_folders_of_an_older_version(tmp_path, capfd):
    """What was assembled of them stays; the rest is assembled as they are."""
    config, truth, infer = run_with_tiles(tmp_path)
    assemble(config)
    for entry in ledger_of(infer / "pass-0").entries():
        copy_files(entry, infer / f"tile-{entry.unit:04d}")
    shutil.rmtree(infer / "pass-0")
    assemble(config)
    assert "is already complete" in capfd.readouterr().err
    shutil.rmtree(folder_of(config))
    assemble(config)
    with open_volume(labels_in(folder_of(config))) as volume:
        assert same_partition(truth, volume[...])
    shutil.rmtree(folder_of(config))
    for number, change in ((1, '"box": "0:'), (2, "{")):
        marker = infer / f"tile-{number:04d}" / "done.json"
        marker.write_text(marker.read_text().replace('"box": "2:', change) if number == 1 else change)
    (infer / "tile-0003" / "done.json").unlink()
    with pytest.raises(StageError) as told:
        assemble(config)
    for number, problem in enumerate(["made with other settings (box: there", "is not a marker", "is not finished"], 1):
        assert problem in str(told.value).splitlines()[number], number


def damaged(path: Path, how: str) -> None:
    if how == "half":
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
        ("half", "is damaged or not HDF5"),
        ("other", "is damaged or not HDF5"),
        ("small", r"holds uint64 of the shape \(5, 5, 5\); expected uint64 of the shape \(28, 24, 24\)"),
    ],
)
def test_damaged_labels_are_named(tmp_path, how, expected):
    def damage(index, folder):
        if index in (1, 2):
            damaged(folder / "segmentation.h5", how)

    config, _, _ = run_with_tiles(tmp_path, how={"before": damage})
    with pytest.raises(VolumeError, match=expected) as told:
        assemble(config)
    for index in (1, 2):
        assert f"tile-{index:04d}/segmentation.h5" in str(told.value)
    assert not folder_of(config).exists()


@pytest.mark.parametrize("workers", [1, 2])
def test_labels_that_are_damaged_inside(tmp_path, capfd, workers):
    def damage(index, folder):
        if index != 2:
            return
        path = folder / "segmentation.h5"
        with h5py.File(path) as file:
            place = file["labels"].id.get_chunk_info(0).byte_offset
        with path.open("r+b") as file:
            file.seek(place + 20)
            file.write(b"\0" * 40)

    config, _, _ = run_with_tiles(tmp_path, how={"before": damage}, workers=workers)
    values = tmp_path / "config.yaml"
    values.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    assert main(["assemble", "--config", str(values)]) == 2
    told = capfd.readouterr().err
    assert "tile-0002/segmentation.h5:labels is damaged inside" in told
    assert "Traceback" not in told


def with_facts(number, **facts):
    """For `finished_tiles`: other facts in the marker of one sub-volume."""

    def change(index, folder):
        if index == number:
            marker = folder / "done.json"
            marker.write_text(json.dumps({**json.loads(marker.read_text()), "facts": facts}))

    return {"before": change}


def test_labels_of_another_run(tmp_path):
    config, _, _ = run_with_tiles(tmp_path, how=with_facts(3, segments=2))
    with pytest.raises(VolumeError, match=r"tile-0003.* holds the id \d+, but ids up to 2 by the ledger"):
        assemble(config)


@pytest.mark.parametrize("facts", [{}, {"segments": "9"}, {"segments": 9, "largest_id": "9"}])
def test_a_ledger_that_counts_nothing(tmp_path, facts):
    config, _, _ = run_with_tiles(tmp_path, how=with_facts(3, **facts))
    with pytest.raises(
        StageError, match=r"ledger.*does not say how many segments .*tile-0003/segmentation\.h5:labels has"
    ):
        assemble(config)


def test_a_broken_marker(tmp_path):
    config, _, infer = run_with_tiles(tmp_path)
    (infer / "pass-0" / "started.json").write_text("{")
    with pytest.raises(StageError, match=r"pass-0/started\.json is not a marker"):
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


def test_the_plan_counts_the_files(finished):
    config, expected = finished["keep"]
    extent = extent_of(config)
    (planned,) = [output.files for output in outputs(config, extent, Cut()) if output.name == "assembled volume"]
    assert planned == len(expected)
