"""How the lanes of a run are dealt out to ranks, and what a change of that between two starts of it means."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ffn.config import Config, Training
from ffn.training.optimizer import learning_rate

KEYS = ("ranks", "virtual_workers", "batch")
"""Settings that may change while a run is unfinished."""


@dataclass(frozen=True)
class Layout:
    """Ranks, the workers that each stands in for, and the lanes of each worker."""

    ranks: int
    virtual_workers: int
    batch: int

    @classmethod
    def of(cls, training: Training, ranks: int) -> "Layout":
        """The configured layout on the ranks that really run."""
        return cls(ranks, training.virtual_workers, training.batch)

    @property
    def workers(self) -> int:
        return self.ranks * self.virtual_workers

    @property
    def lanes_per_rank(self) -> int:
        return self.virtual_workers * self.batch

    @property
    def lanes(self) -> int:
        return self.ranks * self.lanes_per_rank

    def same_training(self, other: "Layout", config: Config) -> bool:
        """Whether a run does not notice the difference: the same lanes, the same rate, and with Adasum, which does not
        treat ranks as parts of a batch, the same ranks."""
        return self.lanes == other.lanes and self._same_rate(other, config) and self._same_sum(other, config)

    def _same_rate(self, other: "Layout", config: Config) -> bool:
        rates = {learning_rate(config.training, layout.workers, 0) for layout in (self, other)}
        return len(rates) == 1

    def _same_sum(self, other: "Layout", config: Config) -> bool:
        return config.allreduce.operation == "average" or self.ranks == other.ranks

    def change_to(self, other: "Layout", config: Config, step: int) -> str:
        """A sentence on what is different from `step` on."""
        training = config.training
        rates = [learning_rate(training, layout.workers, step) for layout in (self, other)]
        fovs = [layout.lanes * training.accumulate for layout in (self, other)]
        parts = [
            f"{_change(self.ranks, other.ranks)} ranks x {_change(self.virtual_workers, other.virtual_workers)} "
            f"virtual workers x batch {_change(self.batch, other.batch)}",
            f"workers {_change(self.workers, other.workers)}",
            f"fields of view per update {_change(*fovs)}",
            f"rate {_change(*(f'{rate:.3g}' for rate in rates))}",
        ]
        effect = "the training goes on as before"
        if self.lanes != other.lanes:
            kept, new, ended = min(self.lanes, other.lanes), other.lanes - self.lanes, self.lanes - other.lanes
            rest = f"{new} begin with examples not seen yet" if new > 0 else f"{ended} leave their examples unfinished"
            effect = f"{kept} lanes go on with their examples, {rest}; from the next example on all are dealt out anew"
        elif not self._same_rate(other, config):
            effect = "the same lanes go on, at another rate"
        elif not self._same_sum(other, config):
            effect = "the same lanes go on, but Adasum combines other ranks"
        return f"The run changes after step {step}: {', '.join(parts)}; {effect}."


def _change(old: object, new: object) -> str:
    return str(new) if old == new else f"{old} -> {new}"


@dataclass(frozen=True)
class History:
    """The layouts of a run, each with the step after which it began."""

    parts: tuple[tuple[int, Layout], ...]

    @classmethod
    def begin(cls, layout: Layout) -> "History":
        return cls(((0, layout),))

    @classmethod
    def read(cls, records: Sequence[Mapping[str, Any]]) -> "History":
        """From `as_json`; KeyError or TypeError if it is something else."""
        parts = ((int(record["step"]), {key: int(record[key]) for key in KEYS}) for record in records)
        return cls(tuple((step, Layout(**values)) for step, values in parts))

    def as_json(self) -> list[dict[str, int]]:
        return [{"step": step, **asdict(layout)} for step, layout in self.parts]

    @property
    def last(self) -> Layout:
        return self.parts[-1][1]

    def then(self, step: int, layout: Layout) -> "History":
        """With `layout` after `step`."""
        if layout == self.last:
            return self
        return History((*(part for part in self.parts if part[0] < step), (step, layout)))

    def lane_steps(self, step: int) -> int:
        """Steps of all lanes together up to `step`: fields of view seen, where updates are not accumulated."""
        ends = [*(begin for begin, _ in self.parts[1:]), step]
        return sum((end - begin) * layout.lanes for (begin, layout), end in zip(self.parts, ends, strict=True))
