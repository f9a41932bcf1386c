"""What Snakemake asks of a scheduler: submit a job, say how it is, cancel it. The same for all schedulers.

Three things make it safe to leave alone:

- Work that is already in the queue is not submitted again, whatever happened to Snakemake meanwhile. A job's name is
  noted down before the scheduler hears of it, so that it is found even if its id was never read.
- A job that the scheduler stopped (its time was over, a node was lost) or forgot is submitted again as often as its
  resource `restarts` says, and counts as running: our stages go on where they stopped. One that ended by itself with an
  exit code would end so again, so it has failed.
- Where the queue takes no more jobs of this user, they wait here and are submitted when there is room.
"""

import json
import os
import shlex
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ffn.cluster.jobscript import JobScript
from ffn.cluster.polling import Answer, ask_once
from ffn.cluster.registry import Record, Registry
from ffn.cluster.scheduler import Job, Phase, Scheduler, Seen, call
from ffn.errors import ClusterError
from ffn.files import write_json

POLL_S = 15.0
POLL_VARIABLE = "FFN_CLUSTER_POLL_S"
GRACE_S = 60.0
"""How long a job may be neither in the queue nor known to have ended."""
SILENCE_S = 3600.0
"""How long the scheduler may not answer before its jobs count as failed."""
ATTEMPTS = 3


@dataclass(frozen=True)
class Queue:
    """A scheduler, as seen from one working directory.

    Attributes:
        run: Name of the run of Snakemake that asks.
        now: The clock, seconds since the epoch.
    """

    scheduler: Scheduler
    workdir: Path
    run: str = ""
    now: Callable[[], float] = time.time

    @property
    def registry(self) -> Registry:
        return Registry(self.workdir / ".snakemake" / self.scheduler.key)

    # --- the three questions

    def submit(self, script_path: Path, prelude: Path | None = None) -> str:
        """Hand a job over and return how Snakemake shall call it: its id, or its name while the queue is full.

        Raises ClusterError where the scheduler refuses it.
        """
        script, registry = JobScript.read(script_path), self.registry
        works = script.works(self.workdir)
        with registry.locked("queue"):
            earlier = [living for one in registry.last_jobs(works) if (living := self._living(one)) is not None]
            for one in earlier:
                if set(works) <= set(one.works):
                    _say(f"Job {_called(one)} already does the work of {script.name}; waiting for it.")
                    registry.update(one, missing_since=None, run=self.run)
                    return _called(one)
            for one in earlier:
                if not one.id:
                    registry.update(one, end=Phase.FAILED)
            busy = [one for one in earlier if one.id]
            name = _new_name(script.name)
            installed = registry.folder / f"{name}.sh"
            script.install(installed, self.scheduler, registry.folder / "ends", _setup(script.resources, prelude))
            restarts = int(script.resources.get("restarts", 0))
            record = Record(
                name, works, script.name, str(installed), script.resources, after=[one.name for one in busy],
                restarts=restarts, run=self.run,
            )  # fmt: skip
            if busy:
                ids = ", ".join(one.id for one in busy)
                _say(f"{script.name} waits here for job {ids}, which already does a part of its work.")
            return _called(self._hand_over(record))

    def status(self, reference: str) -> Phase:
        """ALIVE, SUCCESS or FAILED: of the job, or of the one that goes on with its work."""
        with self.registry.locked("queue"):
            record = self._record(reference)
            if record.end is not None:
                return record.end
            return self._status(self.registry.update(record, run=self.run or record.run))

    def cancel(self, references: Iterable[str]) -> None:
        """Start taking jobs out of the queue, and return: it takes longer than Snakemake waits."""
        with self.registry.locked("queue"):
            self._cancel([self._record(reference) for reference in references])

    def cancel_run(self) -> None:
        """The same for all jobs that this run of Snakemake waits for, whether it still knows of them or not."""
        with self.registry.locked("queue"):
            self._cancel([record for record in self.registry.open_jobs() if record.run == self.run])

    # --- parts

    def _record(self, reference: str) -> Record:
        """What is known of the job that does this work now; of one not submitted from here only its id."""
        return self.registry.latest(reference) or Record(reference, "", reference, "", {}, id=reference)

    def _living(self, record: Record | None, max_age_s: float = 0) -> Record | None:
        """The record of a job that is in the queue, or waits here for it; by an answer of at most that age."""
        if record is None or record.end is not None:
            return None
        record = self._identified(record)
        if not record.id:
            return record
        answer = self._ask(max_age_s)
        if answer.failing_since is not None:
            # Nobody knows; waiting for a job that is gone costs less than doing its work twice at once.
            return record
        seen = answer.jobs.get(record.id)
        return record if seen is not None and seen.phase in (Phase.ALIVE, Phase.HELD) else None

    def _identified(self, record: Record) -> Record:
        """With the id of a job that was handed over but whose id was never read."""
        if record.id:
            return record
        found = self.scheduler.find(record.name)
        return record if found is None else self.registry.update(record, id=found)

    def _hand_over(self, record: Record) -> Record:
        """Submit a job that is noted down; without an id if the queue is full, or others do a part of its work.

        Raises ClusterError where the scheduler refuses it.
        """
        registry, title = self.registry, self.scheduler.title
        registry.add(record)
        if any(self._living(registry.latest(name), _poll_s()) for name in record.after) or self._was_full():
            return record
        prefix = registry.prefix(record.name)
        command = self.scheduler.submit_command(
            Job(record.name, Path(record.script), prefix, self.workdir, record.resources)
        )
        called = call(command)
        sys.stderr.write(called.err)
        job_id = self.scheduler.job_id(called.out)
        if called.code == 0 and job_id is not None:
            return registry.update(record, id=job_id)
        if self.scheduler.is_full(called.err):
            _say(f"{title} takes no more jobs of yours now; {record.name} waits here for room.")
            write_json(registry.folder / "full.json", {"since": self.now()})
            return record
        # An answer that was lost on its way may hide a job that was accepted.
        if (found := self._identified(record)).id:
            return found
        registry.update(record, end=Phase.FAILED)
        said = "" if called.code else f" It printed no job id, but: {called.out.strip()!r}."
        raise ClusterError(
            f"{command[0]} refused job {record.rule} (exit code {called.code}); its own words are above.{said}"
        )

    def _was_full(self) -> bool:
        """Whether the queue took no more jobs within this poll: it is not asked for each of them."""
        full = _read_since(self.registry.folder / "full.json")
        return full is not None and 0 <= self.now() - full < _poll_s()

    def _status(self, record: Record) -> Phase:
        if not record.id and self._was_full():
            return Phase.ALIVE  # it would not be submitted now: hundreds that wait ask the scheduler nothing
        record = self._identified(record)
        if not record.id:
            return self._try_again(record)
        end, why = self._end(record)
        if end is Phase.ALIVE:
            return end
        if end is Phase.STOPPED:
            return self._go_on(record, why)
        if end is Phase.FAILED and why:
            _say(f"Job {record.id} ({record.rule}) failed: {why}.")
        self.registry.update(record, end=end)
        return end

    def _try_again(self, record: Record) -> Phase:
        """Submit a job that waits here."""
        try:
            self._hand_over(record)
        except ClusterError as error:
            _say(str(error))
            return Phase.FAILED
        return Phase.ALIVE

    def _end(self, record: Record) -> tuple[Phase, str]:
        """ALIVE or how the job ended, and why, as far as that is worth saying."""
        answer, registry = self._ask(_poll_s()), self.registry
        seen = answer.jobs.get(record.id)
        if seen is not None and seen.phase in (Phase.ALIVE, Phase.HELD):
            held = seen.state if seen.phase is Phase.HELD else None
            if held is not None and record.warned_of != held:
                _say(f"Job {record.id} is held ({held}); release it with {self.scheduler.release}, or delete it.")
            registry.update(record, missing_since=None, warned_of=held)
            return Phase.ALIVE, ""
        if seen is not None:
            return seen.phase, f"{self.scheduler.title} says {seen.state}"
        ended = self.scheduler.ended(registry.prefix(record.name))
        if ended is not None:
            return ended, f"see {registry.prefix(record.name)}.*"
        code = registry.exit_code(record.id)
        if code == 0:
            return Phase.SUCCESS, ""
        if answer.failing_since is not None:
            if self.now() - answer.failing_since < SILENCE_S:
                return Phase.ALIVE, ""
            return Phase.FAILED, f"{self.scheduler.title} has not answered for {SILENCE_S / 60:.0f} minutes"
        if record.missing_since is None:
            registry.update(record, missing_since=self.now())
            return Phase.ALIVE, ""
        if self.now() - record.missing_since < GRACE_S:
            return Phase.ALIVE, ""
        if code is not None and code < 128:
            return Phase.FAILED, f"its script ended with exit code {code}"
        return Phase.STOPPED, "it vanished from the queue without an exit code"

    def _go_on(self, record: Record, why: str) -> Phase:
        """Hand the work of a stopped job to a new one."""
        title = self.scheduler.title
        if record.restarts < 1 or not record.script:
            _say(f"Job {record.id} counts as failed: it was stopped ({why}), and may not start again.")
            self.registry.update(record, end=Phase.FAILED)
            return Phase.FAILED
        again = replace(
            record, name=_new_name(record.rule), id="", restarts=record.restarts - 1, missing_since=None, warned_of=None
        )
        self.registry.update(record, successor=again.name)
        try:
            again = self._hand_over(again)
        except ClusterError as error:
            _say(f"Job {record.id} was stopped ({why}) and cannot be submitted again: {error}")
            return Phase.FAILED
        _say(
            f"Job {record.id} was stopped by {title} ({why}); job {_called(again)} goes on with its work "
            f"(restarts left: {again.restarts})."
        )
        return Phase.ALIVE

    def _cancel(self, records: Sequence[Record]) -> None:
        registry = self.registry
        present = []
        for record in records:
            found = self._identified(record)
            if found.id:
                present.append(found.id)
            else:
                registry.update(found, end=Phase.FAILED)
        if not present:
            return
        with (registry.folder / "cancel.log").open("ab") as log:
            subprocess.Popen(
                self.scheduler.cancel_command(present), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip

    def _ask(self, max_age_s: float) -> Answer:
        return ask_once(self.registry, self._look, max_age_s, self.now)

    def _look(self) -> Mapping[str, Seen] | None:
        ids = [record.id for record in self.registry.open_jobs() if record.id]
        for _ in range(ATTEMPTS):
            if (jobs := self.scheduler.look(ids)) is not None:
                return jobs
        return None


def _setup(resources: Mapping[str, Any], prelude: Path | None) -> list[str]:
    """Shell lines at the start of a job: those of its site, then the user's own."""
    from ffn.cluster.site import load_site  # here: it takes longer to import than all else that a status needs

    site = resources.get("site")
    lines = list(load_site(str(site)).setup) if site else []
    return lines if prelude is None else [*lines, f". {shlex.quote(str(prelude.resolve()))}"]


def _new_name(rule: str) -> str:
    return f"{rule}-{uuid.uuid4().hex[:8]}"


def _called(record: Record) -> str:
    return record.id or record.name


def _poll_s() -> float:
    return float(os.environ.get(POLL_VARIABLE, POLL_S))


def _read_since(path: Path) -> float | None:
    try:
        return float(json.loads(path.read_text(encoding="utf-8"))["since"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _say(text: str) -> None:
    print(text, file=sys.stderr)
