"""Processes side by side share the sub-volumes of a job: together they leave what one leaves alone."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from flooding import blobs

from ffn.geometry import Box
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


def files(config: Path) -> dict[str, bytes]:
    """Contents of all that is in the sub-volumes' folders but the times."""
    folder = config.parent / "results" / "shared" / "infer"
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.glob("tile-*/**/*"))
        if path.is_file() and path.name != "timing.json"
    }


@pytest.fixture(scope="module")
def single(inputs, tmp_path_factory) -> dict[str, bytes]:
    config = configured(inputs, tmp_path_factory.mktemp("single"))
    alone(config)
    found = files(config)
    assert len([name for name in found if name.endswith("done.json")]) == 5
    assert any(json.loads(found[f"tile-{index:04d}/origins.json"]) for index in range(5))
    return found


def test_three_processes_leave_what_one_does(inputs, single, tmp_path):
    config = configured(inputs, tmp_path)
    ended = together(config, 3)
    assert [code for code, _ in ended] == [0, 0, 0], ended
    assert files(config) == single
    first, second, third = (text for _, text in ended)
    assert [name for name in ("tile-0000", "tile-0003") if f"{name}: " in first] == ["tile-0000", "tile-0003"]
    assert ("tile-0001: " in second, "tile-0000: " in second) == (True, False)
    assert "tile-0002: " in third
    assert "voxels/s" in first, "progress"
    assert "voxels/s" not in second + third, "progress of one process only"
    jobs = config.parent / "results" / "shared" / "infer" / "jobs"
    reached = [json.loads((jobs / f"0000-0004-pass-0-rank-{rank}.json").read_text()) for rank in range(3)]
    assert [job["tiles"] for job in reached] == [2, 2, 1]
    assert sum(job["fovs"] for job in reached) == sum(
        json.loads(single[f"tile-{index:04d}/done.json"])["facts"]["fovs"] for index in range(5)
    )


@pytest.mark.slow
def test_more_processes_than_sub_volumes(inputs, single, tmp_path):
    config = configured(inputs, tmp_path)
    assert [code for code, _ in together(config, 7)] == [0] * 7
    assert files(config) == single


@pytest.mark.slow
def test_a_process_that_fails_leaves_the_others_their_results_and_the_next_start_ends_the_rest(
    inputs, single, tmp_path
):
    config = configured(inputs, tmp_path)
    ended = together(config, 3, fail="1")
    assert [code for code, _ in ended] == [0, 2, 0]
    assert "ffn: error: The network broke." in ended[1][1]
    done = {name for name in files(config) if name.endswith("done.json")}
    assert done == {f"tile-{index:04d}/done.json" for index in (0, 2, 3)}
    again = together(config, 2)  # another number of them
    assert [code for code, _ in again] == [0, 0]
    assert files(config) == single
    assert "is already complete" in again[0][1]


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
    assert "tile-0004/done.json" in files(ours)


def test_ranks_have_to_be_those_that_were_started(inputs, tmp_path):
    config = configured(inputs, tmp_path)
    ((code, text),) = together(config, 1, "--ranks", "4")
    assert code == 2
    assert "HOROVOD_RANK=0 and HOROVOD_SIZE=1 does not go with --ranks 4" in text
    assert "Traceback" not in text
    process = start(config, None, 1, "--ranks", "2")
    assert "nothing in the environment says which" in process.communicate()[0]
    assert not (tmp_path / "results").exists()
