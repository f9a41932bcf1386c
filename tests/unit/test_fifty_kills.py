"""Inference and assembly of a whole run, killed again and again at random, end in the files of an undisturbed run."""

import json
import shutil
import signal
from pathlib import Path

import forks
import numpy as np
import pytest
import yaml
from flooding import blobs
from tiled import kept_files

from ffn.geometry import Box
from ffn.volumes import create_hdf5

LOADED = ("ffn.assembly.passes", "ffn.assembly.run", "ffn.inference.tiles")
SHAPE = (40, 42, 44)
KILLS = 50
LONGEST = 90
"""Events until a kill, at most; a run has a few hundred."""


def run(folder: Path, count: int) -> int:
    ended = forks.run("killed_run:main", "config.yaml", str(count), loaded=LOADED, folder=folder)
    assert ended.returncode in (0, -signal.SIGKILL), ended.stderr
    return ended.returncode


def contents(folder: Path) -> dict[str, bytes]:
    """The files of all finished sub-volumes, and of the assembly."""
    run = folder / "results" / "killed"
    assert not list(run.glob("infer/tile-*")), "folders of unfinished sub-volumes"
    files = sorted(path for path in (run / "assemble").rglob("*") if path.is_file())
    return {**kept_files(run / "infer"), **{str(path.relative_to(run)): path.read_bytes() for path in files}}


def assert_nothing_was_done_twice(folder: Path) -> None:
    """No sub-volume is in a ledger more than once: what a process noted before its kill is kept."""
    for stage in (folder / "results" / "killed" / "infer").glob("*/ledger"):
        lines = [line for path in stage.glob("*/*.jsonl") for line in path.read_text().splitlines()[1:]]
        noted = [json.loads(line)["unit"] for line in lines]
        assert sorted(noted) == list(range(4)), stage


@pytest.fixture(params=[1, 2], ids=["one-pass", "two-passes"])
def folders(tmp_path, request):
    """Two folders with the same image, weights and configuration."""
    config = {
        "run": "killed",
        "data": {"test": {"image": "image.h5:image"}, "voxel_size": [10, 10, 10]},
        "network": {"depth": 2, "features": 2, "fov": [9, 9, 9], "deltas": [2, 2, 2]},
        "inference": {
            **{"checkpoint": "model.ckpt", "min_segment_size": 60, "checkpoint_every_s": 1e-9, "concurrent": 3},
            **{"subvolume_size": [26, 42, 28], "subvolume_overlap": [12, 12, 12], "passes": request.param},
        },
        "assembly": {"workers": 2, "block": [16, 32, 32], "disconnected": "split", "min_overlap_voxels": 20},
    }
    for name in ("undisturbed", "killed"):
        folder = tmp_path / name
        folder.mkdir()
        with create_hdf5(folder / "image.h5", "image", SHAPE, np.uint8, (10.0, 10.0, 10.0)) as volume:
            volume.write(Box.of_shape(SHAPE), np.clip(128 + 33 * blobs(2, SHAPE), 0, 255).astype(np.uint8))
        for suffix in (".index", ".data-00000-of-00001"):
            (folder / f"model.ckpt{suffix}").write_bytes(suffix.encode())
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return tmp_path / "undisturbed", tmp_path / "killed"


@pytest.mark.slow
def test_fifty_kills(folders):
    undisturbed, killed = folders
    assert run(undisturbed, 0) == 0
    expected = contents(undisturbed)
    folders_of_sub_volumes = {name.split("/")[0] for name in expected if "tile-" in name}
    assert sum(name.endswith("done.json") for name in expected) == 4 * len(folders_of_sub_volumes) + 1
    rng, kills, finished = np.random.default_rng(1), 0, 0
    while kills < KILLS:
        if run(killed, int(rng.integers(1, LONGEST))) == 0:
            assert contents(killed) == expected
            assert_nothing_was_done_twice(killed)
            shutil.rmtree(killed / "results")
            finished += 1
        else:
            kills += 1
    while run(killed, 0) != 0:
        pass
    assert contents(killed) == expected
    assert_nothing_was_done_twice(killed)
    assert finished > 0
