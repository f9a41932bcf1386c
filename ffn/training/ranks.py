"""The seam to Horovod: who this process is among the training ranks, and what the ranks do together.

A single rank needs no Horovod at all. Several ranks are processes started by `horovodrun`, `mpirun`, `srun` or
`aprun`; if a launcher started several but Horovod is missing or sees only one, training stops with a RankError
instead of silently training as many separate models.
"""

import os
import re
import sys
import threading
from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import ffn.model  # noqa: F401  (before TensorFlow)

# isort: split
import numpy as np
import tensorflow as tf

from ffn.config import Allreduce
from ffn.errors import LostRankError, RankError
from ffn.files import remove
from ffn.peers import Peer
from ffn.training.controller import BUILD, check_build, check_started, horovod_environment
from ffn.training.meeting import meet, meeting_folder
from ffn.training.waiting import Waiting

Result = TypeVar("Result")

_INSTALL = f"Build it (`{BUILD}`, see envs/README.md), or start one process only."
_TURN_S = 1.0
_RUNNING, _DONE, _FAILED = 0.0, 1.0, 2.0
_MISMATCH = re.compile(r"Mismatched [^\n]*")
"""How Horovod's coordinator begins what it says when ranks ask for different things under one name."""


@dataclass(frozen=True)
class Ranks:
    """This process among `size` training ranks; all methods but the properties must be called by every rank."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    horovod: Any = None
    allreduce: Allreduce = field(default_factory=Allreduce)
    waiting: Waiting = field(default_factory=Waiting, compare=False)

    @classmethod
    def start(
        cls,
        allreduce: Allreduce | None = None,
        environment: MutableMapping[str, str] = os.environ,
        launched: int | None = None,
    ) -> "Ranks":
        """Join the other ranks, if a launcher started any. Raises RankError if they cannot work together.

        Args:
            allreduce: How they shall work together.
            environment: In which launchers leave their words, and Horovod looks for its own.
            launched: How many ranks were started, for launchers that do not say.
        """
        allreduce = allreduce or Allreduce()
        peer = Peer.of(environment, launched)
        if peer.size == 1:
            return cls(allreduce=allreduce)
        try:
            import horovod.tensorflow as horovod
        except ImportError as error:
            raise RankError(
                f"{peer.size} training processes were started, but Horovod cannot be imported ({error}): each would "
                f"train a model of its own. {_INSTALL}"
            ) from error
        check_build(horovod, allreduce, environment)
        environment.update(horovod_environment(allreduce))
        meets = not horovod.mpi_built() and "HOROVOD_GLOO_RENDEZVOUS_ADDR" not in environment
        folder = meeting_folder(environment) if meets else None
        if folder is not None:
            environment.update(meet(peer, folder))
        horovod.init()
        if horovod.size() != peer.size:
            raise RankError(
                f"{peer.size} training processes were started, but Horovod sees {horovod.size()}: its MPI is probably "
                f"not that of the launcher. Use 'horovodrun --gloo', or build Horovod anew ({BUILD})."
            )
        if folder is not None and peer.rank == 0:
            remove(folder)
        check_started(horovod, allreduce)
        return cls(horovod.rank(), horovod.size(), horovod.local_rank(), horovod.local_size(), horovod, allreduce)

    @property
    def first(self) -> bool:
        """Whether this is rank 0, which alone writes shared files."""
        return self.rank == 0

    def average(self, tensors: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """Mean over the ranks of float32 tensors, same shapes; for use inside a tf.function.

        Scalars are figures to report: their mean is exact. All others are gradients, combined and compressed as
        `allreduce` says. By default everything goes as one message, so that the order in which numbers are added does
        not depend on timing.
        """
        if self.size == 1:
            return list(tensors)
        allreduce = self.allreduce
        adasum = allreduce.operation == "adasum"
        if allreduce.compression == "none" and not adasum:
            return self._mean(tensors, "ffn_step")
        scalars = [tensor for tensor in tensors if not tensor.shape.rank]
        gradients = [tensor for tensor in tensors if tensor.shape.rank]
        means = iter(self._mean(scalars, "ffn_figures") if scalars else ())
        if adasum:  # each weight's gradient has a direction of its own
            combined = iter(self._each(gradients, self.horovod.Adasum))
        else:
            combined = iter(self._mean(gradients, "ffn_step"))
        return [next(combined if tensor.shape.rank else means) for tensor in tensors]

    def _mean(self, tensors: Sequence[tf.Tensor], name: str) -> list[tf.Tensor]:
        if self.allreduce.message == "per_weight" and name == "ffn_step":
            return self._each(tensors, self.horovod.Average)
        flat = tf.concat([tf.reshape(tensor, [-1]) for tensor in tensors], axis=0)
        mean = self._reduce(flat, self.horovod.Average, name)
        parts = tf.split(mean, [tensor.shape.num_elements() for tensor in tensors])
        return [tf.reshape(part, tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]

    def _each(self, tensors: Sequence[tf.Tensor], operation: Any) -> list[tf.Tensor]:
        return [self._reduce(tensor, operation, f"ffn_step_{number}") for number, tensor in enumerate(tensors)]

    def _reduce(self, tensor: tf.Tensor, operation: Any, name: str) -> tf.Tensor:
        halved = self.allreduce.compression == "fp16" and name != "ffn_figures"
        compression = self.horovod.Compression.fp16 if halved else self.horovod.Compression.none
        return self.horovod.allreduce(tensor, op=operation, compression=compression, name=name)

    def broadcast(self, variables: Sequence[Any]) -> None:
        """Give every rank the values that rank 0 has in these Keras variables."""
        if self.size > 1:
            with self.waiting.block():
                self.horovod.broadcast_variables([variable.value for variable in variables], root_rank=0)

    def sum(self, values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Sum over the ranks of a small float64 array, the same on every rank."""
        if self.size == 1:
            return values
        with self.waiting.block():
            total = self.horovod.allreduce(tf.constant(values, tf.float64), op=self.horovod.Sum, name="ffn_sum")
        return np.asarray(total.numpy())

    def barrier(self) -> None:
        """Wait until every rank is here."""
        self.sum(np.zeros(1))

    def first_does(self, work: Callable[[], Result]) -> Result | None:
        """Rank 0 does `work` and returns its result while the others wait; they get None.

        If it fails, rank 0 raises the failure and the others a RankError, so no rank is left waiting. The ranks meet
        every second in the meantime: however long the work takes, it does not look like a rank that hangs.
        """
        if self.size == 1:
            return work()
        job = _Job(work) if self.first else None
        state = _RUNNING
        while state == _RUNNING:
            state = float(self.sum(np.array([_RUNNING if job is None else job.wait(_TURN_S)]))[0])
        if job is not None:
            return job.result()
        if state == _FAILED:
            raise RankError(f"Rank {self.rank} stops because rank 0 could not go on; see the message of rank 0.")
        return None

    def told(self, text: str) -> str:
        """Rank 0's `text`, at most 255 bytes of ASCII, known to every rank."""
        codes = np.zeros(255)
        if self.first:
            codes[: len(text)] = list(text.encode("ascii"))
        return bytes(self.sum(codes).astype(np.uint8)).rstrip(b"\0").decode("ascii")

    def agree(self, flag: bool) -> bool:
        """Rank 0's `flag`, known to every rank."""
        return bool(self.sum(np.array([float(flag and self.first)]))[0] > 0)


class _Job(Generic[Result]):
    """Work in a thread of its own."""

    def __init__(self, work: Callable[[], Result]) -> None:
        self._work = work
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="first", daemon=True)
        self._thread.start()

    def wait(self, seconds: float) -> float:
        """How far it is after at most so many seconds."""
        self._thread.join(seconds)
        if self._thread.is_alive():
            return _RUNNING
        return _DONE if self._failure is None else _FAILED

    def result(self) -> Result:
        """What the ended work returned; raises what it raised."""
        if self._failure is not None:
            raise self._failure
        return self._result

    def _run(self) -> None:
        try:
            self._result = self._work()
        except BaseException as failure:
            self._failure = failure


def lost_rank(error: BaseException) -> RankError | None:
    """A RankError for what Horovod raises: a LostRankError when another rank has gone, another when the ranks do not
    do the same; None for any other exception."""
    module = sys.modules.get("horovod.common.exceptions")
    internal = module is not None and isinstance(error, module.HorovodInternalError)
    if internal or (isinstance(error, tf.errors.OpError) and "horovod" in str(error).lower()):
        mismatch = _MISMATCH.search(str(error))
        if mismatch is not None:
            return RankError(
                f"The training ranks do not do the same ({mismatch[0].strip()}): start all of them with the same "
                "configuration and the same version of the programs."
            )
        return LostRankError("Another training rank has ended, so this one stops; see the message of that rank.")
    return None
