"""Edges and seeds on volumes small enough to reason about."""

import itertools
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from scipy import ndimage

from ffn.cli import main
from ffn.prepare.edges import edge_mask, sobel_magnitude
from ffn.prepare.seeds import distance_to_edges, peak_seeds, peaks, write_seeds


def blobs(shape: tuple[int, int, int], seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).standard_normal(shape)
    smooth = ndimage.gaussian_filter(noise, 3)
    return (128 + 33 * np.tanh(40 * smooth)).astype(np.uint8)


def reference_peaks(image: np.ndarray, voxel_size=(1.0, 1.0, 1.0), exclusion=None) -> np.ndarray:
    """The definition, with whole-volume operations and scipy's exact distance transform."""
    image = image.astype(np.float32)
    gradient = np.sqrt(sum(ndimage.sobel(image, axis=axis) ** 2 for axis in range(3)))
    is_edge = gradient > ndimage.gaussian_filter(gradient, 49 / 6)
    if exclusion is not None:
        is_edge |= exclusion
    distance = ndimage.distance_transform_edt(~is_edge, sampling=voxel_size).astype(np.float32)
    if exclusion is not None:
        distance[exclusion] = -1
    response = distance + np.random.RandomState(42).rand(*image.shape) * 1e-4
    is_peak = (response == ndimage.maximum_filter(response, size=7)) & (response > 0)
    for axis in range(3):
        np.moveaxis(is_peak, axis, 0)[:3] = False
        np.moveaxis(is_peak, axis, 0)[-3:] = False
    return np.argwhere(is_peak)


def test_sobel_of_a_ramp_is_its_slope_times_the_kernel_weight():
    ramp = np.broadcast_to(np.arange(9, dtype=np.float32) * 2, (7, 8, 9))
    np.testing.assert_allclose(sobel_magnitude(ramp)[3, 4, 2:-2], 2 * 2 * 16)


def test_edges_lie_at_a_step():
    image = np.zeros((20, 20, 40), np.float32)
    image[..., 20:] = 100
    found = np.flatnonzero(edge_mask(image)[10, 10])
    assert found.tolist() == [19, 20]


@pytest.mark.parametrize("shape", [(70, 30, 40), (33, 21, 20), (38, 12, 9)])
def test_peaks_equal_the_definition_across_slabs(shape):
    image = blobs(shape)
    np.testing.assert_array_equal(peaks(image), reference_peaks(image))


def test_peaks_follow_the_voxel_size():
    image = blobs((40, 40, 40), seed=1)
    anisotropic = peaks(image, (3.0, 1.0, 1.0))
    np.testing.assert_array_equal(anisotropic, reference_peaks(image, (3.0, 1.0, 1.0)))
    np.testing.assert_array_equal(anisotropic, peaks(image, (30.0, 10.0, 10.0)))
    assert len(anisotropic) != len(peaks(image))


def test_no_seed_inside_the_exclusion():
    image = blobs((40, 40, 40), seed=2)
    exclusion = np.zeros(image.shape, bool)
    exclusion[:, 10:30] = True
    found = peaks(image, exclusion=exclusion)
    np.testing.assert_array_equal(found, reference_peaks(image, exclusion=exclusion))
    assert not exclusion[tuple(found.T)].any()
    assert distance_to_edges(image, exclusion=exclusion)[exclusion].max() == -1


def test_seeds_keep_half_a_fov_to_every_face_in_ascending_order():
    image = blobs((50, 50, 50), seed=3)
    seeds = peak_seeds(image, (9, 17, 33))
    everything = {tuple(row) for row in peaks(image).tolist()}
    expected = sorted((z, y, x) for z, y, x in everything if 4 <= z < 46 and 8 <= y < 42 and 16 <= x < 34)
    assert [tuple(row) for row in seeds.tolist()] == expected
    assert 0 < len(seeds) < len(everything)


def test_no_seeds_where_there_is_nothing_but_edge_or_no_edge_at_all():
    image = blobs((20, 20, 20))
    assert peaks(image, exclusion=np.ones(image.shape, bool)).shape == (0, 3)
    assert peaks(np.full((20, 20, 20), 7, np.uint8)).shape == (0, 3)


def test_volume_too_small_for_a_peak():
    assert peaks(blobs((6, 20, 20))).shape == (0, 3)


def test_seed_file_has_one_zyx_a_line(tmp_path):
    write_seeds(tmp_path / "seeds.csv", np.array([[1, 2, 3], [40, 50, 60]]))
    assert (tmp_path / "seeds.csv").read_text() == "1,2,3\n40,50,60\n"


@pytest.fixture
def image_file(tmp_path: Path) -> Path:
    with h5py.File(tmp_path / "volume.h5", "w") as file:
        file["image"] = blobs((40, 40, 40), seed=4)
        file["flat"] = np.full((40, 40, 40), 9, np.uint8)
    return tmp_path / "volume.h5"


def test_command_writes_the_seeds_of_the_box(image_file, tmp_path):
    output = tmp_path / "seeds.csv"
    assert main(["seeds", "--image", f"{image_file}:image", "--output", str(output), "--fov", "9,9,9"]) == 0
    whole = np.loadtxt(output, delimiter=",", dtype=int)
    np.testing.assert_array_equal(whole, peak_seeds(blobs((40, 40, 40), seed=4), (9, 9, 9)))
    arguments = ["seeds", "--image", f"{image_file}:image", "--fov", "9,9,9", "--box", "5:40,0:30,2:38"]
    assert main([*arguments, "--output", str(tmp_path / "box.csv")]) == 0
    part = np.loadtxt(tmp_path / "box.csv", delimiter=",", dtype=int)
    np.testing.assert_array_equal(part, peak_seeds(blobs((40, 40, 40), seed=4)[5:, :30, 2:38], (9, 9, 9)))


def test_command_never_replaces_other_seeds_unasked(image_file, tmp_path, capsys):
    output = tmp_path / "seeds.csv"
    command = ["seeds", "--image", f"{image_file}:image", "--output", str(output), "--fov"]
    assert main([*command, "9,9,9"]) == 0
    before = output.read_bytes()
    assert main([*command, "9,9,9"]) == 0
    assert main([*command, "17,17,17"]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert output.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["seeds.csv", "volume.h5"]
    assert main([*command, "17,17,17", "--overwrite"]) == 0
    assert output.read_bytes() != before


def test_command_says_so_when_there_are_no_seeds(image_file, tmp_path, capsys):
    assert main(["seeds", "--image", f"{image_file}:flat", "--output", str(tmp_path / "seeds.csv")]) == 2
    assert "No seed" in capsys.readouterr().err
    assert not (tmp_path / "seeds.csv").exists()


def test_help_is_instant_and_shows_examples():
    code = "import sys; from ffn.cli import main; main(['seeds', '--help'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Examples:" in done.stdout
    check = (
        "import sys; from ffn.cli import build_parser; build_parser(); "
        "print([name for name in ('scipy', 'tensorflow') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_peaks_are_spaced():
    found = peaks(blobs((40, 40, 40), seed=5))
    for one, other in itertools.combinations(found, 2):
        assert np.abs(one - other).max() > 3
