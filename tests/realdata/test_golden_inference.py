"""The released network on real EM: the numbers of the reference implementation."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from flooding import literal_flood

from ffn.cli import main
from ffn.geometry import Box
from ffn.volumes import open_volume

ROOT = Path(__file__).parents[2]
BOX = "0:40,0:48,170:250"
CONFIG = {
    "run": "golden",
    "data": {"test": {"image": "unused"}, "voxel_size": [10, 10, 10]},
    "network": {"depth": 12, "features": 32, "fov": [33, 33, 33], "deltas": [8, 8, 8]},
    "inference": {
        "checkpoint": "unused",
        "segment_threshold": 0.6,
        "min_segment_size": 1000,
        "checkpoint_every_s": 1e-9,
    },
}


@pytest.fixture(scope="module")
def golden(data_dir):
    return json.loads((data_dir / "ffn_released" / "golden.json").read_text())


@pytest.fixture(scope="module")
def image(data_dir):
    return str(data_dir / "neuroproof_examples" / "training_sample2" / "grayscale_maps")


@pytest.fixture(scope="module")
def checkpoint(data_dir):
    return data_dir / "ffn_released" / "model.ckpt-27465036"


@pytest.fixture(scope="module")
def command(tmp_path_factory, image, checkpoint):
    """The command line up to `--output`."""
    config = tmp_path_factory.mktemp("config") / "config.yaml"
    config.write_text(yaml.safe_dump(CONFIG))
    line = ["infer", "--config", str(config), "--image", image, "--checkpoint", str(checkpoint), "--box", BOX]
    return [*line, "--output"]


@pytest.fixture(scope="module")
def segmented(tmp_path_factory, command):
    output = tmp_path_factory.mktemp("golden") / "crop"
    assert main([*command, str(output)]) == 0
    return output


def test_single_field_of_view(golden, image, checkpoint):
    from ffn.config import parse_config
    from ffn.inference.executor import load_executor
    from ffn.model.logits import logit

    expected = golden["single_fov"]
    executor = load_executor(parse_config(CONFIG).network, checkpoint)
    with open_volume(image) as volume:
        grey = volume.read(Box.centred(expected["center_zyx"], (33, 33, 33)))
    object_map = np.full((33, 33, 33), logit(0.05), np.float32)
    object_map[16, 16, 16] = logit(0.95)
    out = executor((grey.astype(np.float32) - np.float32(128)) / np.float32(33), object_map)
    found = {
        "out_center": out[16, 16, 16],
        "out_mean": out.mean(),
        "out_std": out.std(),
        "out_min": out.min(),
        "out_000": out[0, 0, 0],
        "out_32_32_32": out[32, 32, 32],
        "out_8_16_24": out[8, 16, 24],
    }
    assert found == pytest.approx({key: expected[key] for key in found}, abs=1e-4)
    assert (out >= logit(0.6)).sum() == expected["n_ge_logit06"]
    assert (out >= logit(0.9)).sum() == expected["n_ge_logit09"]
    zero = executor(np.zeros((33, 33, 33), np.float32), object_map)
    expected = golden["zero_image_fov"]
    assert zero[16, 16, 16] == pytest.approx(expected["out_center"], abs=1e-4)
    assert zero.mean() == pytest.approx(expected["out_mean"], abs=1e-4)


def test_crop(golden, segmented):
    expected = golden["small_crop_run"]
    origins = json.loads((segmented / "origins.json").read_text())
    assert [(r["id"], r["seed_zyx"], r["fovs"], r["voxels"]) for r in origins] == [
        (s["id"], s["seed_zyx"], s["iters"], s["size"]) for s in expected["segments"]
    ]
    assert json.loads((segmented / "overlaps.json").read_text()) == expected["overlaps"]
    counters = json.loads((segmented / "counters.json").read_text())
    assert counters["seeds"] == expected["seeds"]
    assert counters["skip_invalid_pos"] == expected["skip_invalid_pos"]
    assert counters["voxels_overlapping"] == expected["voxels_overlapping"]
    with open_volume(f"{segmented / 'segmentation.h5'}:labels") as volume:
        labels = volume[...]
    assert labels.shape == (40, 48, 80)
    assert np.bincount(labels.ravel().astype(int)).tolist() == [
        expected["background"],
        *(segment["size"] for segment in expected["segments"]),
    ]


@pytest.mark.slow
def test_another_crop_against_the_literal_algorithm(image, checkpoint, tmp_path):
    """Voxel by voxel, where golden.json has no numbers."""
    from ffn.config import parse_config
    from ffn.inference.executor import load_executor
    from ffn.inference.options import FloodOptions
    from ffn.inference.subvolume import run_tile
    from ffn.inference.tile import Tile
    from ffn.prepare.seeds import peak_seeds

    box, config = Box.parse("56:112,140:204,20:84"), parse_config(CONFIG)
    run_tile(config, Tile(image, checkpoint, box, tmp_path / "crop"))
    with open_volume(image) as volume:
        grey = (volume.read(box).astype(np.float32) - np.float32(128)) / np.float32(33)
    network = load_executor(config.network, checkpoint)
    seeds = peak_seeds(grey, config.network.fov, (10, 10, 10))
    options = FloodOptions.of(config.network, config.inference)
    expected, origins, *_ = literal_flood(grey, seeds, options, network)
    with open_volume(f"{tmp_path / 'crop' / 'segmentation.h5'}:labels") as volume:
        np.testing.assert_array_equal(volume[...], expected)
    found = json.loads((tmp_path / "crop" / "origins.json").read_text())
    assert [(r["id"], tuple(r["seed_zyx"]), r["fovs"], r["voxels"]) for r in found] == origins
    assert len(origins) > 1
    assert sum(fovs for _, _, fovs, _ in origins) > 30


KILLED = """
import os, signal, sys
from ffn.cli import main
from ffn.inference.executor import Executor
start, calls = Executor.start, []
def killed(self, looks):
    calls.append(1)
    if len(calls) == 8:
        os.kill(os.getpid(), signal.SIGKILL)
    return start(self, looks)
Executor.start = killed
main(sys.argv[1:])
"""


@pytest.mark.slow
def test_killed_in_the_middle_of_a_segment(tmp_path, command, segmented):
    output = tmp_path / "killed"
    line = [*command, str(output)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    killed = subprocess.run([sys.executable, "-c", KILLED, *line], capture_output=True, check=False, env=environment)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    again = subprocess.run(
        [sys.executable, "-m", "ffn", *line], capture_output=True, check=True, text=True, env=environment
    )
    assert "7 FOVs done" in again.stderr
    for path in segmented.iterdir():
        if path.name != "timing.json":
            assert (output / path.name).read_bytes() == path.read_bytes(), path.name


def test_another_architecture(tmp_path, image, checkpoint, capsys):
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump({**CONFIG, "network": {**CONFIG["network"], "depth": 9}}))
    output = tmp_path / "out"
    arguments = ["--image", image, "--checkpoint", str(checkpoint), "--box", BOX, "--output", str(output)]
    assert main(["infer", "--config", str(config), *arguments]) == 2
    error = capsys.readouterr().err
    assert "is of another architecture: layer conv" in error
    assert "Traceback" not in error
    assert not output.exists()
