"""The seam to Horovod: who this process is among the training ranks, and what the ranks do together.

A single rank needs no Horovod at all. Several ranks are processes started by `horovodrun`, `mpirun`, `srun` or
`aprun`; if a launcher started several but Horovod is missing or sees only one, training stops with a RankError
instead of silently training as many separate models.
"""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import ffn.model  # noqa: F401  (before TensorFlow)

# isort: split
import numpy as np
import tensorflow as tf

from ffn.errors import RankError

Result = TypeVar("Result")

_SIZES = ("HOROVOD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS")
_RANKS = ("ALPS_APP_PE", "PALS_RANKID", "PMIX_RANK")
_INSTALL = "Install Horovod (envs/README.md), or start one process only."


def launched_ranks(environment: Mapping[str, str]) -> tuple[int, str]:
    """How many ranks a launcher says it started, at least, and the variable that says so.

    Launchers that tell only a process's own number (ALPS, PALS, PMIx) give a lower bound: rank 3 means four or more.
    Without a launcher the answer is (1, ""). A Slurm batch script's own SLURM_NTASKS is the allocation, not a launch.
    """
    found = [(int(environment[name]), name) for name in _SIZES if environment.get(name, "").isdigit()]
    found += [(int(environment[name]) + 1, name) for name in _RANKS if environment.get(name, "").isdigit()]
    count, name = max(found, default=(1, ""))
    return (count, name) if count > 1 else (1, "")


@dataclass(frozen=True)
class Ranks:
    """This process among `size` training ranks; all methods but the properties must be called by every rank."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    horovod: Any = None

    @classmethod
    def start(cls, environment: Mapping[str, str] = os.environ) -> "Ranks":
        """Join the other ranks, if a launcher started any. Raises RankError if they cannot work together."""
        launched, variable = launched_ranks(environment)
        if launched == 1:
            return cls()
        try:
            import horovod.tensorflow as horovod
        except ImportError as error:
            raise RankError(
                f"{launched} or more training processes were started ({variable}={environment[variable]}), but Horovod "
                f"cannot be imported ({error}): each would train a model of its own. {_INSTALL}"
            ) from error
        horovod.init()
        if horovod.size() < launched:
            raise RankError(
                f"{launched} or more training processes were started ({variable}={environment[variable]}), but Horovod "
                f"sees {horovod.size()}: it was probably built without support for this launcher. Use "
                "'horovodrun --gloo', or build Horovod with MPI (envs/README.md)."
            )
        return cls(horovod.rank(), horovod.size(), horovod.local_rank(), horovod.local_size(), horovod)

    @property
    def first(self) -> bool:
        """Whether this is rank 0, which alone writes shared files."""
        return self.rank == 0

    def average(self, tensors: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """Mean over the ranks of float32 tensors, same shapes; for use inside a tf.function.

        All go as one message, so the order in which the numbers are added does not depend on timing.
        """
        if self.size == 1:
            return list(tensors)
        flat = tf.concat([tf.reshape(tensor, [-1]) for tensor in tensors], axis=0)
        mean = self.horovod.allreduce(flat, op=self.horovod.Average, name="ffn_step")
        parts = tf.split(mean, [tensor.shape.num_elements() for tensor in tensors])
        return [tf.reshape(part, tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]

    def broadcast(self, variables: Sequence[Any]) -> None:
        """Give every rank the values that rank 0 has in these Keras variables."""
        if self.size > 1:
            self.horovod.broadcast_variables([variable.value for variable in variables], root_rank=0)

    def sum(self, values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Sum over the ranks of a small float64 array, the same on every rank."""
        if self.size == 1:
            return values
        total = self.horovod.allreduce(tf.constant(values, tf.float64), op=self.horovod.Sum, name="ffn_sum")
        return np.asarray(total.numpy())

    def barrier(self) -> None:
        """Wait until every rank is here."""
        self.sum(np.zeros(1))

    def first_does(self, work: Callable[[], Result]) -> Result | None:
        """Rank 0 does `work` and returns its result while the others wait; they get None.

        If it fails, rank 0 raises the failure and the others a RankError, so no rank is left waiting.
        """
        result: Result | None = None
        failure: BaseException | None = None
        if self.first:
            try:
                result = work()
            except BaseException as error:
                failure = error
        failed = self.sum(np.array([float(failure is not None)]))[0] > 0
        if failure is not None:
            raise failure
        if failed:
            raise RankError(f"Rank {self.rank} stops because rank 0 could not go on; see the message of rank 0.")
        return result

    def agree(self, flag: bool) -> bool:
        """Rank 0's `flag`, known to every rank."""
        return bool(self.sum(np.array([float(flag and self.first)]))[0] > 0)


def lost_rank(error: BaseException) -> RankError | None:
    """A RankError for what Horovod raises when another rank has gone; None for any other exception."""
    module = sys.modules.get("horovod.common.exceptions")
    internal = module is not None and isinstance(error, module.HorovodInternalError)
    if internal or (isinstance(error, tf.errors.OpError) and "horovod" in str(error).lower()):
        return RankError("Another training rank has ended, so this one stops; see the message of that rank.")
    return None
