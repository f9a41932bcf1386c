"""The model of a synchronous step: the slowest of N workers, then what of the allreduce no computation hides.

worker 1  |== forward, backward ==|......|allreduce|
worker 2  |==== slower ===========|......|allreduce|   step = slowest worker + exposed allreduce
worker 3  |=== slowest ==================|allreduce|
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from scipy.optimize import brentq

from ffn.scaling.network import Network
from ffn.scaling.spread import Lognormal, expected_slowest


@dataclass(frozen=True)
class Machine:
    """Nodes with one worker each, and the network they train.

    Attributes:
        step: one worker's forward and backward pass of its batch, alone.
        lasting: part of the step's variance that belongs to the node and stays, 0 to 1.
        network: between the nodes.
        tensors: bytes of each gradient, in the order in which the backward pass makes them.
        batch: fields of view of one pass.
        backward: part of the step in which gradients become ready one after the other.
    """

    step: Lognormal
    lasting: float
    network: Network
    tensors: tuple[int, ...]
    batch: int = 1
    backward: float = 2 / 3

    @property
    def rate_of_one(self) -> float:
        """FOVs/s of one worker alone."""
        return self.batch / self.step.mean


@dataclass(frozen=True)
class Remedy:
    """How a step is organised.

    Attributes:
        fused: all gradients in one message at the end; else one message a gradient.
        half: 16 bits travel instead of 32.
        overlapped: messages are under way during the backward pass (has no effect where there is one message).
        accumulate: passes of each worker for one update.
        dropped: part of the workers that are not waited for (backup workers), 0 to below 1.
    """

    name: str
    fused: bool = False
    half: bool = False
    overlapped: bool = False
    accumulate: int = 1
    dropped: float = 0.0


@dataclass(frozen=True)
class Prediction:
    """`compute_s` until enough workers are done, `allreduce_s` not hidden; FOVs count only where they are used."""

    workers: int
    remedy: Remedy
    compute_s: float
    allreduce_s: float
    fovs_per_s: float
    efficiency: float

    @property
    def step_s(self) -> float:
        return self.compute_s + self.allreduce_s


def predict(machine: Machine, workers: int, remedy: Remedy) -> Prediction:
    """One step of `workers` workers. The efficiency is against as many single workers without any waiting."""
    dropped = int(remedy.dropped * workers)
    compute = expected_slowest(machine.step.summed(remedy.accumulate, machine.lasting), workers, dropped)
    exposed = exposed_allreduce(machine, workers, remedy)
    rate = (workers - dropped) * remedy.accumulate * machine.batch / (compute + exposed)
    return Prediction(workers, remedy, compute, exposed, rate, rate / (workers * machine.rate_of_one))


def exposed_allreduce(machine: Machine, workers: int, remedy: Remedy) -> float:
    """Seconds of allreduce after the slowest worker's backward pass.

    Overlapped messages hide behind the backward pass, all but the last, which begins when the pass ends.
    """
    sizes = [size / (2 if remedy.half else 1) for size in machine.tensors]
    if remedy.fused:
        return machine.network.allreduce(workers, sum(sizes))
    times = [machine.network.allreduce(workers, size) for size in sizes]
    if not remedy.overlapped:
        return sum(times)
    return max(sum(times) - machine.backward * machine.step.mean, times[-1])


def spread_for(machine: Machine, workers: int, remedy: Remedy, efficiency: float) -> float | None:
    """The coefficient of variation of the step that makes `workers` workers this efficient.

    None where the allreduce alone already costs more.
    """

    def missing(cv: float) -> float:
        varied = replace(machine, step=Lognormal(machine.step.mean, cv))
        return predict(varied, workers, remedy).efficiency - efficiency

    return float(brentq(missing, 1e-6, 3.0)) if missing(1e-6) > 0 else None


def combinations(base: Remedy) -> Sequence[Remedy]:
    """What can be done about the two causes, alone and together, starting from `base`."""
    small = replace(base, name="fusion + fp16", fused=True, half=True)
    return (
        base,
        replace(base, name="no fusion, no overlap", fused=False, overlapped=False),
        replace(base, name="overlap", overlapped=True, fused=False),
        replace(base, name="fp16 messages", half=True),
        replace(base, name="one message (fusion)", fused=True),
        small,
        *(replace(base, name=f"accumulate {n}", accumulate=n) for n in (2, 4, 8)),
        *(replace(base, name=f"drop slowest {share:.0%}", dropped=share) for share in (0.01, 0.02, 0.05)),
        replace(small, name="fusion + fp16 + drop 2%", dropped=0.02),
        replace(small, name="fusion + fp16 + accumulate 4", accumulate=4),
        replace(small, name="fusion + fp16 + accumulate 4 + drop 2%", accumulate=4, dropped=0.02),
    )
