import errno
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny_training import environment

from ffn.errors import CheckpointError
from ffn.model.checkpoint import load_weights, read_tensors, save_weights, write_tensors
from ffn.model.network import build_network


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    prefix = tmp_path / "model.ckpt-12"
    save_weights(build_network(3, 4, seed=1), prefix, {"global_step": np.int64(12)})
    return prefix


def test_weights_survive_a_round_trip(saved: Path) -> None:
    model = build_network(3, 4, seed=2)
    load_weights(model, saved)
    expected = build_network(3, 4, seed=1).get_weights()
    assert all(np.array_equal(a, b) for a, b in zip(model.get_weights(), expected, strict=True))


def test_tensors_have_the_names_and_shapes_of_google_ffn(saved: Path) -> None:
    tensors = read_tensors(saved)
    assert {name: value.shape for name, value in tensors.items() if "conv0_a" in name or "lom" in name} == {
        "seed_update/conv0_a/weights": (3, 3, 3, 2, 4),
        "seed_update/conv0_a/biases": (4,),
        "seed_update/conv_lom/weights": (1, 1, 1, 4, 1),
        "seed_update/conv_lom/biases": (1,),
    }
    assert tensors["global_step"] == 12
    assert len(tensors) == 2 * 7 + 1


def test_optimizer_slots_of_others_are_ignored(saved: Path) -> None:
    slots = {"seed_update/conv0_a/weights/Adam": np.zeros(3, np.float32)}
    write_tensors(saved, {**read_tensors(saved), **slots})
    load_weights(build_network(3, 4), saved)


@pytest.mark.parametrize(
    ("depth", "features", "layer", "theirs", "ours"),
    [
        (3, 8, "conv0_a", "[3, 3, 3, 2, 4]", "[3, 3, 3, 2, 8]"),
        (4, 4, "conv3_a", "no such layer", "[3, 3, 3, 4, 4]"),
        (2, 4, "conv2_a", "[4]", "no such layer"),
    ],
)
def test_another_architecture_is_refused_naming_the_layer_and_both_shapes(
    saved: Path, depth: int, features: int, layer: str, theirs: str, ours: str
) -> None:
    model = build_network(depth, features, seed=3)
    before = model.get_weights()
    with pytest.raises(CheckpointError) as caught:
        load_weights(model, saved)
    text = str(caught.value)
    assert str(saved) in text
    assert f"layer {layer}," in text
    assert f"{theirs} in the checkpoint" in text
    assert f"{ours} in the configured network" in text
    assert all(np.array_equal(a, b) for a, b in zip(model.get_weights(), before, strict=True))


def test_a_missing_checkpoint_is_named(tmp_path: Path, saved: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no checkpoint .*nowhere"):
        read_tensors(tmp_path / "nowhere")
    saved.with_name(saved.name + ".data-00000-of-00001").unlink()
    with pytest.raises(CheckpointError, match=r"data-00000-of-00001 is missing"):
        read_tensors(saved)


@pytest.mark.parametrize("suffix", [".index", ".data-00000-of-00001"])
def test_a_truncated_checkpoint_is_called_damaged(saved: Path, suffix: str) -> None:
    file = saved.with_name(saved.name + suffix)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(CheckpointError, match="damaged"):
        load_weights(build_network(3, 4), saved)


def test_flipped_bits_are_noticed(saved: Path) -> None:
    file = saved.with_name(saved.name + ".data-00000-of-00001")
    content = bytearray(file.read_bytes())
    content[100] ^= 255
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match="damaged"):
        read_tensors(saved)


def test_a_checkpoint_without_a_network_is_refused(tmp_path: Path) -> None:
    write_tensors(tmp_path / "other", {"weights": np.zeros(3, np.float32)})
    with pytest.raises(CheckpointError, match="no flood-filling network"):
        load_weights(build_network(2, 4), tmp_path / "other")


def test_the_name_of_one_of_the_files_will_do(saved: Path) -> None:
    assert read_tensors(saved.with_name(saved.name + ".index")).keys() == read_tensors(saved).keys()


def test_nothing_but_the_two_files_is_left(saved: Path) -> None:
    save_weights(build_network(3, 4), saved)
    assert sorted(path.name for path in saved.parent.iterdir()) == [
        "model.ckpt-12.data-00000-of-00001",
        "model.ckpt-12.index",
    ]


FULL_DISK = """
import sys
from pathlib import Path
from ffn.model.checkpoint import save_weights
from ffn.model.network import build_network
try:
    save_weights(build_network(3, 16), Path("full/model.ckpt"))
except OSError as error:
    sys.exit(error.errno)
"""


def test_a_full_disk_is_reported_as_such(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    isolated = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    mount = "mount -t tmpfs -o size=32k none full"
    if shutil.which("unshare") is None or subprocess.run([*isolated, mount], cwd=tmp_path, check=False).returncode:
        pytest.skip("needs a small file system: no permission to mount one here")
    command = [*isolated, f'{mount} && exec "$0" -c "$1"', sys.executable, FULL_DISK]
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == errno.ENOSPC, done.stderr
