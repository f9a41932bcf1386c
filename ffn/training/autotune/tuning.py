"""The result of `ffn train --autotune`: a table for people, JSON for programs, YAML for the configuration."""

import platform
import statistics
from dataclasses import dataclass, field
from typing import Any

import yaml

from ffn.config import Config, Threads
from ffn.training.autotune.candidates import Candidate

_EQUAL = 0.97


@dataclass
class Trial:
    """A candidate and its fields of view per second in each of its turns."""

    candidate: Candidate
    rates: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        return statistics.median(self.rates)

    @property
    def spread(self) -> float:
        """Half the range of the turns' rates, as a fraction of their median."""
        return (max(self.rates) - min(self.rates)) / 2 / self.rate


@dataclass(frozen=True)
class Tuning:
    """What was found; `trials[0]` is one rank on all cores. `untried`: candidates, and why not.

    `openmp`: whether TensorFlow runs on OpenMP here, and not on threads of its own. `exchange`: whether ranks exchanged
    gradients, as they do in training.
    """

    config: Config
    cores: int
    openmp: bool
    exchange: bool
    trials: list[Trial]
    untried: list[tuple[Candidate, str]]

    @property
    def best(self) -> Trial:
        """The fastest; of equally fast ones (3 %) the one that was tried first, the simpler one."""
        return _best_of(self.trials)

    @property
    def best_same_update(self) -> Trial:
        """As `best`, among those whose updates have as many fields of view as the configured ones."""
        return _best_of([trial for trial in self.trials if self.keeps_update(trial.candidate)] or self.trials)

    def keeps_update(self, candidate: Candidate) -> bool:
        """Whether an update has as many fields of view as the configuration says."""
        training = self.config.training
        return candidate.fovs == training.ranks * training.virtual_workers * training.batch

    def table(self) -> str:
        """One line a candidate, fastest first, then what was not tried."""
        lines = ["ranks  intra_op  inter_op  other          FOVs/update   FOVs/s   +-   against 1 rank"]
        for trial in sorted(self.trials, key=lambda trial: -trial.rate):
            mark = "   <- best" if trial is self.best else ""
            spread = f"{trial.spread:4.0%}" if len(trial.rates) > 1 else "   ?"
            against = trial.rate / self.trials[0].rate
            row = f"{_columns(trial.candidate)} {trial.rate:8.2f} {spread}   {against:8.2f}{mark}"
            lines.append(row.rstrip())
        lines += [f"{_columns(candidate)}  not tried: {reason}" for candidate, reason in self.untried]
        if not self.openmp:
            lines.append("TensorFlow uses no OpenMP here, so OMP_NUM_THREADS and KMP_* decide nothing: not tried.")
        if not self.exchange:
            lines.append(
                "Horovod is not installed, so ranks only worked side by side: in training, where they wait for each "
                "other, several are slower than this."
            )
        return "\n".join(lines)

    def yaml(self) -> str:
        """Lines for the configuration, with what they change as comments."""
        best, same = self.best, self.best_same_update
        gain = best.rate / self.trials[0].rate
        text = [f"# {best.rate:.2f} FOVs/s, {gain:.2f} times those of one rank with {self.cores} threads"]
        if best is not same:
            text += [
                f"# Each update then has {best.candidate.fovs} fields of view instead of {same.candidate.fovs}. The "
                "fastest that leaves the update as it is:",
                *(f"#   {line}" for line in _lines(same.candidate)),
            ]
        if best.candidate.ranks > 1:
            text.append(f"# On a cluster, cluster.ranks_per_node: {best.candidate.ranks} takes the place of ranks.")
        return "\n".join([*text, *_lines(best.candidate)])

    def as_json(self) -> dict[str, Any]:
        """All of it, in plain values."""
        network = self.config.network
        return {
            "machine": platform.node(),
            "cores": self.cores,
            "openmp": self.openmp,
            "exchange": self.exchange,
            "network": {"depth": network.depth, "features": network.features, "fov": list(network.fov)},
            "precision": self.config.training.precision,
            "trials": [
                {**_plain(trial.candidate), "fovs_per_s": trial.rate, "turns": trial.rates} for trial in self.trials
            ],
            "untried": [{**_plain(candidate), "reason": reason} for candidate, reason in self.untried],
            "best": recommended(self.best.candidate),
            "best_same_update": recommended(self.best_same_update.candidate),
        }


def recommended(candidate: Candidate) -> dict[str, Any]:
    """The keys of the configuration that make training run like this candidate."""
    stated = candidate.threads.model_dump(mode="json", exclude_defaults=True)
    threads = {"intra_op": candidate.threads.intra_op, "inter_op": candidate.threads.inter_op, **stated}
    training = {name: getattr(candidate, name) for name in ("ranks", "virtual_workers", "batch")}
    return {"threads": threads, "training": training}


def describe(candidate: Candidate) -> str:
    """A candidate in a few words."""
    threads = candidate.threads
    ranks = "1 rank" if candidate.ranks == 1 else f"{candidate.ranks} ranks"
    other = _other(threads)
    return f"{ranks}, intra_op {threads.intra_op}, inter_op {threads.inter_op or 'auto'}{other and ', ' + other}"


def _best_of(trials: list[Trial]) -> Trial:
    fastest = max(trial.rate for trial in trials)
    return next(trial for trial in trials if trial.rate >= _EQUAL * fastest)


def _other(threads: Threads) -> str:
    stated = threads.model_dump(exclude_defaults=True, exclude={"intra_op", "inter_op"})
    return " ".join(f"{name}={value}" for name, value in stated.items())


def _columns(candidate: Candidate) -> str:
    threads = candidate.threads
    inter_op, other = threads.inter_op or "auto", _other(threads) or "-"
    return f"{candidate.ranks:5d}  {threads.intra_op:8d}  {inter_op:>8}  {other:<14} {candidate.fovs:11d} "


def _lines(candidate: Candidate) -> list[str]:
    text: str = yaml.safe_dump(recommended(candidate), sort_keys=False)
    return text.splitlines()


def _plain(candidate: Candidate) -> dict[str, Any]:
    return {**recommended(candidate), "fovs_per_update": candidate.fovs}
