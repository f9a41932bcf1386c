"""What was submitted from a working directory: finds the job of some work, and the facts of a job.

    .snakemake/cobalt/jobs/<id>.json     id, key, name, log
    .snakemake/cobalt/work/<key>.json    id of the last job that was submitted for this work

Snakemake forgets a job's id once the job has started, so after a crash it would submit running work a second
time. Here the submit command looks first whether that work is already in the queue.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ffn.files import write_json


@dataclass(frozen=True)
class Record:
    """One submitted job.

    Attributes:
        log: Its .cobaltlog.
        command: How it was submitted.
        restarts: How often its work may be submitted again.
        missing_since: Seconds since the epoch when the queue first did not show it.
        warned_of: State that the user has been told of.
        successor: Id of the job that goes on with its work.
    """

    id: str
    key: str
    name: str
    log: str
    missing_since: float | None = None
    warned_of: str | None = None
    command: list[str] = field(default_factory=list)
    restarts: int = 0
    successor: str | None = None


class Registry:
    """The records below one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, record: Record) -> None:
        """Remember a new job as the one that does its work."""
        self._write(record)
        write_json(self._work_file(record.key), {"id": record.id})

    def update(self, record: Record, **changes: Any) -> Record:
        """Store and return the record with some fields changed; writes only if something did."""
        changed = replace(record, **changes)
        if changed != record:
            self._write(changed)
        return changed

    def job(self, job_id: str) -> Record | None:
        """The record of a job, or None if it was not submitted from here."""
        values = _read(self._job_file(job_id))
        return None if values is None else Record(**values)

    def latest(self, job_id: str) -> Record | None:
        """The record of the job that does the work of `job_id` now: itself, or its last successor."""
        record = self.job(job_id)
        while record is not None and record.successor is not None:
            record = self.job(record.successor)
        return record

    def work(self, key: str) -> Record | None:
        """The last job submitted for this work."""
        values = _read(self._work_file(key))
        return None if values is None else self.job(str(values["id"]))

    def _write(self, record: Record) -> None:
        write_json(self._job_file(record.id), asdict(record))

    def _job_file(self, job_id: str) -> Path:
        return self.folder / "jobs" / f"{quote(job_id, safe='')}.json"

    def _work_file(self, key: str) -> Path:
        return self.folder / "work" / f"{key}.json"


def _read(path: Path) -> Mapping[str, Any] | None:
    try:
        values: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return values
