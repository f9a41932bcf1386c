"""The released checkpoint gives the published values on one field of view."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest

from ffn.errors import CheckpointError
from ffn.geometry import Box
from ffn.model.checkpoint import load_weights, read_tensors, save_weights
from ffn.model.logits import logit
from ffn.model.network import build_network
from ffn.volumes import open_volume

FOV = (33, 33, 33)


@pytest.fixture(scope="module")
def golden(data_dir: Path) -> dict:
    return json.loads((data_dir / "ffn_released/golden.json").read_text())


@pytest.fixture(scope="module")
def prefix(data_dir: Path) -> Path:
    return data_dir / "ffn_released/model.ckpt-27465036"


@pytest.fixture(scope="module")
def model(prefix: Path) -> keras.Model:
    network = build_network(12, 32)
    load_weights(network, prefix)
    return network


def predict(model: keras.Model, image: np.ndarray) -> np.ndarray:
    seed = np.full(FOV, logit(0.05), np.float32)
    seed[16, 16, 16] = logit(0.95)
    return model([image[None, ..., None], seed[None, ..., None]]).numpy()[0, ..., 0]


def test_single_field_of_view(data_dir: Path, golden: dict, model: keras.Model) -> None:
    expected = golden["single_fov"]
    volume = open_volume(str(data_dir / "neuroproof_examples/training_sample2/grayscale_maps"))
    crop = volume.read(Box.centred(expected["center_zyx"], FOV)).astype(np.float32)
    out = predict(model, (crop - np.float32(128)) / np.float32(33))
    measured = {
        "out_center": out[16, 16, 16],
        "out_mean": out.mean(),
        "out_std": out.std(),
        "out_min": out.min(),
        "out_000": out[0, 0, 0],
        "out_32_32_32": out[32, 32, 32],
        "out_8_16_24": out[8, 16, 24],
    }
    for name, value in measured.items():
        assert value == pytest.approx(expected[name], abs=1e-4), name
    assert int((out >= logit(0.6)).sum()) == expected["n_ge_logit06"]
    assert int((out >= logit(0.9)).sum()) == expected["n_ge_logit09"]


def test_empty_image(golden: dict, model: keras.Model) -> None:
    expected = golden["zero_image_fov"]
    out = predict(model, np.zeros(FOV, np.float32))
    assert out[16, 16, 16] == pytest.approx(expected["out_center"], abs=1e-4)
    assert out.mean() == pytest.approx(expected["out_mean"], abs=1e-4)
    assert out.std() == pytest.approx(expected["out_std"], abs=1e-4)
    assert out[0, 0, 0] == pytest.approx(expected["out_000"], abs=1e-4)


def test_the_released_weights_written_by_us_are_the_released_weights(
    model: keras.Model, prefix: Path, tmp_path: Path
) -> None:
    save_weights(model, tmp_path / "copy")
    ours, theirs = read_tensors(tmp_path / "copy"), read_tensors(prefix)
    assert ours.keys() == {name for name in theirs if name.startswith("seed_update/")}
    assert all(np.array_equal(ours[name], theirs[name]) for name in ours)


def test_the_papers_network_is_refused_the_deeper_checkpoint(prefix: Path) -> None:
    with pytest.raises(CheckpointError, match="layer conv10_a"):
        load_weights(build_network(9, 32), prefix)
