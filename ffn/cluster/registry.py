"""What was submitted from a working directory: finds the job of some work, and the facts of a job.

    .snakemake/<scheduler>/jobs/<name>.json     a Record
    .snakemake/<scheduler>/ids/<id>.json        name of the job with that id
    .snakemake/<scheduler>/work/<work>.json     name of the last job for this piece of work: one file to be made
    .snakemake/<scheduler>/ends/<id>            exit code of a job's script, written by the job itself

Snakemake forgets a job's id once the job has started, so after a crash it would submit running work a second
time. Here the submit command looks first whether that work is already in the queue.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ffn.cluster.scheduler import Phase
from ffn.files import write_json
from ffn.locks import lock


@dataclass(frozen=True)
class Record:
    """One job.

    Attributes:
        name: Its name in the queue, unlike that of any other job; it is known before the id is.
        works: Names of its pieces of work.
        rule: Of the workflow, or the group of rules.
        script: What it runs.
        resources: Snakemake's.
        id: That the scheduler gave; empty while the queue has no room for it, or while that is not known.
        after: Names of jobs that it waits for here, as they are at work on a part of its work.
        restarts: How often its work may be submitted again.
        run: Which run of Snakemake waits for it.
        missing_since: Seconds since the epoch when the queue first did not show it.
        warned_of: State that the user has been told of.
        successor: Name of the job that goes on with its work.
        end: How it ended: success or failed.
    """

    name: str
    works: Sequence[str]
    rule: str
    script: str
    resources: Mapping[str, Any]
    id: str = ""
    after: Sequence[str] = ()
    restarts: int = 0
    run: str = ""
    missing_since: float | None = None
    warned_of: str | None = None
    successor: str | None = None
    end: Phase | None = None


class Registry:
    """The records below one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def prefix(self, name: str) -> Path:
        """How the paths of a job's files begin."""
        return self.folder / name

    def add(self, record: Record) -> None:
        """Remember a new job as the one that does its work."""
        self._write(record)
        for work in record.works:
            write_json(self._work_file(work), {"name": record.name})

    def update(self, record: Record, **changes: Any) -> Record:
        """Store and return the record with some fields changed; writes only if something did."""
        changed = replace(record, **changes)
        if changed != record:
            self._write(changed)
        return changed

    def job(self, reference: str) -> Record | None:
        """The record of a job, by its id or its name; None if it was not submitted from here."""
        values = _read(self._id_file(reference))
        return _record(self._job_file(reference if values is None else str(values["name"])))

    def latest(self, reference: str) -> Record | None:
        """The record of the job that does the work of this one now: itself, or its last successor."""
        record = self.job(reference)
        while record is not None and record.successor is not None:
            following = self.job(record.successor)
            if following is None:
                break
            record = following
        return record

    def last_jobs(self, works: Iterable[str]) -> list[Record]:
        """The last jobs for these pieces of work, each once."""
        found = {}
        for work in works:
            values = _read(self._work_file(work))
            record = None if values is None else self.latest(str(values["name"]))
            if record is not None:
                found[record.name] = record
        return list(found.values())

    def open_jobs(self) -> list[Record]:
        """Jobs that have not ended, as far as is known."""
        found = map(_record, sorted((self.folder / "jobs").glob("*.json")))
        return [record for record in found if record is not None and record.end is None and record.successor is None]

    def exit_code(self, job_id: str) -> int | None:
        """That a job's script left, if it came to its end."""
        try:
            return int((self.folder / "ends" / job_id).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None

    @contextmanager
    def locked(self, what: str) -> Iterator[None]:
        """One process at a time."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with lock(self.folder / f"{what}.lock", waits=True):
            yield

    def _write(self, record: Record) -> None:
        write_json(self._job_file(record.name), asdict(record))
        if record.id:
            write_json(self._id_file(record.id), {"name": record.name})

    def _id_file(self, job_id: str) -> Path:
        return self.folder / "ids" / f"{quote(job_id, safe='')}.json"

    def _job_file(self, name: str) -> Path:
        return self.folder / "jobs" / f"{quote(name, safe='')}.json"

    def _work_file(self, work: str) -> Path:
        return self.folder / "work" / f"{work}.json"


def _record(path: Path) -> Record | None:
    values = _read(path)
    if values is None:
        return None
    end = values["end"]
    return Record(**{**values, "end": None if end is None else Phase(end)})


def _read(path: Path) -> Mapping[str, Any] | None:
    try:
        values: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return values
