"""The network as a function of one field of view."""

import numpy as np
import pytest

from ffn.config import Network
from ffn.errors import CheckpointError
from ffn.inference.executor import load_executor
from ffn.model.checkpoint import save_weights
from ffn.model.network import build_network

NETWORK = Network(depth=2, features=3, fov=(5, 7, 9), deltas=(1, 2, 3))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    model = build_network(NETWORK.depth, NETWORK.features, seed=5)
    prefix = tmp_path_factory.mktemp("weights") / "model.ckpt"
    save_weights(model, prefix)
    return model, prefix


def test_evaluates_the_saved_network_on_strided_views(saved):
    model, prefix = saved
    executor = load_executor(NETWORK, prefix)
    rng = np.random.default_rng(0)
    image, object_map = rng.normal(size=(2, 10, 14, 18)).astype(np.float32)[:, ::2, ::2, ::2]
    updated = executor(image, object_map)
    expected = model([image[None, ..., None], object_map[None, ..., None]])[0, ..., 0]
    np.testing.assert_allclose(updated, expected, atol=1e-5)
    updated[...] = 0
    np.testing.assert_allclose(executor(image, object_map), expected, atol=1e-5)
    assert executor.seconds > 0


def test_another_architecture_names_the_layer(saved):
    with pytest.raises(CheckpointError, match=r"layer conv0_a, .*3.*4"):
        load_executor(NETWORK.model_copy(update={"features": 4}), saved[1])


def test_diverged_weights_are_refused(tmp_path):
    model = build_network(NETWORK.depth, NETWORK.features)
    weights = model.get_weights()
    weights[2][0] = np.nan
    model.set_weights(weights)
    save_weights(model, tmp_path / "model.ckpt")
    with pytest.raises(CheckpointError, match="NaN"):
        load_executor(NETWORK, tmp_path / "model.ckpt")
