"""Layers in shards, read back by cloud-volume and tensorstore, against levels made in plain NumPy."""

import json
import multiprocessing
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import tensorstore as ts
from cloudvolume import CloudVolume
from test_pooling import reference

from ffn.errors import StageError, VolumeError
from ffn.export import shards
from ffn.export.downsample import levels
from ffn.export.layer import Kind, LayerSpec, create_layer, stored_type
from ffn.export.shards import chunk_number, files_of, regions, tiers
from ffn.export.unit import remove_unfinished, write_unit
from ffn.geometry import ZYX, Box
from ffn.volumes import VoxelSize, create_hdf5, open_volume

CASES: list[tuple[ZYX, ZYX, VoxelSize, ZYX, int]] = [
    # start, shape, nanometres, chunk, mips
    ((0, 0, 0), (32, 32, 32), (8, 8, 8), (4, 4, 4), 3),
    ((5, 7, 11), (32, 32, 32), (8, 8, 8), (4, 4, 4), 3),  # all levels begin inside a voxel of the next
    ((7, 0, 3), (17, 33, 20), (8, 8, 8), (4, 4, 4), 4),
    ((1, 1, 1), (10, 40, 21), (40, 8, 8), (2, 4, 4), 4),  # long voxels become cubes first
    ((3, 2, 1), (9, 45, 17), (8, 8, 8), (4, 8, 2), 2),  # flat
    ((2, 3, 5), (25, 25, 25), (8, 8, 8), (64, 64, 64), 2),  # one chunk
    ((0, 0, 0), (1, 1, 1), (8, 8, 8), (4, 4, 4), 2),
]


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many units also of small volumes."""
    monkeypatch.setattr(shards, "_EDGES", ((1 << 10, 8),))
    monkeypatch.setattr(shards, "_LARGEST_EDGE", 16)


def values_of(shape: ZYX, dtype: str) -> np.ndarray:
    """Blobs of labels with empty space between them, or noise."""
    generator = np.random.default_rng(3)
    if dtype != "uint64":
        return (generator.random(shape) * 250).astype(dtype)
    blocks = generator.integers(0, 5, [n // 3 + 1 for n in shape]).astype(np.uint64) * np.uint64(2**61)
    return np.kron(blocks, np.ones((3, 3, 3), np.uint64))[: shape[0], : shape[1], : shape[2]]


def stored(path: Path, values: np.ndarray) -> str:
    with create_hdf5(path, "data", values.shape, values.dtype, None) as volume:
        volume.write(Box.of_shape(values.shape), values)
    return f"{path}:data"


def expected_levels(values: np.ndarray, spec: LayerSpec) -> list[np.ndarray]:
    """All levels, each from the whole one before: a voxel takes those of its voxels that exist."""
    found = [values]
    for before, level in zip(spec.pyramid, spec.pyramid[1:], strict=False):
        missing = [
            (a - b * s, e * s - f)
            for a, b, f, e, s in zip(
                before.box.start, level.box.start, before.box.stop, level.box.stop, level.step, strict=True
            )
        ]
        found.append(reference(np.pad(found[-1], missing, mode="edge"), level.step, spec.kind == "segmentation"))
    return found


def units(spec: LayerSpec) -> list[list[tuple[int, int]]]:
    """Tier and number of all units, tier by tier."""
    return [[(tier, unit) for unit in range(len(spec.tiers[tier]))] for tier in range(len(spec.tiers))]


def write(folder: Path, spec: LayerSpec, uri: str, some: Sequence[tuple[int, int]]) -> dict[str, int]:
    files: dict[str, int] = {}
    with open_volume(uri) as volume:
        for tier, unit in some:
            files |= write_unit(folder, spec, spec.tiers[tier], unit, volume)
    return files


def assert_layer_holds(folder: Path, spec: LayerSpec, values: np.ndarray) -> None:
    for number, expected in enumerate(expected_levels(values, spec)):
        x, y, z = ((a, b) for a, b in zip(*(reversed(part) for part in _ends(spec, number)), strict=True))
        cloud = CloudVolume(f"precomputed://file://{folder}", mip=number, progress=False, fill_missing=True)
        found = np.asarray(cloud[slice(*x), slice(*y), slice(*z)])[..., 0].T
        array = ts.open(
            {"driver": "neuroglancer_precomputed", "kvstore": f"file://{folder}/", "scale_index": number}
        ).result()
        for read in (found, array[..., 0].read().result().T):
            assert read.dtype == values.dtype
            np.testing.assert_allclose(read, expected, rtol=1e-6, err_msg=f"level {number}")


def _ends(spec: LayerSpec, number: int) -> tuple[ZYX, ZYX]:
    box = spec.pyramid[number].box
    return box.start, box.stop


@pytest.mark.parametrize(("kind", "dtype"), [("segmentation", "uint64"), ("image", "uint8"), ("image", "float32")])
@pytest.mark.parametrize("case", CASES, ids=[f"{case[0]}+{case[1]}" for case in CASES])
def test_every_level_reads_back_in_both_libraries(
    tmp_path: Path, case: tuple[ZYX, ZYX, VoxelSize, ZYX, int], kind: Kind, dtype: str
) -> None:
    start, shape, voxel_size, chunk, mips = case
    values = values_of(shape, dtype)
    box = Box.of_shape(shape).shifted(start)
    spec = LayerSpec.of("layer", kind, dtype, box, voxel_size, chunk, mips)
    folder, uri = tmp_path / "layer", stored(tmp_path / "v.h5", values)
    create_layer(folder, spec)
    files: dict[str, int] = {}
    for tier in units(spec):
        files |= write(folder, spec, uri, random.Random(1).sample(tier, len(tier)))
    assert_layer_holds(folder, spec, values)
    assert {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} == {"info", *files}
    assert all((folder / name).stat().st_size == size for name, size in files.items())


def test_units_done_twice_and_by_two_processes_at_once_leave_the_same_files(tmp_path: Path) -> None:
    values = values_of((32, 32, 32), "uint64")
    spec = LayerSpec.of("l", "segmentation", "uint64", Box((5, 7, 11), (37, 39, 43)), (8, 8, 8), (4, 4, 4), 3)
    uri = stored(tmp_path / "v.h5", values)
    for name in ("once", "twice"):
        create_layer(tmp_path / name, spec)
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        for tier in units(spec):
            write(tmp_path / "once", spec, uri, tier)
            pool.starmap(write, [(tmp_path / "twice", spec, uri, order) for order in (tier, tier[::-1])], chunksize=1)
    files = {path.relative_to(tmp_path / "once"): path.read_bytes() for path in (tmp_path / "once").rglob("*.shard")}
    assert len(files) > 8
    assert {
        path.relative_to(tmp_path / "twice"): path.read_bytes() for path in (tmp_path / "twice").rglob("*.shard")
    } == files
    assert_layer_holds(tmp_path / "twice", spec, values)


def test_a_damaged_shard_is_replaced_whole(tmp_path: Path) -> None:
    values = values_of((32, 32, 32), "uint64")
    spec = LayerSpec.of("l", "segmentation", "uint64", Box.of_shape((32, 32, 32)), (8, 8, 8), (8, 8, 8), 0)
    uri = stored(tmp_path / "v.h5", values)
    create_layer(tmp_path / "l", spec)
    (every,) = units(spec)
    write(tmp_path / "l", spec, uri, every)
    for shard in (tmp_path / "l").rglob("*.shard"):
        shard.write_bytes(shard.read_bytes()[:40])
    write(tmp_path / "l", spec, uri, every)
    assert_layer_holds(tmp_path / "l", spec, values)


def test_boxes_of_nothing_have_no_file(tmp_path: Path) -> None:
    values = np.zeros((32, 32, 64), np.uint64)
    values[3, 3, 3] = 7
    spec = LayerSpec.of("l", "segmentation", "uint64", Box.of_shape(values.shape), (8, 8, 8), (8, 8, 8), 0)
    create_layer(tmp_path / "l", spec)
    files = write(tmp_path / "l", spec, stored(tmp_path / "v.h5", values), units(spec)[0])
    assert list(files) == ["8_8_8/0.shard"]
    assert_layer_holds(tmp_path / "l", spec, values)


@pytest.mark.parametrize("case", CASES, ids=[f"{case[0]}+{case[1]}" for case in CASES])
def test_each_voxel_of_each_level_is_written_by_one_unit(case: tuple[ZYX, ZYX, VoxelSize, ZYX, int]) -> None:
    start, shape, voxel_size, chunk, mips = case
    pyramid = levels(Box.of_shape(shape).shifted(start), voxel_size, mips)
    shardings, made = tiers(pyramid, chunk)
    assert [number for tier in made for number in tier.levels] == list(range(mips + 1))
    for tier in made:
        written = [regions(pyramid, tier, unit).written for unit in range(len(tier))]
        for number in tier.levels:
            level = pyramid[number]
            times = np.zeros(level.box.shape, np.uint8)
            for box in (boxes[number] for boxes in written if number in boxes):
                times[box.relative_to(level.box.start).slices] += 1
                # Whole shards: a box begins and ends where shards do.
                for a, b, origin, end, size in zip(
                    box.start, box.stop, level.box.start, level.box.stop, shardings[number].box, strict=True
                ):
                    assert (a - origin) % size == 0
                    assert (b - origin) % size == 0 or b == end
            assert times.min() == times.max() == 1


def test_a_huge_layer_has_few_files_and_bounded_units(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    pyramid = levels(Box.of_shape((10_000, 10_000, 10_000)), (8, 8, 8), 3)
    shardings, made = tiers(pyramid, (64, 64, 64))
    assert sum(files_of(level, sharding) for level, sharding in zip(pyramid, shardings, strict=True)) == 4_000
    assert [(tier.levels, tier.box, len(tier)) for tier in made] == [(range(4), (1024, 1024, 1024), 1000)]
    small = tiers(levels(Box.of_shape((160, 160, 160)), (8, 8, 8), 3), (64, 64, 64))
    assert len(small[1]) == 1
    assert len(small[1][0]) == 1


def test_chunks_are_numbered_as_published() -> None:
    # Without an axis' bits once its places are used up: x has 3 bits, y 1, z 2.
    assert chunk_number((0, 0, 1), (4, 2, 8)) == 0b1
    assert chunk_number((0, 1, 0), (4, 2, 8)) == 0b10
    assert chunk_number((1, 0, 0), (4, 2, 8)) == 0b100
    assert chunk_number((0, 0, 2), (4, 2, 8)) == 0b1000
    assert chunk_number((2, 0, 0), (4, 2, 8)) == 0b10000
    assert chunk_number((3, 1, 7), (4, 2, 8)) == 0b111111
    # Five places take three bits, one place none.
    assert chunk_number((0, 0, 4), (1, 1, 5)) == 0b100


def test_info_of_another_layer_is_refused(tmp_path: Path) -> None:
    box = Box.of_shape((32, 32, 32))
    spec = LayerSpec.of("l", "segmentation", "uint64", box, (8, 8, 8), (8, 8, 8), 1)
    create_layer(tmp_path / "l", spec)
    before = (tmp_path / "l" / "info").read_text()
    create_layer(tmp_path / "l", spec)
    with pytest.raises(StageError, match="another kind, place, size or chunk"):
        create_layer(tmp_path / "l", LayerSpec.of("l", "segmentation", "uint64", box, (8, 8, 8), (16, 8, 8), 1))
    assert (tmp_path / "l" / "info").read_text() == before
    assert json.loads(before)["scales"][0]["sharding"]["data_encoding"] == "gzip"


def test_negative_labels_are_refused_and_leave_nothing(tmp_path: Path) -> None:
    uri = stored(tmp_path / "v.h5", np.full((8, 8, 8), -3, np.int32))
    spec = LayerSpec.of("l", "segmentation", "uint64", Box.of_shape((8, 8, 8)), (8, 8, 8), (8, 8, 8), 1)
    create_layer(tmp_path / "l", spec)
    with pytest.raises(VolumeError, match="negative label -3"):
        write(tmp_path / "l", spec, uri, units(spec)[0])
    assert [path.name for path in (tmp_path / "l").iterdir()] == ["info"]


def test_what_a_killed_writer_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / "l" / "0123.partial" / "8_8_8").mkdir(parents=True)
    (tmp_path / "l" / "info").write_text("{}")
    remove_unfinished(tmp_path / "l")
    assert [path.name for path in (tmp_path / "l").iterdir()] == ["info"]


def test_image_type_that_no_layer_holds(tmp_path: Path) -> None:
    with pytest.raises(VolumeError, match="float64"):
        stored_type(open_volume(stored(tmp_path / "d.h5", np.zeros((4, 4, 4)))), "image")
