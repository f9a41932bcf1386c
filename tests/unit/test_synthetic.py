"""The synthetic volume: exact labels, an image that shows them, and a pure function of its settings."""

import json
from pathlib import Path

import cc3d
import edt
import h5py
import numpy as np
import pytest
from pydantic import ValidationError

from ffn.cli import main
from ffn.config import Synthetic
from ffn.errors import DataError
from ffn.synthetic.fields import fine_noise, smooth_field
from ffn.synthetic.volume import make_volume

SMALL = Synthetic(shape=(64, 72, 80), neurites=16, sheets=2)


@pytest.fixture(scope="module")
def small() -> tuple[np.ndarray, np.ndarray]:
    return make_volume(3, SMALL)


def test_same_seed_same_volume_other_seed_other_volume(small):
    again = make_volume(3, SMALL)
    np.testing.assert_array_equal(again[0], small[0])
    np.testing.assert_array_equal(again[1], small[1])
    image, labels = make_volume(4, SMALL)
    assert (image != small[0]).mean() > 0.5
    assert (labels != small[1]).mean() > 0.5


def test_types_and_grey_values_of_fib25(small):
    image, labels = small
    assert image.shape == labels.shape == SMALL.shape
    assert image.dtype == np.uint8
    assert labels.dtype == np.uint64
    assert image.mean() == pytest.approx(128, abs=1)
    assert image.std() == pytest.approx(33, abs=1)


@pytest.mark.parametrize(
    "settings",
    [
        SMALL,
        Synthetic(shape=(40, 40, 40), neurites=30, sheets=3, calibre_nm=60),
        Synthetic(shape=(20, 60, 60), voxel_size=(30, 10, 10), neurites=12, sheets=1),
        Synthetic(shape=(12, 12, 12), neurites=1, sheets=0),
    ],
)
def test_every_voxel_has_a_label_and_every_label_is_one_piece(settings):
    _, labels = make_volume(1, settings)
    ids = np.unique(labels)
    np.testing.assert_array_equal(ids, np.arange(1, len(ids) + 1))
    _, pieces = cc3d.connected_components(labels.astype(np.uint32), connectivity=6, return_N=True)
    assert pieces == len(ids)


def test_sizes_are_those_of_cells_not_of_dust(small):
    sizes = np.bincount(small[1].ravel().astype(int))[1:]
    assert len(sizes) >= 6
    assert sizes.min() > 500
    assert sizes.max() < 0.5 * small[1].size


def test_membranes_are_dark_and_as_thick_as_asked():
    clean = {"noise": 0.0, "unevenness": 0.0}
    dark = {}
    for membrane_nm in (20.0, 60.0):
        image, labels = make_volume(3, SMALL.model_copy(update={**clean, "membrane_nm": membrane_nm}))
        wall = edt.edt(labels, black_border=False) - 0.5
        assert image[wall < 1].mean() < image[wall > 5].mean() - 25
        dark[membrane_nm] = image[(wall > 1.5) & (wall < 2.6)].mean() - image[wall > 5].mean()
    assert dark[60.0] < dark[20.0] - 20


def test_noise_and_unevenness_do_what_they_say():
    calm = {"noise": 0.0, "unevenness": 0.0}
    image, labels = make_volume(3, SMALL.model_copy(update=calm))
    noisy, same = make_volume(3, SMALL.model_copy(update={**calm, "noise": 0.2}))
    np.testing.assert_array_equal(labels, same)
    assert np.diff(noisy.astype(float), axis=2).std() > 1.5 * np.diff(image.astype(float), axis=2).std()
    uneven, _ = make_volume(3, SMALL.model_copy(update={**calm, "unevenness": 0.5}))
    contrasts = [part.std() / other.std() for part, other in zip(eighths(uneven), eighths(image), strict=True)]
    assert np.std(contrasts) > 0.04


def eighths(volume: np.ndarray) -> list[np.ndarray]:
    parts = [volume]
    for axis in range(3):
        parts = [half for part in parts for half in np.array_split(part, 2, axis)]
    return parts


def test_organelles_are_inside_thick_cells():
    """Away from every wall there are voxels far darker than cytoplasm: mitochondria."""
    image, labels = make_volume(1, Synthetic(shape=(96, 96, 96), neurites=10, sheets=0, noise=0, unevenness=0))
    inside = image[edt.edt(labels, black_border=False) > 4]
    assert (inside < np.median(inside) - 50).mean() > 0.005


def test_no_room_for_any_cell_is_an_error():
    with pytest.raises(DataError, match="calibre_nm"):
        make_volume(1, Synthetic(shape=(8, 8, 8), neurites=3, sheets=0, calibre_nm=0.001))


def test_bad_settings_are_refused():
    with pytest.raises(ValidationError):
        Synthetic(calibre_nm=0)
    with pytest.raises(ValidationError):
        Synthetic(unevenness=-0.1)


def test_fields_have_unit_deviation():
    random = np.random.default_rng(0)
    field = smooth_field(random, (60, 70, 80), (10.0, 10.0, 10.0), 50.0)
    assert field.shape == (60, 70, 80)
    assert field.std() == pytest.approx(1, abs=0.15)
    assert np.abs(np.diff(field, axis=1)).max() < 1
    noise = fine_noise(random, (30, 30, 30), (1.0, 1.0, 1.0))
    assert noise.std() == pytest.approx(1, abs=1e-3)


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(
        f"run: toy\nresults: {tmp_path}/results\nseed: 5\n"
        "data: {train: {image: synthetic, labels: synthetic}, test: {image: synthetic}}\n"
        "synthetic: {shape: [32, 40, 48], neurites: 5, sheets: 1, voxel_size: [12, 10, 8]}\n"
        "network: {fov: [9, 9, 9], deltas: [2, 2, 2]}\n"
    )
    return path


def test_command_writes_the_volume_once(config_file, tmp_path):
    assert main(["synth", "--config", str(config_file)]) == 0
    folder = tmp_path / "results/toy/synth"
    image, labels = make_volume(5, Synthetic(shape=(32, 40, 48), neurites=5, sheets=1, voxel_size=(12, 10, 8)))
    with h5py.File(folder / "volume.h5") as file:
        np.testing.assert_array_equal(file["image"][...], image)
        np.testing.assert_array_equal(file["labels"][...], labels)
        assert file["image"].attrs["voxel_size_nm"].tolist() == [12, 10, 8]
        assert file["labels"].attrs["voxel_size_nm"].tolist() == [12, 10, 8]
    assert json.loads((folder / "done.json").read_text())["facts"]["cells"] == int(labels.max())
    before = (folder / "volume.h5").stat().st_mtime_ns
    assert main(["synth", "--config", str(config_file)]) == 0
    assert (folder / "volume.h5").stat().st_mtime_ns == before


def test_command_with_another_folder_and_with_other_settings(config_file, tmp_path, capsys):
    output = tmp_path / "elsewhere"
    command = ["synth", "--config", str(config_file), "--output", str(output)]
    assert main(command) == 0
    before = (output / "volume.h5").read_bytes()
    config_file.write_text(config_file.read_text().replace("seed: 5", "seed: 6"))
    assert main(command) == 2
    assert "seed: there 5, now 6" in capsys.readouterr().err
    assert (output / "volume.h5").read_bytes() == before
