"""`ffn train --autotune`: which ranks and threads train fastest on this machine.

Each candidate is a team of ranks that run bare steps of the configured network and exchange gradients. First they are
started one after the other, the most promising first, as many as the time allows; then the good ones take turns, so
that a change in the machine's other load falls on all alike.
"""

import math
import os
import time
from collections.abc import Iterable
from pathlib import Path

from ffn.config import Config
from ffn.errors import RankError
from ffn.progress import log
from ffn.training.autotune.candidates import Candidate, layouts, refinements
from ffn.training.autotune.teams import Team, horovodrun
from ffn.training.autotune.tuning import Trial, Tuning, describe

BUDGET_S = 50.0
_ROUNDS = 5
_TURN_S = 1.0
_HOPELESS = 0.8


def autotune(config: Config, budget_s: float = BUDGET_S, cores: int | None = None) -> Tuning:
    """Try what `budget_s` seconds allow. Raises RankError if not even one rank with all cores can run in that time."""
    cores = cores or _cores()
    search = _Search(config, time.monotonic() + budget_s)
    try:
        openmp = search.start_all(layouts(config, cores))
        if search.trials:
            search.start_all(refinements(max(search.trials, key=lambda trial: trial.rate).candidate, cores, openmp))
        search.rounds()
    finally:
        search.end()
    if not search.trials:
        reasons = "; ".join(reason for _, reason in search.untried[:1])
        raise RankError(
            f"No training step could be measured within {budget_s:.0f} s ({reasons}). Give more time "
            "(--seconds), or check that the network fits into memory."
        )
    return Tuning(config, cores, openmp, search.exchange, search.trials, search.untried)


class _Search:
    def __init__(self, config: Config, deadline: float) -> None:
        self._config, self._deadline = config, deadline
        self._teams: list[tuple[Team, Trial]] = []
        self._start_s, self._turn_s, self._length_s = 0.0, 0.0, _TURN_S
        self._bytes = 0
        self._launcher = horovodrun()
        self.trials: list[Trial] = []
        self.untried: list[tuple[Candidate, str]] = []

    def start_all(self, candidates: Iterable[Candidate]) -> bool:
        """Start and measure once all that there is time for; returns whether any runs on OpenMP."""
        openmp = False
        for candidate in candidates:
            if any(candidate == trial.candidate for trial in self.trials):
                continue
            reason = self._obstacle(candidate)
            if reason is None:
                try:
                    openmp |= self._start(candidate)
                except RankError as error:
                    reason = str(error)
            if reason is not None:
                self.untried.append((candidate, reason))
        return openmp

    def rounds(self) -> None:
        """Turns of all teams that are left, while there is time."""
        for _ in range(_ROUNDS - 1):
            if self._left() < len(self._teams) * 1.2 * self._turn_s:
                return
            for team, trial in self._teams:
                self._turn(team, trial)

    @property
    def exchange(self) -> bool:
        """Whether ranks exchange gradients."""
        return self._launcher is not None

    def end(self) -> None:
        for team, _ in self._teams:
            team.end()

    def _start(self, candidate: Candidate) -> bool:
        log(f"autotune: {describe(candidate)}")
        began = time.monotonic()
        team, trial = Team(self._config, candidate, self._launcher), Trial(candidate)
        try:
            openmp, taken = team.ready(self._deadline)
            self._start_s = max(self._start_s, time.monotonic() - began)
            self._bytes = max(self._bytes, taken)
            self._turn(team, trial)
        except RankError:
            team.end()
            raise
        self.trials.append(trial)
        self._teams.append((team, trial))
        self._end_hopeless()
        return openmp

    def _turn(self, team: Team, trial: Trial) -> None:
        began = time.monotonic()
        rate = team.turn(self._length_s, self._deadline)
        self._turn_s = max(self._turn_s, time.monotonic() - began)
        self._length_s = max(self._length_s, 1.5 * team.step_s)  # so that turns hold two steps or more
        trial.rates.append(rate)

    def _end_hopeless(self) -> None:
        """Free the memory of teams that cannot win any more; the first stays, for comparison."""
        fastest = max(trial.rate for trial in self.trials)
        for team, trial in self._teams[1:]:
            if trial.rate < _HOPELESS * fastest:
                team.end()
        self._teams = self._teams[:1] + [pair for pair in self._teams[1:] if pair[1].rate >= _HOPELESS * fastest]

    def _obstacle(self, candidate: Candidate) -> str | None:
        """Why not to start it: time or memory, as those before it took."""
        needed = 1.2 * self._start_s + (len(self._teams) + 2) * self._turn_s
        if self._left() < needed:
            return "no time left"
        if candidate.ranks * self._bytes > _free_bytes():
            return f"memory: {candidate.ranks} ranks would need {candidate.ranks * self._bytes / 2**30:.1f} GiB"
        return None

    def _left(self) -> float:
        return self._deadline - time.monotonic()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _free_bytes() -> float:
    """Memory that processes can still get; infinite where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return math.inf
    kilobytes = next((line.split()[1] for line in lines if line.startswith("MemAvailable:")), math.inf)
    return float(kilobytes) * 1024
