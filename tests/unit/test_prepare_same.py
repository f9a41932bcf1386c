"""Volumes up to 10^9 voxels: the files are those of the version before the engine, byte for byte."""

import hashlib
import json
from pathlib import Path

import h5py
import numpy as np
import pytest

from ffn.config import Config, parse_config
from ffn.geometry import Box
from ffn.prepare.centres import Centres
from ffn.prepare.coordinates import write_coordinates
from ffn.prepare.partitions import write_partitions
from ffn.prepare.run import prepare_training
from ffn.prepare.seeds import peak_seeds, write_seeds
from ffn.prepare.volume import Limits
from ffn.volumes import open_image, open_labels, open_volume

BEFORE = {
    "coordinates.h5": "3d6e22e7ebde40c9363a3664720d8190bf0e22574e6d787edee6d79efbdc2da7",
    "done.json": "68d255a8894eb7c64ca39ddd2f7886d9d9b7c073cc722eba91758d1f38a70947",
    "partitions.h5": "81461025ad663eb090141fa3398d35a21463ceba7e2588523f9bf5ceef47dcdf",
    "seeds.csv": "dba2e41960c397bd308d1bdce6e0fcbe42873fcdff24d74762fa832f4b9d5479",
    "started.json": "bab856341e4f8a24df4e740e19389a3d46a144d6337ee31bd169467f4d9edb1a",
    "validation/coordinates.h5": "5f1b58631a030e1a3b3bde0a634d71a2d205c91ef617d523bacd0eff802a17d1",
    "validation/partitions.h5": "9a1b3b586544b098c7319a74dbebbc9117056bdbe1fbbf599244fac1dcf1278e",
}
"""SHA-256 of the files (of HDF5: of data sets and attributes) that one process made of `config_in` in one go."""


def write_volume(path: Path, shape: tuple[int, int, int]) -> None:
    """Rounded cells on a grid, some of them unknown, with dark gaps; the same with every version of NumPy."""
    z, y, x = (axis.astype(np.int64) for axis in np.indices(shape))
    cell = (z // 14) * 64 + (y // 17) * 8 + x // 15 + 1
    border = (z % 14 < 2) | (y % 17 < 2) | (x % 15 < 2)
    noise = (z * 7919 + y * 104_729 + x * 1_299_709) * 2_654_435_761 % 2**32 >> 28
    with h5py.File(path, "w") as file:
        file["labels"] = np.where(cell % 5 == 0, 0, cell % 23 + 1).astype(np.uint64)
        file["image"] = (np.where(border, 70, 160) + noise).astype(np.uint8)
        for name in ("image", "labels"):
            file[name].attrs["voxel_size_nm"] = (20.0, 10.0, 10.0)


def config_in(folder: Path, **changes: object) -> Config:
    region = {"image": "volume.h5:image", "labels": "volume.h5:labels"}
    values = {
        "run": "same",
        "seed": 3,
        "data": {
            "train": {**region, "box": "0:40,0:50,0:46"},
            "validation": {**region, "box": "40:60,0:50,0:46"},
            "test": region,
        },
        "network": {"fov": [7, 9, 9], "deltas": [1, 2, 2]},
        "prepare": {"min_size": 3000, "min_boundary_nm": 15.0},
        **changes,
    }
    return parse_config({**values, "results": "results"})


def digests(prepare: Path) -> dict[str, str]:
    return {
        str(path.relative_to(prepare)): hashlib.sha256(_content(path)).hexdigest()
        for path in sorted(prepare.rglob("*"))
        if path.is_file()
    }


def _content(path: Path) -> bytes:
    """The bytes of a file; of HDF5, those that do not depend on the version of the library."""
    if path.suffix != ".h5":
        return path.read_bytes()
    with h5py.File(path) as file:
        parts = [json.dumps(_attributes(file)).encode()]
        for name, data in file.items():
            parts += [name.encode(), str(data.dtype).encode(), json.dumps(_attributes(data)).encode()]
            parts.append(data[...].tobytes())
    return b"".join(parts)


def _attributes(item: h5py.File | h5py.Dataset) -> dict[str, object]:
    return {name: np.asarray(value).tolist() for name, value in sorted(item.attrs.items())}


def test_files_are_those_of_one_process_in_one_go(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_volume(Path("volume.h5"), (60, 50, 46))
    prepare_training(config_in(tmp_path))
    assert digests(Path("results/same/prepare")) == BEFORE


@pytest.mark.parametrize(("block", "workers"), [((17, 23, 13), 2), ((12, 12, 12), 1)])
def test_blocks_and_processes_do_not_matter(tmp_path, monkeypatch, block, workers):
    monkeypatch.chdir(tmp_path)
    write_volume(Path("volume.h5"), (60, 50, 46))
    prepare_training(config_in(tmp_path), workers=workers, limits=Limits(block=block))
    assert digests(Path("results/same/prepare")) == BEFORE


@pytest.mark.slow
def test_bytes_of_several_blocks_are_those_of_the_single_commands(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_volume(Path("volume.h5"), (150, 140, 130))
    region = {"image": "volume.h5:image", "labels": "volume.h5:labels"}
    config = config_in(tmp_path, data={"train": region, "test": region})
    prepare_training(config, workers=2)
    labels, radius = open_labels("volume.h5:labels"), (4, 6, 6)
    write_partitions(labels, Path("p.h5"), "partitions", config.prepare.thresholds, radius, 3000, labels.voxel_size)
    partitions = open_volume("p.h5:partitions")
    centres = Centres(partitions, labels, 15.0, (20.0, 10.0, 10.0), zero_is_unknown=True)
    write_coordinates(centres, Path("c.h5"), radius, 3, centres.left_out)
    grey = open_image("volume.h5:image").read(Box.of_shape(labels.shape)).astype(np.float32)
    write_seeds(Path("s.csv"), peak_seeds((grey - np.float32(128)) / np.float32(33), (7, 9, 9), (20.0, 10.0, 10.0)))
    made = Path("results/same/prepare")
    for name, alone in (("partitions.h5", "p.h5"), ("coordinates.h5", "c.h5"), ("seeds.csv", "s.csv")):
        assert (made / name).read_bytes() == Path(alone).read_bytes(), name
