"""Cells of the learning-rate study: one training each, at a number of workers, a learning rate and a seed.

rate    ^        . x x x x x
(powers |      . x x x x x        x  first look, `rates` of them around base * N^centre_exponent
 of     |  . x x x x x            .  added where the best of a row is at its end
 spacing)  x x x x x
        +----------------------> workers N (rows)
"""

import math
import re
from dataclasses import dataclass
from typing import Any

from ffn.config import ADDING, FREE, Config, LrStudy, parse_config
from ffn.errors import ConfigError
from ffn.runs import SYNTHETIC, RunPaths
from ffn.scaling.paths import StudyPaths

_NAME = re.compile(r"w(\d{4,})-([mp])(\d{2,})-s(\d+)")


@dataclass(frozen=True, order=True)
class Cell:
    """`workers` workers, learning rate base * spacing^power, seed config.seed + seed."""

    workers: int
    power: int
    seed: int

    @property
    def name(self) -> str:
        """`w0016-p03-s0`; p and m are the sign of the power."""
        return f"w{self.workers:04d}-{'m' if self.power < 0 else 'p'}{abs(self.power):02d}-s{self.seed}"

    @classmethod
    def parse(cls, name: str) -> "Cell":
        """The cell with this name. Raises ConfigError for any other text."""
        match = _NAME.fullmatch(name)
        if match is None:
            raise ConfigError(f"'{name}' is not the name of a cell; expected one such as {cls(16, 3, 0).name}.")
        workers, sign, power, seed = match.groups()
        return cls(int(workers), int(power) * (-1 if sign == "m" else 1), int(seed))


def base_rate(config: Config) -> float:
    """Learning rate of power 0."""
    return config.study.lr_study.base_rate or config.training.learning_rate


def rate_of(config: Config, power: float) -> float:
    """Learning rate of a power, which may lie between the grid's."""
    return float(base_rate(config) * config.study.lr_study.spacing**power)


def first_powers(study: LrStudy, workers: int) -> list[int]:
    """The powers that a row is first looked at, ascending."""
    middle = round(study.centre_exponent * math.log(workers) / math.log(study.spacing))
    lowest = middle - (study.rates - 1) // 2
    return list(range(lowest, lowest + study.rates))


def cell_config(config: Config, cell: Cell) -> Config:
    """What a cell trains: the run's own configuration with the cell's workers, rate, steps and seed.

    A rate that is given is not scaled again. Cells of one seed share their prepared coordinates, in a run of its own
    below the study's folder; an embedded synthetic volume is the run's, whatever the seed.
    """
    values = config.model_dump(mode="json")
    study, real = config.study.lr_study, config.study.real
    values["run"] = f"seed-{cell.seed}"
    values["results"] = str(StudyPaths.of(config).root)
    values["seed"] = config.seed + cell.seed
    values["data"] = _resolved(values["data"], RunPaths.of(config))
    del values["study"]
    values["training"] |= {
        "steps": study.steps,
        "ranks": cell.workers if real else 1,
        "virtual_workers": 1 if real else cell.workers,
        "learning_rate": rate_of(config, cell.power),
        "rate_scaling": "none",
        "rate_exponent": None,
        "log_every": study.log_every,
        "validate_every": study.steps,
    }
    return parse_config(values, f"cell {cell.name}")


def cell_settings(config: Config) -> dict[str, Any]:
    """The parts of a cell's configuration that decide its result."""
    values = config.model_dump(mode="json")
    values["training"] = {key: value for key, value in values["training"].items() if key not in FREE}
    kept = {key: values[key] for key in ("seed", "data", "network", "prepare", "training", "augmentation")}
    if config.training.ranks > 1:
        kept["allreduce"] = {key: values["allreduce"][key] for key in ADDING}
    return kept


def _resolved(value: Any, paths: RunPaths) -> Any:
    """`data` with `synthetic` replaced by the run's own synthetic volume."""
    if isinstance(value, list):
        return [_resolved(item, paths) for item in value]
    if not isinstance(value, dict):
        return value
    ours = {key: f"{paths.synthetic_volume}:{key}" for key in ("image", "labels")}
    return {
        key: ours[key] if key in ours and item == SYNTHETIC else _resolved(item, paths) for key, item in value.items()
    }
