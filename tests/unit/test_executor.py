"""The network as a function of fields of view."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ffn.cli import main
from ffn.config import Network
from ffn.errors import CheckpointError
from ffn.inference.canvas import Look
from ffn.inference.executor import load_executor
from ffn.model.checkpoint import export_weights, save_weights
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


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_answers_of_a_batch_are_those_of_single_looks(saved, batch_size):
    executor = load_executor(NETWORK, saved[1], batch_size=batch_size)
    looks = [Look(*pair) for pair in np.random.default_rng(1).normal(size=(batch_size, 2, 5, 7, 9)).astype(np.float32)]
    single = [executor(look.image.copy(), look.object_map.copy()) for look in looks]
    answers = executor.start(looks)
    for look in looks:
        look.object_map[...] = 0
    for answer, expected in zip(answers(), single, strict=True):
        np.testing.assert_array_equal(answer, expected)
        answer[...] = 0


@pytest.mark.parametrize(("batch_size", "most", "chosen"), [(8, 3, 3), (2, 3, 2), (8, None, 8)])
def test_a_batch_is_no_larger_than_what_there_can_be(saved, batch_size, most, chosen):
    assert load_executor(NETWORK, saved[1], batch_size=batch_size, most=most).batch_size == chosen


ON_JAX = """
import sys
from pathlib import Path
import numpy as np
from ffn.config import Network
from ffn.inference.canvas import Look
from ffn.inference.executor import load_executor
executor = load_executor(Network.model_validate_json(sys.argv[1]), Path(sys.argv[2]), batch_size=4)
looks = [Look(*pair) for pair in np.load(sys.argv[3])]
answers = executor.start(looks)()
assert "tensorflow" not in sys.modules
np.save(sys.argv[3], np.stack(answers))
"""


def test_runs_on_jax_without_tensorflow(saved, tmp_path):
    if importlib.util.find_spec("jax") is None:
        pytest.skip("needs JAX: pip install jax")
    weights, exchanged = tmp_path / "weights.npz", tmp_path / "looks.npy"
    assert main(["export-weights", str(saved[1]), str(weights)]) == 0
    looks = np.random.default_rng(2).normal(size=(3, 2, 5, 7, 9)).astype(np.float32)
    np.save(exchanged, looks)
    command = [sys.executable, "-c", ON_JAX, NETWORK.model_dump_json(), str(weights), str(exchanged)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "KERAS_BACKEND": "jax"}
    subprocess.run(command, check=True, env=environment)
    executor = load_executor(NETWORK, saved[1])
    np.testing.assert_allclose(np.load(exchanged), [executor(*pair) for pair in looks], atol=1e-5)


WITH_PRECISION = """
import sys
from pathlib import Path
import numpy as np
from ffn.config import Network
from ffn.inference.executor import load_executor
executor = load_executor(Network.model_validate_json(sys.argv[1]), Path(sys.argv[2]), precision=sys.argv[4])
np.save(sys.argv[3], executor(*np.load(sys.argv[3])))
"""


@pytest.mark.slow
def test_precision_decides_about_rounding_and_the_environment_does_not(tmp_path):
    # In processes of their own: oneDNN decides at its first convolution.
    network = Network(depth=2, features=32, fov=(17, 17, 17), deltas=(4, 4, 4))
    weights, look = tmp_path / "model.ckpt", np.random.default_rng(3).normal(size=(2, 17, 17, 17)).astype(np.float32)
    save_weights(build_network(network.depth, network.features, seed=5), weights)

    def updated(precision, **environment):
        exchanged = tmp_path / "look.npy"
        np.save(exchanged, look)
        command = [sys.executable, "-c", WITH_PRECISION, network.model_dump_json(), weights, exchanged, precision]
        paths = {"PYTHONPATH": str(Path(__file__).parents[2])}
        subprocess.run([str(part) for part in command], check=True, env={**os.environ, **paths, **environment})
        return np.load(exchanged)

    exact, short = updated("float32"), updated("bfloat16")
    rounding = {"TF_SET_ONEDNN_FPMATH_MODE": "BF16", "ONEDNN_DEFAULT_FPMATH_MODE": "BF16"}
    np.testing.assert_array_equal(updated("float32", **rounding), exact)
    np.testing.assert_allclose(short, exact, atol=0.05)
    processor = Path("/proc/cpuinfo")
    if processor.exists() and "amx_bf16" in processor.read_text():
        assert np.any(short != exact)


def test_archives_that_are_none(saved, tmp_path):
    with pytest.raises(CheckpointError, match=r"There are no weights .*nowhere\.npz"):
        load_executor(NETWORK, tmp_path / "nowhere.npz")
    (tmp_path / "broken.npz").write_bytes(b"PK broken")
    with pytest.raises(CheckpointError, match="not an archive of weights"):
        load_executor(NETWORK, tmp_path / "broken.npz")
    np.savez(tmp_path / "objects.npz", **{"seed_update/conv0_a/weights": np.array([{}], object)})
    with pytest.raises(CheckpointError, match="not an archive of weights"):
        load_executor(NETWORK, tmp_path / "objects.npz")
    with pytest.raises(CheckpointError, match=r"NAME\.npz"):
        export_weights(saved[1], tmp_path / "weights.h5")


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
