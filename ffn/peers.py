"""Which of the processes that a launcher started side by side this one is: they share work without talking.

Each launcher tells a process its own number, and most how many there are, in variables of the environment:

    launcher            number                  of how many             on this machine
    horovodrun          HOROVOD_RANK            HOROVOD_SIZE            HOROVOD_LOCAL_RANK
    mpirun (Open MPI)   OMPI_COMM_WORLD_RANK    OMPI_COMM_WORLD_SIZE    OMPI_COMM_WORLD_LOCAL_RANK
    mpiexec (MPICH)     PMI_RANK                PMI_SIZE                MPI_LOCALRANKID, PALS: PMI_LOCAL_RANK
    srun                SLURM_PROCID            SLURM_STEP_NUM_TASKS    SLURM_LOCALID
    aprun               ALPS_APP_PE             -                       -

A Slurm batch script has a SLURM_PROCID too, but is no launch: what srun starts also has SLURM_STEP_NUM_TASKS.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from ffn.errors import RankError


@dataclass(frozen=True)
class Peer:
    """This process among `size` that share work; `local_*` counts those of this machine."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1

    @classmethod
    def of(cls, variables: Mapping[str, str] = os.environ, ranks: int | None = None) -> "Peer":
        """What the environment says; `ranks` is how many were started, where the user knows. 1 = do not look.

        Raises RankError where the environment says something else, or not enough.
        """
        if ranks == 1:
            return cls()
        launch = next((launch for launch in _LAUNCHES if launch.started(variables)), None)
        if launch is None:
            if ranks is not None:
                raise RankError(
                    f"--ranks {ranks}, but nothing in the environment says which of them this process is. Start it "
                    f"with a launcher, such as `mpiexec -n {ranks} ffn ...`, or leave --ranks out."
                )
            return cls()
        rank, stated = launch.number(variables, launch.rank), launch.number(variables, launch.size)
        size = stated or ranks
        if rank and size is None:
            raise RankError(
                f"{launch.rank} says that this is process {rank}, counted from 0, but not of how many. "
                "Give the number with --ranks."
            )
        if size is None:
            return cls()
        if rank is None or rank >= size or size != (ranks or size):
            other = "itself" if ranks is None else f"--ranks {ranks}"
            raise RankError(
                f"The launcher's {launch.described(variables)} does not go with {other}. Give the number of processes "
                "that were started, or leave --ranks out."
            )
        local_rank, local_size = (launch.number(variables, names) for names in (launch.local_rank, launch.local_size))
        return cls(rank, size, rank if local_rank is None else local_rank, local_size or size)


ALONE = Peer()
"""A process that shares with nobody."""


@dataclass(frozen=True)
class _Launch:
    """Variables of one kind of launcher; of several names the first that is set counts."""

    rank: str
    size: str = ""
    local_rank: str = ""
    local_size: str = ""
    needs_size: bool = False

    def started(self, variables: Mapping[str, str]) -> bool:
        wanted = (self.rank, self.size) if self.needs_size else (self.rank,)
        return all(self.number(variables, name) is not None for name in wanted)

    def number(self, variables: Mapping[str, str], names: str) -> int | None:
        """The number that a value begins with: Slurm writes `4(x2)` for four tasks on each of two nodes."""
        for name in names.split():
            if (found := re.match(r"\d+", variables.get(name, ""))) is not None:
                return int(found[0])
        return None

    def described(self, variables: Mapping[str, str]) -> str:
        return " and ".join(f"{name}={variables[name]}" for name in (self.rank, self.size) if name in variables)


_LAUNCHES = (
    _Launch("HOROVOD_RANK", "HOROVOD_SIZE", "HOROVOD_LOCAL_RANK", "HOROVOD_LOCAL_SIZE"),
    _Launch("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE"),
    _Launch(
        "PMI_RANK",
        "PMI_SIZE",
        "PMI_LOCAL_RANK MPI_LOCALRANKID PALS_LOCAL_RANKID SLURM_LOCALID",
        "PMI_LOCAL_SIZE MPI_LOCALNRANKS PALS_LOCAL_SIZE",
    ),
    _Launch(
        "SLURM_PROCID",
        "SLURM_STEP_NUM_TASKS",
        "SLURM_LOCALID",
        "SLURM_STEP_TASKS_PER_NODE SLURM_NTASKS_PER_NODE",
        needs_size=True,
    ),
    _Launch("PALS_RANKID", "", "PALS_LOCAL_RANKID", "PALS_LOCAL_SIZE"),
    _Launch("ALPS_APP_PE"),
    _Launch("PMIX_RANK"),
)
"""In the order in which they are believed: a launcher may itself run inside an allocation of another."""
