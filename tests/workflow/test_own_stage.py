"""The blockwise stage that CONTRIBUTING shows is whole and works as it is, by hand, in parts and as a rule."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from ffn.geometry import Box
from ffn.volumes import create_hdf5, open_volume

ROOT = Path(__file__).resolve().parents[2]


def example(language: str) -> str:
    (code,) = re.findall(rf"```{language}\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL)
    return code


@pytest.fixture
def folder(tmp_path):
    """The example, a volume of 130 x 70 x 60 voxels, and a configuration."""
    image = np.random.default_rng(0).integers(0, 256, (130, 70, 60)).astype(np.uint8)
    with create_hdf5(tmp_path / "image.h5", "image", image.shape, np.uint8, (8.0, 8.0, 8.0)) as volume:
        volume.write(Box.of_shape(image.shape), image)
    for suffix in (".index", ".data-00000-of-00001"):
        (tmp_path / f"model.ckpt{suffix}").touch()
    config = {
        "run": "own",
        "data": {"test": {"image": "image.h5:image", "box": "1:130,0:70,0:60"}, "voxel_size": [8, 8, 8]},
        "network": {"depth": 2, "features": 2, "fov": [9, 9, 9], "deltas": [2, 2, 2]},
        "inference": {"checkpoint": "model.ckpt"},
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    (tmp_path / "invert.py").write_text(example("python"))
    return tmp_path, 255 - image[1:]


def run(folder: Path, *words: str) -> str:
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{folder}"}
    done = subprocess.run([sys.executable, "-m", *words], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def made(folder: Path) -> np.ndarray:
    with open_volume(f"{folder}/results/own/invert/inverted.zarr") as volume:
        assert volume.voxel_size == (8, 8, 8)
        return volume[...]


def test_it_is_short():
    assert len(example("python").splitlines() + example("snakemake").splitlines()) < 40


@pytest.mark.slow
def test_by_hand_and_in_parts(folder):
    path, expected = folder
    for part in ("1/2", "2/2"):
        run(path, "ffn", "stage", "invert:stage", "--config", "config.yaml", "--step", "invert", "--part", part)
    np.testing.assert_array_equal(made(path), expected)
    assert "is already complete" in run(path, "ffn", "stage", "invert:stage", "--config", "config.yaml")


@pytest.mark.slow
def test_as_a_rule(folder):
    path, expected = folder
    (path / "Snakefile").write_text(f'include: "{ROOT}/Snakefile"\n\n{example("snakemake")}')
    run(path, "snakemake", "--cores", "1", "--configfile", "config.yaml", "--", "results/own/invert/done.json")
    np.testing.assert_array_equal(made(path), expected)
