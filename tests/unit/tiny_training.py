"""A training run that takes seconds: a 36^3 volume of bright cells between dark membranes, and its configuration."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import forks
import h5py
import numpy as np
import pytest
import yaml
from forks import environment
from scipy import ndimage

from ffn.config import Config, parse_config

BIN = Path(sys.executable).parent

needs_horovod = pytest.mark.skipif(importlib.util.find_spec("horovod") is None, reason="needs Horovod: make setup")


def horovodrun(command: list[str], ranks: int = 2) -> list[str]:
    """The command started as this many ranks, over Gloo."""
    return [str(BIN / "horovodrun"), "--gloo", "-np", str(ranks), "-H", f"localhost:{ranks}", *command]


def write_volume(path: Path, size: int = 36, cells: int = 12, seed: int = 3) -> None:
    """HDF5 with `image` uint8 and `labels` uint64: a Voronoi tessellation with dark borders and a little noise."""
    random = np.random.default_rng(seed)
    points = random.uniform(0, size, (cells, 3))
    grid = np.moveaxis(np.indices((size, size, size)), 0, -1)
    labels = 1 + np.linalg.norm(grid[..., None, :] - points, axis=-1).argmin(axis=-1).astype(np.uint64)
    border = ndimage.maximum_filter(labels, 3) != ndimage.minimum_filter(labels, 3)
    image = np.where(border, 70, 170) + random.normal(0, 6, labels.shape)
    with h5py.File(path, "w") as file:
        file["image"] = image.clip(0, 255).astype(np.uint8)
        file["labels"] = labels
        for name in ("image", "labels"):
            file[name].attrs["voxel_size_nm"] = (10.0, 10.0, 10.0)


def settings(folder: Path, **training: Any) -> dict[str, Any]:
    """A configuration as plain values, its volume at folder/volume.h5 and its results in folder/results."""
    volume = folder / "volume.h5"
    if not volume.exists():
        write_volume(volume)
    region = {"image": f"{volume}:image", "labels": f"{volume}:labels"}
    network = {"depth": 2, "features": 4, "fov": [9, 9, 9], "deltas": [2, 2, 2], "image_stddev": 50.0}
    few = {"steps": 20, "batch": 2, "learning_rate": 5e-3, "log_every": 5, "checkpoint_every": 5}
    return {
        "run": "tiny",
        "results": str(folder / "results"),
        "seed": 5,
        "data": {"train": region, "test": region},
        "network": network,
        "prepare": {"min_size": 50},
        "training": {**few, **training},
        "threads": {"intra_op": 1},
    }


def config_of(folder: Path, **training: Any) -> Config:
    return parse_config(settings(folder, **training))


def split(folder: Path, seed: int = 5, **training: Any) -> Config:
    """Learning from the lower part of the volume, judging on the upper part."""
    values = settings(folder, **training)
    region = values["data"]["train"]
    values["data"]["train"] = {**region, "box": "0:20,0:36,0:36"}
    values["data"]["validation"] = {**region, "box": "20:36,0:36,0:36"}
    return parse_config({**values, "run": f"split-{seed}", "seed": seed})


def write_config(folder: Path, name: str = "config.yaml", **training: Any) -> Path:
    """The same as a file."""
    path = folder / name
    path.write_text(yaml.safe_dump(settings(folder, **training)))
    return path


def train_command(config: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "ffn", "train", "--config", str(config), *more]


def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
    options.setdefault("env", environment())
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, **options)


def try_training(config: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """`ffn train`, whatever comes of it."""
    return forks.ffn("train", "--config", config, *more)


def train(config: Path, *more: str) -> subprocess.CompletedProcess[str]:
    done = try_training(config, *more)
    assert done.returncode == 0, done.stderr
    return done


def train_ranks(config: Path, output: Path, ranks: int = 2) -> tuple[list[int], list[str]]:
    """`ffn train` by several ranks of Horovod over Gloo: exit code of each, and what it says (`forked_ranks.py`)."""
    arguments = ["train", "--config", str(config), "--output", str(output)]
    done = forks.run("forked_ranks:main", [{"ranks": ranks, "folder": str(output), "arguments": arguments, "acts": {}}])
    assert done.returncode == 0, done.stderr
    [end] = json.loads(done.stdout)
    return end["status"], end["text"]
