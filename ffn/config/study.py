"""The section of config.yaml that decides the scaling study: what is varied, and how it is judged."""

from typing import Annotated, Literal, TypeVar

from pydantic import Field, field_validator, model_validator

from ffn.config.base import Fraction, NotNegative, Positive, Probability, Section

PositiveReal = Annotated[float, Field(gt=0)]
Number = TypeVar("Number", int, float)


class StrongScaling(Section):
    """Throughput over ranks (`snakemake scaling`)."""

    ranks: list[Positive] = Field([1, 2, 4], min_length=1, description="Numbers of Horovod ranks.")
    steps: Positive = Field(40, description="Updates that are timed, in one process of each rank.")
    warmup_steps: Positive = Field(5, description="Updates before them that are not.")
    repeats: Positive = Field(3, description="Fresh starts of each number of ranks.")

    @field_validator("ranks")
    @classmethod
    def _ascending(cls, values: list[int]) -> list[int]:
        return _strictly_ascending("ranks", values)


class LrStudy(Section):
    """Grid of workers and learning rates (`snakemake lr_study`); all else is as in `training`.

    The rates are base_rate * spacing^k with whole k, the same for all workers, so that rows of the grid line up. A row
    has `rates` of them around base_rate * N^centre_exponent.
    """

    workers: list[Positive] = Field(
        [1, 2, 4, 8, 16, 32, 64, 128], min_length=2, description="Numbers of workers: the rows."
    )
    rates: Annotated[int, Field(ge=3)] = Field(5, description="Learning rates in each row, at first.")
    base_rate: PositiveReal | None = Field(
        None, description="Rate around which one worker is tried; empty = training.learning_rate."
    )
    centre_exponent: Fraction = Field(0.75, description="How the middle of a row grows with its workers N: N^this.")
    spacing: float = Field(2.0, gt=1, description="Factor between neighbouring rates.")
    extensions: NotNegative = Field(
        3, description="Rates added at most to a row, one at a time, while its best rate is at an end."
    )
    steps: Positive = Field(10_000, description="Updates of each cell, whatever its workers.")
    seeds: Positive = Field(3, description="Runs with different seeds around the best rate of each row.")
    seeded_rates: Literal[1, 3] = Field(
        1, description="Rates with all seeds: the best one, or its two neighbours too (a steadier optimum, dearer)."
    )
    log_every: Positive = Field(50, description="training.log_every of the cells: the curve that is smoothed.")
    score: Literal["accuracy", "f1", "loss"] = Field("accuracy", description="What the rates are compared by.")
    judged_on: Literal["training", "validation"] = Field(
        "training",
        description="The training curve at its last step, smoothed (as in the paper), or data.validation after the "
        "last step.",
    )
    smoothing: Annotated[float, Field(ge=0, lt=1)] = Field(0.9, description="Smoothing of training curves.")
    crossover: Positive = Field(16, description="Exponents are fitted up to this number of workers and from it on.")

    @field_validator("workers")
    @classmethod
    def _ascending(cls, values: list[int]) -> list[int]:
        return _strictly_ascending("workers", values)


class Efficiency(Section):
    """Time and fields of view to a given F1 (`snakemake efficiency`), from the cells of the learning-rate study."""

    targets: list[Probability] = Field([0.15, 0.7], min_length=1, description="F1 to be reached, ascending.")
    crossover: Positive = Field(
        32, description="The first target is for the workers up to this number, the others are from it on."
    )

    @field_validator("targets")
    @classmethod
    def _ascending(cls, values: list[float]) -> list[float]:
        return _strictly_ascending("targets", values)


class CostModel(Section):
    """Calibration of the model of a synchronous step (`snakemake cost_model`)."""

    ranks: list[Positive] = Field([1, 2, 4], min_length=1, description="Numbers of ranks measured, on one machine.")
    rounds: Positive = Field(
        12, description="Turns; in each: single ranks side by side, allreduce, and (for checking only) training."
    )
    steps: Positive = Field(10, description="Steps in one turn.")
    message_kb: list[PositiveReal] = Field(
        [4, 64, 512, 2048], min_length=2, description="Allreduce messages that are timed, besides the network's own."
    )
    workers: list[Positive] = Field(
        [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048], description="Numbers of nodes that are predicted."
    )


class Study(Section):
    """The scaling study: Figures 3 to 5 of the paper, and a model of the costs."""

    real: bool = Field(
        False,
        description="Cells of the learning-rate study are jobs of as many Horovod ranks as workers (a cluster); else "
        "one process stands in for all workers, one cell after the other.",
    )
    scaling: StrongScaling = Field(default_factory=StrongScaling)
    lr_study: LrStudy = Field(default_factory=LrStudy)
    efficiency: Efficiency = Field(default_factory=Efficiency)
    cost: CostModel = Field(default_factory=CostModel)

    @model_validator(mode="after")
    def _settings_agree(self) -> "Study":
        rows = self.lr_study
        if rows.log_every > rows.steps:
            raise ValueError(f"lr_study.log_every {rows.log_every} must not exceed lr_study.steps {rows.steps}.")
        return self


def _strictly_ascending(name: str, values: list[Number]) -> list[Number]:
    if sorted(set(values)) != values:
        raise ValueError(f"{name} must be ascending and without repetition.")
    return values
