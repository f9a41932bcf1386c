"""Processes side by side share the sub-volumes of a job: together they leave what one leaves alone."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from flooding import blobs
from tiled import kept_files

from ffn.cli import main
from ffn.geometry import Box
from ffn.stages import Stage
from ffn.volumes import create_hdf5

HERE = Path(__file__).parent
SHAPE = (20, 34, 60)
TILES = "0-4"


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """An image of five sub-volumes and the two files of a checkpoint, which only the real executor would read."""
    folder = tmp_path_factory.mktemp("inputs")
    grey = np.clip(128 + 33 * blobs(2, SHAPE), 0, 255).astype(np.uint8)
    with create_hdf5(folder / "image.h5", "image", SHAPE, np.uint8, (10.0, 10.0, 10.0)) as volume:
        volume.write(Box.of_shape(SHAPE), grey)
    for suffix in (".index", ".data-00000-of-00001"):
        (folder / f"model.ckpt{suffix}").write_bytes(suffix.encode())
    return folder


def configured(inputs: Path, folder: Path, **inference) -> Path:
    values = {
        "run": "shared",
        "results": str(folder / "results"),
        "data": {"test": {"image": f"{inputs / 'image.h5'}:image"}, "voxel_size": [10, 10, 10]},
        "network": {"depth": 2, "features": 2, "fov": [9, 9, 9], "deltas": [2, 2, 2]},
        "inference": {
            "checkpoint": str(inputs / "model.ckpt"), "min_segment_size": 100,
            "subvolume_size": [20, 34, 20], "subvolume_overlap": [0, 0, 10], **inference,
        },
    }  # fmt: skip
    folder.mkdir(exist_ok=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(values))
    return folder / "config.yaml"


def start(config: Path, rank: int | None, size: int, *more: str, fail: str = "none", what: str = "infer"):
    variables = {key: value for key, value in os.environ.items() if not key.startswith("HOROVOD")}
    if rank is not None:
        variables |= {"HOROVOD_RANK": str(rank), "HOROVOD_SIZE": str(size)}
    command = [sys.executable, HERE / "sharing_process.py", fail, what, "--config", config, "--tile", TILES, *more]
    return subprocess.Popen(
        command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=config.parent
    )


def together(config: Path, size: int, *more: str, **how) -> list[tuple[int, str]]:
    """Exit codes and texts of `size` processes side by side."""
    processes = [start(config, rank, size, *more, **how) for rank in range(size)]
    texts = [process.communicate()[0] for process in processes]
    return [(process.returncode, text) for process, text in zip(processes, texts, strict=True)]


def alone(config: Path, *more: str) -> str:
    process = start(config, None, 1, *more)
    text = process.communicate()[0]
    assert process.returncode == 0, text
    return text


def infer_of(config: Path) -> Path:
    return config.parent / "results" / "shared" / "infer"


def files(config: Path) -> dict[str, bytes]:
    """Contents of all files of finished sub-volumes but the times."""
    assert not list(infer_of(config).glob("tile-*")), "folders of unfinished sub-volumes"
    return kept_files(infer_of(config))


@pytest.fixture(scope="module")
def single(inputs, tmp_path_factory) -> dict[str, bytes]:
    config = configured(inputs, tmp_path_factory.mktemp("single"))
    alone(config)
    found = files(config)
    assert len([name for name in found if name.endswith("done.json")]) == 5
    assert any(json.loads(found[f"pass-0/tile-{index:04d}/origins.json"]) for index in range(5))
    return found


def test_three_processes_leave_what_one_does(inputs, single, tmp_path):
    config = configured(inputs, tmp_path)
    ended = together(config, 3)
    assert [code for code, _ in ended] == [0, 0, 0], ended
    assert files(config) == single
    first, second, third = (text for _, text in ended)
    done, total = re.findall(r"(\d+)/(\d+) voxels, .* voxels/s", first)[-1]
    assert done == total, "progress of what this process did, however the sub-volumes were shared"
    assert "voxels/s" not in second + third, "progress of one process only"
    reached = [
        json.loads((infer_of(config) / f"jobs/0000-0004-pass-0-rank-{rank}.json").read_text()) for rank in range(3)
    ]
    assert sum(job["tiles"] for job in reached) == 5, "none was filled twice"
    assert sum(job["fovs"] for job in reached) == sum(
        json.loads(single[f"pass-0/tile-{index:04d}/done.json"])["facts"]["fovs"] for index in range(5)
    )
    assert len(list(infer_of(config).glob("pass-0/archives/*.tar"))) <= 3


@pytest.mark.slow
def test_more_processes_than_sub_volumes(inputs, single, tmp_path):
    config = configured(inputs, tmp_path)
    assert [code for code, _ in together(config, 7)] == [0] * 7
    assert files(config) == single


@pytest.mark.slow
def test_what_a_process_that_fails_leaves_is_done_by_the_others(inputs, single, tmp_path):
    config = configured(inputs, tmp_path)
    broken = start(config, 1, 3, fail="1")
    text = broken.communicate()[0]
    assert broken.returncode == 2
    assert "ffn: error: The network broke." in text
    others = [start(config, rank, 3) for rank in (0, 2)]
    assert [(process.communicate()[0], process.returncode)[1] for process in others] == [0, 0]
    assert files(config) == single


@pytest.mark.slow
def test_passes_and_their_consensus_are_shared(inputs, tmp_path):
    ours, theirs = (configured(inputs, tmp_path / name, passes=2, mirror=True) for name in ("ours", "theirs"))
    for number in ("0", "1"):
        assert [code for code, _ in together(ours, 2, "--pass", number)] == [0, 0]
        alone(theirs, "--pass", number)
    assert [code for code, _ in together(ours, 2, what="consensus")] == [0, 0]
    process = start(theirs, None, 1, what="consensus")
    assert (process.communicate()[0], process.returncode)[1] == 0
    assert files(ours) == files(theirs)
    assert "consensus/tile-0004/done.json" in files(ours)


def test_complete_folders_are_taken_in_without_the_network(inputs, single, tmp_path):
    """Of a process that was killed then, or of a version before there were archives."""
    config = configured(inputs, tmp_path)
    for name, content in single.items():
        path = infer_of(config) / Path(name).relative_to("pass-0")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    process = start(config, None, 1, fail="always")
    text = process.communicate()[0]
    assert process.returncode == 0, text
    assert "5 of 5 sub-volumes are already complete" in text
    assert files(config) == single


def test_an_imported_sub_volume_in_the_place_of_a_finished_one_is_not_removed(inputs, single, tmp_path):
    config = configured(inputs, tmp_path)
    alone(config)
    folder = infer_of(config) / "tile-0002"
    Stage(folder, {"segmentation_sha256": "of google/ffn"}).begin()
    (folder / "segmentation.h5").write_bytes(b"hours of work")
    process = start(config, None, 1)
    assert "holds results of another configuration" in process.communicate()[0]
    assert process.returncode == 2
    assert (folder / "segmentation.h5").read_bytes() == b"hours of work"


def test_what_a_lost_archive_held_is_filled_again(inputs, single, tmp_path):
    config = configured(inputs, tmp_path)
    alone(config)
    (archive,) = infer_of(config).glob("pass-0/archives/*.tar")
    os.truncate(archive, archive.stat().st_size // 2)
    text = alone(config)
    assert "sub-volumes are already complete" in text
    assert files(config) == single


def test_the_files_of_one_sub_volume(inputs, single, tmp_path):
    config = configured(inputs, tmp_path)
    alone(config)
    for output in ("one", "again"):
        command = ["tiles", "--config", str(config), "--tile", "3", "--output", str(tmp_path / output)]
        assert main(command) == 0
    assert main(command) == 2, "the folder is not empty"
    assert main([*command[:-3], "9", "--output", str(tmp_path / "none")]) == 2
    names = {Path(name).name for name in single if "tile-0003" in name}
    assert {path.name for path in (tmp_path / "one").iterdir()} == {*names, "timing.json"}
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == single[f"pass-0/tile-0003/{name}"]


def test_ranks_have_to_be_those_that_were_started(inputs, tmp_path):
    config = configured(inputs, tmp_path)
    ((code, text),) = together(config, 1, "--ranks", "4")
    assert code == 2
    assert "HOROVOD_RANK=0 and HOROVOD_SIZE=1 does not go with --ranks 4" in text
    assert "Traceback" not in text
    process = start(config, None, 1, "--ranks", "2")
    assert "nothing in the environment says which" in process.communicate()[0]
    assert not (tmp_path / "results").exists()
