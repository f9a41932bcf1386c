"""Horovod as the section `allreduce` wants it: its environment before it starts, and what it must be built with."""

import math
from collections.abc import Mapping
from typing import Any

from ffn.config import Allreduce
from ffn.errors import RankError

START_S = 30
"""Seconds that ranks may differ in how fast they start, at least."""
BUILD = "python envs/build_horovod.py"
_WITH_MPI = f"build it anew with an MPI compiler (mpicxx) on the PATH: HOROVOD_WITH_MPI=1 {BUILD}"


def horovod_environment(allreduce: Allreduce) -> dict[str, str]:
    """Variables that Horovod reads when it starts.

    Its stall inspector warns of ranks that have not joined in an operation after a quarter of `stall_s`, in whole
    seconds. It shuts nothing down: `ffn.training.rollcall` does, on all transports, and names the rank. What Gloo waits
    for a message also bounds the start.
    """
    stall = max(math.ceil(allreduce.stall_s), 2)
    variables = {
        "HOROVOD_STALL_CHECK_TIME_SECONDS": str(max(stall // 4, 1)),
        "HOROVOD_GLOO_TIMEOUT_SECONDS": str(max(stall, START_S)),
        "HOROVOD_FUSION_THRESHOLD": str(int(allreduce.fusion_mb * 2**20)),
        "HOROVOD_CYCLE_TIME": f"{allreduce.cycle_ms:g}",
    }
    if allreduce.controller != "any":
        variables |= {"HOROVOD_CONTROLLER": allreduce.controller, "HOROVOD_CPU_OPERATIONS": allreduce.controller}
    return variables


def check_build(horovod: Any, allreduce: Allreduce, environment: Mapping[str, str]) -> None:
    """Raise RankError if this Horovod (the module, not yet started) cannot do what `allreduce` asks for."""
    wanted = allreduce.controller
    if wanted == "mpi" and not horovod.mpi_built():
        raise RankError(f"allreduce.controller is mpi, but this Horovod was built without MPI; {_WITH_MPI}.")
    if wanted == "gloo" and not horovod.gloo_built():
        raise RankError(
            "allreduce.controller is gloo, but this Horovod was built without Gloo; build it anew: "
            f"HOROVOD_WITH_GLOO=1 {BUILD}."
        )
    if wanted == "mpi" and "HOROVOD_GLOO_RENDEZVOUS_ADDR" in environment:
        raise RankError(
            "allreduce.controller is mpi, but the ranks were started with Gloo: use mpirun or `horovodrun --mpi`, or "
            "set allreduce.controller to any."
        )
    if allreduce.operation == "adasum" and not horovod.mpi_built():
        raise RankError(
            "allreduce.operation adasum works over MPI only, and this Horovod was built without it: set "
            f"allreduce.operation to average, or {_WITH_MPI}."
        )


def check_started(horovod: Any, allreduce: Allreduce) -> None:
    """Raise RankError if the started Horovod does not run what `allreduce` asks for."""
    if allreduce.operation != "adasum":
        return
    if not horovod.mpi_enabled():
        raise RankError(
            "allreduce.operation adasum works over MPI only, but the ranks were started with Gloo: use mpirun or "
            "`horovodrun --mpi`, or set allreduce.operation to average."
        )
    if horovod.size() & (horovod.size() - 1):
        raise RankError(
            f"allreduce.operation adasum combines the ranks in pairs of pairs: it needs 2, 4, 8, ... ranks, and "
            f"{horovod.size()} were started."
        )
