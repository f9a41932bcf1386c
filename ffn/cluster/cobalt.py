"""Cobalt, the scheduler of Theta.

A job is in qstat only while it is alive; how it ended stands in its .cobaltlog, which the scheduler writes as long as
that file is there. The lines that tell of an end are those of Cobalt 1.0.33.
"""

import getpass
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from ffn.cluster.scheduler import Called, Job, Phase, Seen, call

_ALIVE = {"queued", "starting", "running", "maxrun_hold", "preempting", "preempted", "exiting", "killing"}
_HELD = {"user_hold", "admin_hold", "dep_hold"}

_ENDINGS = re.compile(
    r"task completed normally with an exit code of (?P<code>-?\d+|None)"
    r"|maximum execution time exceeded"
    r"|user delete requested"
    r"|ERROR: execution failure"
)


class Cobalt:
    """qsub, qstat, qdel of Cobalt."""

    key, title, id_variable, shell, release = "cobalt", "Cobalt", "COBALT_JOBID", "/bin/bash", "qrls"

    def submit_command(self, job: Job) -> list[str]:
        """`nodes` and `runtime` (minutes) are needed; `queue`, `project` and `attrs` are passed where given.

        Without a project Cobalt itself looks at $COBALT_PROJ.
        """
        job.need("nodes", "runtime")
        return [
            "qsub", "-n", str(job.resources["nodes"]), "-t", str(job.resources["runtime"]),
            *job.options(queue="-q", project="-A", attrs="--attrs"), *job.extra,
            "--mode", "script", "--jobname", job.name, "--cwd", str(job.workdir), "-O", str(job.prefix),
            str(job.script),
        ]  # fmt: skip

    def job_id(self, stdout: str) -> str | None:
        """The id is a line, or the first word of one; notices may stand around it."""
        words = (line.split() for line in stdout.splitlines())
        return next((line[0] for line in words if line and line[0].isdecimal()), None)

    def is_full(self, stderr: str) -> bool:
        return re.search(r"limit of \d+ jobs per user in the '.*' queue has been reached", stderr) is not None

    def look(self, ids: Sequence[str]) -> Mapping[str, Seen] | None:
        states = _columns("JobID", "State")
        if states is None:
            return None
        found = {job_id: Seen(phase, state) for job_id, state in states.items() if (phase := _phase(state.lower()))}
        return found if len(found) == len(states) else None

    def find(self, name: str) -> str | None:
        names = _columns("JobID", "JobName") or {}
        return next((job_id for job_id, found in names.items() if found == name), None)

    def ended(self, prefix: Path) -> Phase | None:
        try:
            log = prefix.with_name(f"{prefix.name}.cobaltlog").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return None
        return ended_as(log)

    def cancel_command(self, ids: Sequence[str]) -> list[str]:
        return ["qdel", *ids]


def parse_qstat(answer: Called, *columns: str) -> Mapping[str, str] | None:
    """The second of two columns by the first; None where that is no answer.

    Without jobs Cobalt says nothing and exits with 1.
    """
    if answer.code == 1 and not answer.out.strip() and not answer.err.strip():
        return {}
    lines = [line.split() for line in answer.out.splitlines()]
    if answer.code != 0 or len(lines) < 2 or lines[0] != list(columns):
        return None
    return {words[0]: words[1] for words in lines[2:]} if all(len(words) == 2 for words in lines[2:]) else None


def ended_as(log: str) -> Phase | None:
    """How a job ended, by the last line of a .cobaltlog that tells of an end; None if there is no such line."""
    endings = list(_ENDINGS.finditer(log))
    if not endings:
        return None
    code = endings[-1].group("code")
    if code == "0":
        return Phase.SUCCESS
    if any("maximum execution time" in ending.group() for ending in endings):
        return Phase.STOPPED
    if "delete" in endings[-1].group() or code not in (None, "None"):
        return Phase.FAILED
    return Phase.STOPPED


def _columns(*columns: str) -> Mapping[str, str] | None:
    answer = call(["qstat", "--header", ":".join(columns), "-u", getpass.getuser()])
    sys.stderr.write(answer.err)
    return parse_qstat(answer, *columns)


def _phase(state: str) -> Phase | None:
    if state == "dep_fail":
        return Phase.FAILED
    if state in _HELD:
        return Phase.HELD
    return Phase.ALIVE if state in _ALIVE else None
