"""What differs from one scheduler to another: how a job is handed over, looked up, and taken out of the queue.

What all have in common (nothing is submitted twice, lost or forgotten) is in `queue`.
"""

import os
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

from ffn.errors import ClusterError

COMMAND_TIMEOUT_S = 60.0
PROJECT_VARIABLE = "FFN_PROJECT"
"""To what jobs are charged that have no resource `project`."""


class Phase(StrEnum):
    """Where a job is, for us."""

    ALIVE = "alive"
    HELD = "held"
    """Alive, but it will not start by itself."""
    SUCCESS = "success"
    FAILED = "failed"
    """By itself, or by its user: it would end so again."""
    STOPPED = "stopped"
    """By the scheduler (its time was over, a node was lost): another job can go on with its work."""


@dataclass(frozen=True)
class Seen:
    """A job as the scheduler shows it; `state` in its own words, for messages."""

    phase: Phase
    state: str


@dataclass(frozen=True)
class Job:
    """What is handed to a scheduler.

    Attributes:
        name: Unlike that of any other job of this user.
        script: Executable; it stays where it is until the job has ended.
        prefix: Of the files that the scheduler writes.
        resources: Snakemake's, of the job.
    """

    name: str
    script: Path
    prefix: Path
    workdir: Path
    resources: Mapping[str, Any]

    def need(self, *names: str) -> None:
        """Raise ClusterError where one of these resources is missing."""
        missing = [name for name in names if name not in self.resources]
        if missing:
            raise ClusterError(
                f"Job {self.name} has no resource {' and '.join(missing)}; set default-resources in the profile, "
                "as workflow/profiles/theta does."
            )

    def options(self, **keys: str) -> list[str]:
        """Option and value of each resource that is set; a project may also come from $FFN_PROJECT."""
        found: list[str] = []
        for key, option in keys.items():
            if value := self.resources.get(key) or (key == "project" and os.environ.get(PROJECT_VARIABLE)):
                found += [option, str(value)]
        return found

    @property
    def extra(self) -> list[str]:
        """More options, as a site wants them: the resource `submit_options`."""
        return str(self.resources.get("submit_options") or "").split()


class Scheduler(Protocol):
    """One kind of scheduler."""

    key: str
    """In the names of our commands and folders."""
    title: str
    id_variable: str
    """Environment variable that holds a job's id, in the job."""
    shell: str
    """What runs a job's script."""
    release: str
    """The command that ends a hold."""

    def submit_command(self, job: Job) -> list[str]:
        """Raises ClusterError where a resource is missing."""
        ...

    def job_id(self, stdout: str) -> str | None:
        """The id among what the submit command printed."""
        ...

    def is_full(self, stderr: str) -> bool:
        """Whether the submit command only says that this user has too many jobs in the queue."""
        ...

    def look(self, ids: Sequence[str]) -> Mapping[str, Seen] | None:
        """Those of these jobs that the scheduler knows, by id; None if it does not answer."""
        ...

    def find(self, name: str) -> str | None:
        """Id of the job with this name, where the scheduler knows one."""
        ...

    def ended(self, prefix: Path) -> Phase | None:
        """How a job ended that the queue no longer shows, by the files that the scheduler wrote."""
        ...

    def cancel_command(self, ids: Sequence[str]) -> list[str]: ...


@dataclass(frozen=True)
class Called:
    """A command that has ended."""

    code: int
    out: str
    err: str


def call(command: Sequence[str]) -> Called:
    """Run a command of the scheduler; one that is missing or hangs has failed.

    Files, not pipes: a child that the command leaves behind cannot block us.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        try:
            code = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, timeout=COMMAND_TIMEOUT_S, check=False
            ).returncode
        except FileNotFoundError:
            return Called(127, "", f"There is no program {command[0]} here; is this a login node of the cluster?\n")
        except subprocess.TimeoutExpired:
            return Called(124, "", f"{command[0]} did not answer within {COMMAND_TIMEOUT_S:.0f} s.\n")
        out.seek(0)
        err.seek(0)
        return Called(code, out.read().decode(errors="replace"), err.read().decode(errors="replace"))
