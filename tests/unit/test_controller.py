"""What Horovod is told, and what it must be built with. The module itself is played: builds with MPI are not here."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from ffn.config import Allreduce
from ffn.errors import RankError
from ffn.training.controller import check_build, check_started, horovod_environment
from ffn.training.ranks import Ranks


def horovod(mpi: bool, gloo: bool = True, size: int = 2) -> Any:
    return SimpleNamespace(
        mpi_built=lambda: mpi, gloo_built=lambda: gloo, mpi_enabled=lambda: mpi, size=lambda: size
    )  # fmt: skip


def test_settings_become_variables() -> None:
    made = horovod_environment(Allreduce(fusion_mb=2, cycle_ms=2.5, stall_s=200, controller="mpi"))
    assert made["HOROVOD_FUSION_THRESHOLD"] == str(2 * 2**20)
    assert made["HOROVOD_CYCLE_TIME"] == "2.5"
    assert made["HOROVOD_GLOO_TIMEOUT_SECONDS"] == "200"
    assert made["HOROVOD_CONTROLLER"] == made["HOROVOD_CPU_OPERATIONS"] == "mpi"
    assert "HOROVOD_CONTROLLER" not in horovod_environment(Allreduce())
    assert horovod_environment(Allreduce(stall_s=1))["HOROVOD_GLOO_TIMEOUT_SECONDS"] == "30"


@pytest.mark.parametrize(
    ("settings", "built", "words"),
    [
        ({"controller": "mpi"}, {"mpi": False}, "without MPI; .*HOROVOD_WITH_MPI=1 python envs/build_horovod.py"),
        ({"controller": "gloo"}, {"mpi": True, "gloo": False}, "HOROVOD_WITH_GLOO=1 python envs/build_horovod.py"),
        ({"operation": "adasum"}, {"mpi": False}, "adasum works over MPI only.*HOROVOD_WITH_MPI=1"),
    ],
)
def test_a_build_that_lacks_something_is_refused_with_the_command(settings: Any, built: Any, words: str) -> None:
    with pytest.raises(RankError, match=words):
        check_build(horovod(**built), Allreduce(**settings), {})


def test_a_build_that_has_everything_is_accepted() -> None:
    for settings in ({}, {"controller": "mpi"}, {"controller": "gloo"}, {"operation": "adasum"}):
        check_build(horovod(mpi=True), Allreduce(**settings), {})
    check_started(horovod(mpi=True, size=4), Allreduce(operation="adasum"))


def test_ranks_started_with_gloo_cannot_use_mpi() -> None:
    with pytest.raises(RankError, match="started with Gloo: use mpirun"):
        check_build(horovod(mpi=True), Allreduce(controller="mpi"), {"HOROVOD_GLOO_RENDEZVOUS_ADDR": "127.0.0.1"})
    with pytest.raises(RankError, match="started with Gloo"):
        check_started(horovod(mpi=False), Allreduce(operation="adasum"))


def test_adasum_needs_a_power_of_two() -> None:
    with pytest.raises(RankError, match="needs 2, 4, 8, ... ranks, and 6 were started"):
        check_started(horovod(mpi=True, size=6), Allreduce(operation="adasum"))


class Played:
    """Horovod's functions for two ranks of which the other one holds zeros."""

    Average, Adasum = "average", "adasum"
    Compression = SimpleNamespace(none="none", fp16="fp16")

    def __init__(self) -> None:
        self.calls: list[tuple[str, str, str, int]] = []

    def allreduce(self, tensor: tf.Tensor, op: str, compression: str, name: str) -> tf.Tensor:
        self.calls.append((name, op, compression, int(tf.size(tensor))))
        return tensor / 2


@pytest.mark.parametrize(
    ("settings", "calls"),
    [
        ({}, [("ffn_step", "average", "none", 10)]),
        ({"compression": "fp16"}, [("ffn_figures", "average", "none", 2), ("ffn_step", "average", "fp16", 8)]),
        (
            {"message": "per_weight"},
            [
                ("ffn_step_0", "average", "none", 6), ("ffn_step_1", "average", "none", 2),
                ("ffn_step_2", "average", "none", 1), ("ffn_step_3", "average", "none", 1),
            ],
        ),
        (
            {"operation": "adasum"},
            [
                ("ffn_figures", "average", "none", 2), ("ffn_step_0", "adasum", "none", 6),
                ("ffn_step_1", "adasum", "none", 2),
            ],
        ),
    ],
)  # fmt: skip
def test_what_travels_and_how(settings: Any, calls: list[Any]) -> None:
    played = Played()
    ranks = Ranks(0, 2, horovod=played, allreduce=Allreduce(**settings))
    tensors = [tf.reshape(tf.range(6.0), (2, 3)), tf.constant([7.0, 8.0]), tf.constant(3.0), tf.constant(1.0)]
    means = ranks.average(tensors)
    for mean, tensor in zip(means, tensors, strict=True):
        assert mean.shape == tensor.shape
        np.testing.assert_array_equal(mean, tensor / 2)
    assert played.calls == calls
