"""A stage made of steps: what is done of it, what is still to do, and by whom.

    <stage>/started.json         the settings that decide the result
    <stage>/steps/<step>/...     ledgers, while unfinished
    <stage>/done.json            the stage is complete
    <stage>/ledger/...           in the place of both: of a step that keeps its ledger

A stage that is run as a whole does its steps in this process or in a pool. On a cluster each job does a part of one
step (`--step labels --part 2/5`), and its processes, one a node, take every N-th unit of that part; whoever is ready
first does what others have left.
"""

import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ffn.batches import Batch
from ffn.blockwise.grid import part_of
from ffn.blockwise.ledger import Ledger, LedgerWriter
from ffn.blockwise.pool import Pool
from ffn.blockwise.task import Reduce, Task
from ffn.errors import StageError
from ffn.peers import ALONE, Peer
from ffn.progress import Progress
from ffn.stages import Stage, settings_hash

STEPS = "steps"
KEPT = "ledger"
_REFRESH_S = 5.0
"""How often a process looks at what others have done."""
_PATIENCE_S = 60.0
"""How long the other processes of a job wait for its first one to end a reduce, before they do it themselves."""
_GOLDEN = 0.618034


@dataclass(frozen=True)
class JobPart:
    """Which part of a step's units a job does, counted from 0."""

    part: int = 0
    parts: int = 1

    @classmethod
    def parse(cls, text: str) -> "JobPart | None":
        """`2/5`, counted from 1; None if it is not of this form."""
        match = re.fullmatch(r"(\d+)/(\d+)", text)
        if match is None or not 1 <= int(match[1]) <= int(match[2]):
            return None
        return cls(int(match[1]) - 1, int(match[2]))

    def __str__(self) -> str:
        return f"{self.part + 1}-of-{self.parts}"

    def units(self, count: int) -> range:
        return part_of(count, self.part, self.parts)

    def shares_units(self, job: str) -> bool:
        """Whether another job of the same step may have done units of this one."""
        return True


@dataclass(frozen=True)
class Numbered:
    """The units of a step that a job does, by number, ascending."""

    numbers: tuple[int, ...]

    def __str__(self) -> str:
        return str(Batch(self.numbers[0], self.numbers[-1]))

    def units(self, count: int) -> Sequence[int]:
        return [number for number in self.numbers if number < count]

    def shares_units(self, job: str) -> bool:
        """Whether another job of the same step may have done units of this one."""
        batch = Batch.parse(job)
        return batch is None or (batch.first <= self.numbers[-1] and self.numbers[0] <= batch.last)


@dataclass(frozen=True)
class Share:
    """What of a stage one process is to do.

    Attributes:
        step: Name of a single step; None = all, one after the other.
        part: Of the units of that step.
        peer: Which of several processes that share these this one is.
    """

    step: str | None = None
    part: JobPart | Numbered = JobPart()
    peer: Peer = ALONE


EVERYTHING = Share()
"""All of a stage, by this process and its pool."""


@dataclass(frozen=True)
class Step:
    """Where the ledger of a step is, and to which settings it belongs; small enough to be part of a later task."""

    folder: Path
    fingerprint: str
    units: int

    def ledger(self, reads: Callable[[str], bool] = lambda job: True) -> Ledger:
        """What is done of the step at this moment; for `reads` see `Ledger`."""
        return Ledger(self.folder, self.fingerprint, self.units, reads)

    def complete(self) -> Ledger:
        """What all of its units left: for a later task that reads it.

        Raises StageError where a unit is missing. A process that comes late may find nothing, as another one has ended
        the stage meanwhile; it must not take that for a step without results.
        """
        ledger = self.ledger()
        if not ledger.is_complete:
            raise StageError(f"{self.folder}: {self.units - len(ledger)} of its {self.units} units are not done.")
        return ledger

    def facts(self) -> Mapping[str, Any]:
        """What a step of a single unit noted. Raises StageError where it is not done."""
        return self.complete()[0].facts


class BlockwiseStage:
    """A stage's folder and the steps that fill it.

    Args:
        stage: The folder, with the settings that decide the result, how the work is cut among them.
        tasks: In the order in which they are done. If the last one is a Reduce, its facts go into `done.json`.
        command: What runs it, without options, for messages: `ffn assemble`.
        clean: Removes what only an unfinished stage needs; called once the stage is marked complete.
    """

    def __init__(
        self, stage: Stage, tasks: Sequence[Task], command: str, clean: Callable[[], None] = lambda: None
    ) -> None:
        self.stage, self.tasks, self.command, self._clean = stage, tasks, command, clean

    @staticmethod
    def step_of(stage: Stage, task: Task) -> Step:
        """Where the ledger of a step of this stage is."""
        folder = stage.folder / KEPT if task.keeps_ledger else stage.folder / STEPS / task.name
        return Step(folder, settings_hash(stage.settings), len(task))

    @property
    def steps(self) -> list[str]:
        return [task.name for task in self.tasks]

    def run(self, workers: int, share: Share = EVERYTHING) -> bool:
        """Do what is not done yet; returns whether there was anything to do.

        Args:
            workers: Processes to use here.
            share: What of the stage is meant.

        Raises StageError where the folder belongs to other settings, or a step is not ready for this one.
        """
        chosen = [task for task in self.tasks if share.step in (None, task.name)]
        if not chosen:
            raise StageError(f"{self.command} has no step {share.step}; there are {', '.join(self.steps)}.")
        if not self.stage.begin():
            self._clear()
            return False
        try:
            with Pool(workers) as pool:
                for task in chosen:
                    if self.stage.done_marker.exists():
                        break
                    self._do(task, pool, share.part if share.step else JobPart(), share.peer)
            if chosen[-1] is self.tasks[-1]:
                self._finish(chosen[-1])
        except (StageError, OSError):
            # Another process that works here may have ended the stage and cleared what this one was about to read.
            if not self.stage.done_marker.exists():
                raise
        if self.stage.done_marker.exists():
            self._clear()
        return True

    def _finish(self, last: Task) -> None:
        """Mark the stage complete, if the last step is."""
        if last.keeps_ledger:
            return
        ledger = self.step_of(self.stage, last).ledger()
        if ledger.is_complete and not self.stage.done_marker.exists():
            self.stage.finish(**(ledger[0].facts if isinstance(last, Reduce) else {}))

    def _do(self, task: Task, pool: Pool, part: JobPart | Numbered, peer: Peer) -> None:
        """Do the units of one part of a step that nobody has done."""
        if task is not self.tasks[0]:
            self._require(self.tasks[self.tasks.index(task) - 1], looks=peer.rank == 0)
        step = self.step_of(self.stage, task)
        ledger, units = step.ledger(part.shares_units), part.units(len(task))
        if self.stage.done_marker.exists():
            # Another process has ended the stage: an empty ledger is one that was cleared.
            return
        ledger.forget(lambda entry: entry.unit in units and not task.is_intact(entry))
        total = sum(task.size(unit) for unit in units)
        done = total - sum(task.size(unit) for unit in ledger.missing(units))
        if done == total:
            return
        with (
            LedgerWriter(step.folder / str(part), step.fingerprint, step.units) as writer,
            Progress(task.name, total, task.unit, done=done, enabled=peer.rank == 0) as progress,
        ):
            for todo in self._todo(task, ledger, units, part, peer):
                for unit, result in pool.results(task, todo):
                    ledger.take(writer.add(unit, result.columns, result.facts, ledger.redone(unit)))
                    progress.advance(task.size(unit), task.note(result))

    def _todo(
        self, task: Task, ledger: Ledger, units: Sequence[int], part: JobPart | Numbered, peer: Peer
    ) -> Iterator[Iterator[int]]:
        """First this process' own share, then, again and again, what others have left, until all is done."""
        yield self._undone(ledger, _begun_elsewhere(list(units[peer.rank :: peer.size]), ledger.processes), part)
        waited = time.monotonic()
        while True:
            ledger.refresh(str(part))
            missing = ledger.missing(units)
            if not missing or self.stage.done_marker.exists():
                return
            if isinstance(task, Reduce) and peer.rank > 0 and time.monotonic() - waited < _PATIENCE_S:
                time.sleep(1.0)
                continue
            # From the end: whoever left them is likely to be at the front of its own.
            yield self._undone(ledger, missing[::-1], part)

    def _undone(self, ledger: Ledger, units: Sequence[int], part: JobPart | Numbered) -> Iterator[int]:
        """Those of `units` that nobody has done by the time they are asked for."""
        looked = time.monotonic()
        for unit in units:
            if time.monotonic() - looked > _REFRESH_S:
                # Whoever ended the stage has removed its ledgers: they say nothing more.
                if self.stage.done_marker.exists():
                    return
                ledger.refresh(str(part))
                looked = time.monotonic()
            if unit not in ledger:
                yield unit

    def _require(self, earlier: Task, looks: bool) -> None:
        """Raise StageError where the step before is not complete or, where this process `looks`, left damaged files."""
        ledger = self.step_of(self.stage, earlier).ledger()
        if looks:
            ledger.forget(lambda entry: not earlier.is_intact(entry))
        if not ledger.is_complete and not self.stage.done_marker.exists():
            raise StageError(
                f"{self.stage.folder}: {len(earlier) - len(ledger)} of the {len(earlier)} units of the step "
                f"{earlier.name} are not done. Run `{self.command} --config FILE --step {earlier.name}` first; what is "
                "done is kept."
            )

    def _clear(self) -> None:
        """Remove what only an unfinished stage needs; the ledgers last, so that a kill leaves it to the next run."""
        if (self.stage.folder / STEPS).exists():
            self._clean()
            self.clear(self.stage)

    @staticmethod
    def clear(stage: Stage) -> None:
        """Remove the ledgers of a stage; other processes may be removing them too, or noting a last unit."""
        shutil.rmtree(stage.folder / STEPS, ignore_errors=True)


def _begun_elsewhere(units: list[int], processes: int) -> list[int]:
    """The units in turn, from another one for each process that was here before: so that two workflows that do not
    know of each other help, and do not do the same."""
    if not units:
        return units
    first = int(len(units) * (processes * _GOLDEN % 1.0))
    return units[first:] + units[:first]
