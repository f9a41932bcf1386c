"""Which of several processes this one is, by what launchers put into the environment; what it gets of a machine."""

import os

import pytest

from ffn.errors import RankError
from ffn.inference.devices import share_devices, visible_gpus
from ffn.peers import ALONE, Peer
from ffn.training.threads import INTRA_OP_VARIABLE

HOROVOD = {"HOROVOD_RANK": "2", "HOROVOD_SIZE": "4", "HOROVOD_LOCAL_RANK": "0", "HOROVOD_LOCAL_SIZE": "2"}
OPEN_MPI = {
    "OMPI_COMM_WORLD_RANK": "2", "OMPI_COMM_WORLD_SIZE": "4",
    "OMPI_COMM_WORLD_LOCAL_RANK": "0", "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
}  # fmt: skip
HYDRA = {"PMI_RANK": "2", "PMI_SIZE": "4", "MPI_LOCALRANKID": "0", "MPI_LOCALNRANKS": "2"}
PALS = {"PALS_RANKID": "2", "PMI_RANK": "2", "PMI_SIZE": "4", "PMI_LOCAL_RANK": "0", "PMI_LOCAL_SIZE": "2"}
SBATCH = {"SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NTASKS": "8", "SLURM_JOB_ID": "1"}
SRUN = {
    **SBATCH, "SLURM_PROCID": "2", "SLURM_STEP_NUM_TASKS": "4", "SLURM_STEP_TASKS_PER_NODE": "2(x2)",
}  # fmt: skip


@pytest.mark.parametrize(
    "variables", [HOROVOD, OPEN_MPI, HYDRA, PALS, SRUN], ids=["horovod", "ompi", "hydra", "pals", "srun"]
)
def test_launchers_that_say_all(variables):
    third = Peer(2, 4, 0, 2)
    assert Peer.of(variables) == third
    assert Peer.of(variables, 4) == third
    assert Peer.of(variables, 1) == ALONE
    with pytest.raises(RankError, match=r"does not go with --ranks 3\. Give the number"):
        Peer.of(variables, 3)


@pytest.mark.parametrize("variable", ["ALPS_APP_PE", "PMIX_RANK", "PALS_RANKID"])
def test_launchers_that_do_not_say_how_many(variable):
    assert Peer.of({variable: "2"}, 4) == Peer(2, 4, 2, 4)
    assert Peer.of({variable: "0"}) == ALONE
    with pytest.raises(RankError, match=f"{variable} says that this is process 2.*with --ranks"):
        Peer.of({variable: "2"})
    with pytest.raises(RankError, match=f"{variable}=4 does not go with --ranks 4"):
        Peer.of({variable: "4"}, 4)


def test_no_launcher():
    assert Peer.of({}) == Peer.of({}, 1) == ALONE
    with pytest.raises(RankError, match="nothing in the environment says which"):
        Peer.of({}, 2)


def test_a_batch_script_of_slurm_is_no_launch():
    assert Peer.of(SBATCH) == ALONE


def test_the_innermost_launcher_counts():
    assert Peer.of({**SRUN, **HOROVOD, "HOROVOD_RANK": "3"}).rank == 3
    assert Peer.of({**SBATCH, **HYDRA}).rank == 2


@pytest.fixture
def four_gpus(tmp_path):
    for name in ("nvidia0", "nvidia1", "nvidia2", "nvidia3", "nvidiactl", "nvidia-uvm"):
        (tmp_path / name).touch()
    return tmp_path


def test_each_process_gets_its_gpu(four_gpus, tmp_path):
    chosen = []
    for rank in range(4):
        variables: dict[str, str] = {}
        share_devices(Peer(4 + rank, 8, rank, 4), variables, four_gpus)
        chosen.append(variables["CUDA_VISIBLE_DEVICES"])
        assert "TF_FORCE_GPU_ALLOW_GROWTH" not in variables
    assert chosen == ["0", "1", "2", "3"]
    assert visible_gpus({}, tmp_path / "none") == []


def test_more_processes_than_gpus_take_turns_and_leave_memory_to_each_other(four_gpus):
    variables = {"CUDA_VISIBLE_DEVICES": "MIG-a,MIG-b"}
    share_devices(Peer(3, 6, 3, 6), variables, four_gpus)
    assert variables["CUDA_VISIBLE_DEVICES"] == "MIG-b"
    assert variables["TF_FORCE_GPU_ALLOW_GROWTH"] == "true"
    assert variables["XLA_PYTHON_CLIENT_PREALLOCATE"] == "false"


def test_hidden_gpus_stay_hidden(four_gpus):
    for hidden in ("", "-1"):
        variables = {"CUDA_VISIBLE_DEVICES": hidden}
        share_devices(Peer(1, 2, 1, 2), variables, four_gpus)
        assert variables["CUDA_VISIBLE_DEVICES"] == hidden


def test_processes_divide_the_cores_unless_the_launcher_did(tmp_path):
    variables: dict[str, str] = {}
    share_devices(Peer(1, 2, 1, 2), variables, tmp_path)
    assert int(variables[INTRA_OP_VARIABLE]) == max(len(os.sched_getaffinity(0)) // 2, 1)
    variables = {INTRA_OP_VARIABLE: "7"}
    share_devices(Peer(1, 2, 1, 2), variables, tmp_path)
    assert variables == {INTRA_OP_VARIABLE: "7"}


def test_a_process_alone_is_left_as_it_is(four_gpus):
    variables: dict[str, str] = {}
    share_devices(ALONE, variables, four_gpus)
    share_devices(Peer(1, 2, 0, 1), variables, four_gpus)  # alone on its node
    assert variables == {}
