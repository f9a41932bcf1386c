"""Partitions against a brute-force count."""

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ffn.cli import main
from ffn.errors import DataError, GeometryError
from ffn.prepare.partitions import (
    DEFAULT_THRESHOLDS,
    large_labels,
    partition_blocks,
    partition_labels,
    write_partitions,
)


def brute_force(labels, thresholds, radius, min_size, exclusion=None):
    """The definition, voxel by voxel."""
    sizes = dict(zip(*np.unique(labels, return_counts=True), strict=True))
    result = np.full(labels.shape, 255, np.uint8)
    valid = [range(r, n - r) for r, n in zip(radius, labels.shape, strict=True)]
    for z in valid[0]:
        for y in valid[1]:
            for x in valid[2]:
                cube = tuple(slice(c - r, c + r + 1) for c, r in zip((z, y, x), radius, strict=True))
                if exclusion is not None and exclusion[cube].any():
                    continue
                label = labels[z, y, x]
                if label == 0 or sizes[label] < min_size:
                    result[z, y, x] = 0
                    continue
                fraction = (labels[cube] == label).sum() / labels[cube].size
                above = [i for i, threshold in enumerate(thresholds) if fraction < threshold]
                result[z, y, x] = (above[0] if above else len(thresholds)) + 1
    return result


SHAPES = st.tuples(*[st.integers(3, 9)] * 3)


@st.composite
def cases(draw):
    shape = draw(SHAPES)
    labels = draw(hnp.arrays(np.uint64, shape, elements=st.sampled_from([0, 1, 2, 7, 2**40])))
    radius = tuple(draw(st.integers(0, (n - 1) // 2)) for n in shape)
    thresholds = sorted(draw(st.sets(st.sampled_from([0.1, 1 / 3, 0.5, 0.75, 1.0]), min_size=1)))
    block = draw(st.tuples(*[st.integers(1, 9)] * 3))
    masked = draw(st.booleans())
    exclusion = draw(hnp.arrays(bool, shape, elements=st.sampled_from([False] * 9 + [True]))) if masked else None
    return labels, thresholds, radius, draw(st.integers(0, 60)), block, exclusion


@given(cases())
@settings(deadline=None, max_examples=80)
def test_blocks_equal_the_definition(case):
    labels, thresholds, radius, min_size, block, exclusion = case
    try:
        kept = large_labels(labels, min_size, block)
    except DataError:
        present, sizes = np.unique(labels[labels > 0], return_counts=True)
        assert len(present) == 0 or sizes.max() < min_size
        return
    result = np.full(labels.shape, 255, np.uint8)
    for box, values in partition_blocks(labels, kept, thresholds, radius, exclusion, block):
        result[box.slices] = values
    np.testing.assert_array_equal(result, brute_force(labels, thresholds, radius, min_size, exclusion))


def two_cells() -> np.ndarray:
    labels = np.zeros((20, 24, 28), np.uint64)
    labels[:, :12, 2:] = 5
    labels[:, 12:, :] = 2**50
    labels[4:6, 4:6, 4:6] = 9
    return labels


def test_default_arguments_and_border():
    labels = two_cells()
    result = partition_labels(labels, lom_radius=(3, 4, 5), min_size=100)
    np.testing.assert_array_equal(result, brute_force(labels, DEFAULT_THRESHOLDS, (3, 4, 5), 100))
    assert (result[:3] == 255).all()
    assert (result[:, :, -5:] == 255).all()
    assert (result[4:6, 4:6, 5:6] == 0).all()


def test_small_objects_are_judged_by_the_whole_volume_not_by_the_block():
    labels = np.zeros((6, 6, 40), np.uint64)
    labels[2:4, 2:4, :] = 3
    kept = large_labels(labels, 160, block=(6, 6, 5))
    assert kept.tolist() == [3]


def test_empty_labels_and_only_dust_are_refused():
    with pytest.raises(DataError, match="empty"):
        partition_labels(np.zeros((9, 9, 9), np.uint64), lom_radius=(1, 1, 1))
    with pytest.raises(DataError, match="largest has 729"):
        partition_labels(np.ones((9, 9, 9), np.uint64), lom_radius=(1, 1, 1), min_size=1000)


def test_radius_larger_than_the_volume_is_refused():
    with pytest.raises(GeometryError, match="along y"):
        partition_labels(np.ones((9, 4, 9), np.uint64), lom_radius=(1, 2, 1), min_size=1)


def test_file_equals_array_and_says_how_it_was_made(tmp_path):
    labels = two_cells()
    counts = write_partitions(
        labels, tmp_path / "p.h5", "a/b", lom_radius=(3, 4, 5), min_size=100, voxel_size=(10.0, 8.0, 8.0)
    )
    expected = partition_labels(labels, lom_radius=(3, 4, 5), min_size=100)
    with h5py.File(tmp_path / "p.h5") as file:
        data = file["a/b"]
        np.testing.assert_array_equal(data[...], expected)
        assert data.dtype == np.uint8
        assert data.attrs["lom_radius_zyx"].tolist() == [3, 4, 5]
        assert data.attrs["min_size"] == 100
        assert data.attrs["voxel_size_nm"].tolist() == [10.0, 8.0, 8.0]
        assert dict(data.attrs["partition_counts"].tolist()) == counts
    values, voxels = np.unique(expected, return_counts=True)
    assert counts == dict(zip(values.tolist(), voxels.tolist(), strict=True))


def test_command(tmp_path, capsys):
    labels = two_cells()
    with h5py.File(tmp_path / "v.h5", "w") as file:
        file["labels"] = labels
        file["nothing"] = np.zeros_like(labels)
    output = tmp_path / "p.h5"
    command = ["partitions", "--labels", f"{tmp_path}/v.h5:labels", "--output", f"{output}:partitions"]
    command += ["--lom-radius", "3,4,5", "--min-size", "100"]
    assert main(command) == 0
    with h5py.File(output) as file:
        np.testing.assert_array_equal(
            file["partitions"][...], partition_labels(labels, lom_radius=(3, 4, 5), min_size=100)
        )
    before = output.read_bytes()
    assert main([*command, "--box", "0:20,0:24,0:20"]) == 2
    assert "other contents" in capsys.readouterr().err
    assert output.read_bytes() == before
    assert main([*command, "--box", "0:20,0:24,0:20", "--overwrite"]) == 0
    with h5py.File(output) as file:
        assert file["partitions"].shape == (20, 24, 20)


def test_command_refuses_empty_labels_without_leaving_a_file(tmp_path, capsys):
    with h5py.File(tmp_path / "v.h5", "w") as file:
        file["nothing"] = np.zeros((9, 9, 9), np.uint64)
    command = ["partitions", "--labels", f"{tmp_path}/v.h5:nothing", "--output", f"{tmp_path}/p.h5"]
    assert main([*command, "--lom-radius", "1,1,1"]) == 2
    error = capsys.readouterr().err
    assert "empty" in error
    assert "Traceback" not in error
    assert [path.name for path in tmp_path.iterdir()] == ["v.h5"]
