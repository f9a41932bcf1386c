"""Memory of `ffn prepare` does not grow with a volume that is sampled."""

import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import yaml

from ffn.geometry import Box, blocks

_PREPARE = """
import re, sys
from pathlib import Path
from ffn.config import load_config
from ffn.prepare.run import prepare_training
from ffn.prepare.volume import Limits

limits = Limits(
    listed=1000, per_class=10_000, block=(64,) * 3, shard=(64,) * 3, tile=(96,) * 3, overlap=(16,) * 3
)
prepare_training(load_config(Path(sys.argv[1])), workers=1, limits=limits)
print(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
"""


def write_volume(path: Path, size: int) -> int:
    """Cells of 32^3 voxels, written block by block; returns the bytes of image and labels."""
    with h5py.File(path, "w") as file:
        image = file.create_dataset("image", (size,) * 3, np.uint8, chunks=(32,) * 3)
        labels = file.create_dataset("labels", (size,) * 3, np.uint64, chunks=(32,) * 3, compression="gzip")
        for box in blocks(Box.of_shape((size,) * 3), (64, 64, 64)):
            z, y, x = np.ix_(*(np.arange(a, b) for a, b in zip(box.start, box.stop, strict=True)))
            labels[box.slices] = (z // 32 * 1000 + y // 32) * 1000 + x // 32 + 1
            image[box.slices] = np.where((z % 32 < 2) | (y % 32 < 2) | (x % 32 < 2), 70, 160 + (z + y + x) % 7)
        for data in (image, labels):
            data.attrs["voxel_size_nm"] = (10.0, 10.0, 10.0)
        return int(image.nbytes + labels.nbytes)


def peak(folder: Path, size: int) -> tuple[int, int]:
    """Largest resident set of a preparation, and the bytes of its volume."""
    volume = folder / f"{size}.h5"
    there = write_volume(volume, size)
    region = {"image": f"{volume}:image", "labels": f"{volume}:labels"}
    values = {
        "run": f"of-{size}",
        "results": str(folder / "results"),
        "data": {"train": region, "test": region},
        "network": {"fov": [9, 9, 9], "deltas": [2, 2, 2]},
        "prepare": {"min_boundary_nm": 20.0},
    }
    config = folder / f"{size}.yaml"
    config.write_text(yaml.safe_dump(values))
    variables = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", _PREPARE, str(config)], check=True, stdout=subprocess.PIPE, text=True, env=variables
    )
    return int(done.stdout) * 1024, there


@pytest.mark.slow
def test_a_volume_that_does_not_fit_takes_no_more_memory(tmp_path):
    small, _ = peak(tmp_path, 96)
    large, there = peak(tmp_path, 256)
    assert there > 140e6
    assert large < small + 40e6
