"""Calibrating the cost model by measurement, and holding its predictions against real steps.

For each number of ranks r one start of r processes takes turns of three measurements, so that whatever else the machine
does falls on all three:

    side by side   each rank trains alone, on its share of the cores, waiting for nobody    -> the model
    allreduce      messages of several sizes, all ranks ready                               -> the model
    together       the real synchronous training step                                       -> only compared
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ffn.config import Config
from ffn.errors import DataError
from ffn.files import write_json
from ffn.scaling.network import Line
from ffn.scaling.paper import gradient_bytes
from ffn.scaling.spread import Lognormal, expected_on_cores

_ALLREDUCES = 10
_EXTRA = (4, 4)
"""Bytes of what travels with the gradients: the loss and the request to stop."""


@dataclass(frozen=True)
class Calibration:
    """Measurements of one number of ranks, all on one machine.

    Attributes:
        ranks, cores: processes, and cores they shared.
        alone: float64 [rounds, ranks, steps], seconds of steps side by side.
        work: float64 [rounds, ranks, steps], seconds of the cores in the same steps.
        allreduce: bytes of single tensors to float64 [rounds, repeats], seconds.
        gradients: float64 [rounds, repeats], seconds of the gradients' own message with the work of packing it.
        together: float64 [rounds, steps], seconds of synchronous steps. No prediction uses them.
        fovs: fields of view of one rank's step.
        message: bytes of the gradients' message.
    """

    ranks: int
    cores: int
    alone: NDArray[np.float64]
    work: NDArray[np.float64]
    allreduce: dict[int, NDArray[np.float64]]
    gradients: NDArray[np.float64]
    together: NDArray[np.float64]
    fovs: int
    message: int

    @property
    def line(self) -> Line:
        """The allreduce by message size; nothing for a single rank."""
        if self.ranks == 1:
            return Line(0.0, 0.0)
        sizes = np.array(sorted(self.allreduce), np.float64)
        return Line.fit(sizes, np.array([np.median(self.allreduce[int(size)]) for size in sizes]))

    @property
    def step(self) -> Lognormal:
        """One rank's step beside the others."""
        return Lognormal.fit(self.alone.ravel())

    @property
    def predicted_steps_s(self) -> NDArray[np.float64]:
        """Predicted seconds of a synchronous step, by what each turn measured: the slowest rank, then the gradients'
        allreduce. float64 [rounds]."""
        turns = zip(self.alone, self.work, strict=True)
        slowest = [expected_on_cores(times, work, self.cores) for times, work in turns]
        return np.array(slowest) + (np.median(self.gradients, axis=1) if self.ranks > 1 else 0.0)

    @property
    def measured_steps_s(self) -> NDArray[np.float64]:
        """Measured seconds of a synchronous step, mean of each turn, float64 [rounds]."""
        return self.together.mean(axis=1)

    @property
    def gradients_s(self) -> float:
        """Seconds of the gradients' allreduce; 0 for a single rank."""
        return float(np.median(self.gradients)) if self.ranks > 1 else 0.0

    @property
    def predicted(self) -> float:
        """FOVs/s of all ranks, median over the turns."""
        return self.ranks * self.fovs / float(np.median(self.predicted_steps_s))

    @property
    def measured(self) -> float:
        """FOVs/s of all ranks, median over the turns."""
        return self.ranks * self.fovs / float(np.median(self.measured_steps_s))

    @property
    def error(self) -> float:
        """FOVs/s predicted over measured, minus 1: the median of the turns' own, so that load from outside that comes
        and goes falls on both alike."""
        return float(np.median(self.measured_steps_s / self.predicted_steps_s)) - 1


def message_bytes(config: Config) -> int:
    """Bytes that the ranks exchange in one step."""
    return sum(gradient_bytes(config.network.depth, config.network.features)) + sum(_EXTRA)


def measure_ranks(config: Config, ranks: int, output: Path) -> None:
    """Measure with the ranks that were started; each writes output/rank-<number>.json. Every rank calls it.

    Raises RankError if they are not as many as asked for.
    """
    from ffn.scaling.probe import Trainer, allreduce_times, example_reader, join_ranks, side_by_side
    from ffn.training.threads import common_cores

    everyone, cost = join_ranks(config, ranks), config.study.cost
    tensors = gradient_bytes(config.network.depth, config.network.features)
    messages = {str(size): [size] for size in sorted({int(1000 * size) for size in cost.message_kb})}
    messages["gradients"] = [*tensors, *_EXTRA]
    found: dict[str, Any] = {"alone": [], "work": [], "together": [], "allreduce": {name: [] for name in messages}}
    with example_reader() as reader:
        alone, together = Trainer(config, side_by_side(everyone), reader), Trainer(config, everyone, reader)
        for trainer in (alone, together):
            trainer.times(3, everyone)
        for turn in range(cost.rounds):
            for trainer in (alone, together) if turn % 2 else (together, alone):
                seconds = trainer.times(cost.steps, everyone)
                if trainer is alone:
                    found["alone"].append(seconds.wall)
                    found["work"].append(seconds.cpu)
                else:
                    found["together"].append(seconds.wall)
            if ranks > 1:
                for name, repeats in allreduce_times(everyone, messages, _ALLREDUCES, turn).items():
                    found["allreduce"][name].append(repeats)
    training = config.training
    fovs = training.virtual_workers * training.batch * training.accumulate
    facts = {"ranks": ranks, "cores": common_cores(everyone.local_size), "fovs": fovs, "message": message_bytes(config)}
    write_json(output / f"rank-{everyone.rank:04d}.json", {**facts, **found})


def read_calibration(folder: Path, ranks: int) -> Calibration:
    """What `measure_ranks` wrote. Raises DataError if a rank is missing."""
    files = [folder / f"rank-{rank:04d}.json" for rank in range(ranks)]
    absent = [file.name for file in files if not file.exists()]
    if absent:
        raise DataError(f"{folder} lacks {absent[0]}: the measurement of {ranks} rank(s) did not end.")
    found = [json.loads(file.read_text(encoding="utf-8")) for file in files]
    first = found[0]
    return Calibration(
        ranks,
        int(first["cores"]),
        _by_rounds([rank["alone"] for rank in found]),
        _by_rounds([rank["work"] for rank in found]),
        {int(name): np.array(seconds) for name, seconds in first["allreduce"].items() if name.isdigit() and seconds},
        np.array(first["allreduce"].get("gradients", []), np.float64),
        np.array(first["together"], np.float64),
        int(first["fovs"]),
        int(first["message"]),
    )


def _by_rounds(by_ranks: list[list[list[float]]]) -> NDArray[np.float64]:
    """[ranks, rounds, steps] as float64 [rounds, ranks, steps]."""
    return np.array(by_ranks, np.float64).transpose(1, 0, 2)
