"""PBS Pro and OpenPBS, the schedulers of Polaris and Aurora.

Finished jobs stay in `qstat -x` for as long as the site keeps a history (two weeks at ALCF), with their exit status:
that of the script, 256 + a signal, or a negative number where PBS itself gave the job up.
"""

import getpass
import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ffn.cluster.scheduler import Called, Job, Phase, Seen, call

_ID = re.compile(r"\d+(?:\[\d*\])?\.[\w.-]+")
_JOB = re.compile(rf'\s*"({_ID.pattern})"\s*:\s*\{{\s*')
_FACT = re.compile(r'\s*"(job_state|Exit_status|comment)"\s*:\s*"?(.*?)"?,?\s*')
_ALIVE = set("QREBTWSUM")
_HELD = set("H")
_UNKNOWN = "Unknown Job Id"
_QDEL = 256 + 15
_OVER_LIMIT = {-24, -25, -26, -27, -28}
"""Exit statuses of jobs that took more processors, memory or processor time than they asked for."""


class PBS:
    """qsub, qstat, qdel of PBS Pro."""

    key, title, id_variable, shell, release = "pbs", "PBS", "PBS_JOBID", "/bin/bash -l", "qrls"

    def submit_command(self, job: Job) -> list[str]:
        """`nodes` and `runtime` (minutes) are needed; `queue`, `project`, `filesystems`, `select` where given.

        `select` is added to each chunk of the selection, as `system=polaris`.
        """
        job.need("nodes", "runtime")
        hours, minutes = divmod(int(job.resources["runtime"]), 60)
        chunk = job.resources.get("select")
        limits = [
            f"select={job.resources['nodes']}" + (f":{chunk}" if chunk else ""), "place=scatter",
            f"walltime={hours:02d}:{minutes:02d}:00",
            *([f"filesystems={job.resources['filesystems']}"] if job.resources.get("filesystems") else []),
        ]  # fmt: skip
        return [
            "qsub", *job.options(queue="-q", project="-A"), *(word for limit in limits for word in ("-l", limit)),
            *job.extra, "-r", "n", "-N", job.name, "-o", f"{job.prefix}.output", "-e", f"{job.prefix}.error",
            str(job.script),
        ]  # fmt: skip

    def job_id(self, stdout: str) -> str | None:
        """The id is a line of its own; notices may stand around it."""
        return next((line.strip() for line in stdout.splitlines() if _ID.fullmatch(line.strip())), None)

    def is_full(self, stderr: str) -> bool:
        return re.search(r"would exceed .*limit", stderr) is not None

    def look(self, ids: Sequence[str]) -> Mapping[str, Seen] | None:
        if not ids:
            return {}
        answer = call(["qstat", "-x", "-f", "-F", "json", *ids])
        sys.stderr.write("".join(line for line in answer.err.splitlines(keepends=True) if _UNKNOWN not in line))
        return parse_qstat(answer)

    def find(self, name: str) -> str | None:
        return self.job_id(call(["qselect", "-x", "-u", getpass.getuser(), "-N", name]).out)

    def ended(self, prefix: Path) -> Phase | None:
        return None

    def cancel_command(self, ids: Sequence[str]) -> list[str]:
        return ["qdel", *ids]


def parse_qstat(answer: Called) -> Mapping[str, Seen] | None:
    """Jobs by id; None where that is no answer. Ids that PBS does not know are left out and make it exit with 153."""
    unknown = all(_UNKNOWN in line for line in answer.err.splitlines() if line.strip())
    if answer.code not in (0, 153) or (answer.code == 153 and not unknown):
        return None
    if not answer.out.strip():
        return {} if answer.code == 153 else None
    try:
        return {job_id: _seen(facts) for job_id, facts in _jobs(answer.out).items()}
    except (ValueError, AttributeError, KeyError, TypeError):
        return None


def _jobs(text: str) -> Mapping[str, Mapping[str, Any]]:
    """What is known of each job. Raises ValueError where the text is no whole answer.

    Many a PBS writes variables and comments into its JSON as they are (openpbs issues 1255, 2049, 2541), which is none
    then; but each fact stands in a line of its own.
    """
    try:
        return json.loads(text, strict=False).get("Jobs", {})
    except ValueError:
        if not (text.startswith("{") and text.rstrip().endswith("\n}")):
            raise
    jobs: dict[str, dict[str, Any]] = {}
    for line in text.splitlines():
        if (job := _JOB.fullmatch(line)) is not None:
            jobs[job[1]] = {}
        elif jobs and (fact := _FACT.fullmatch(line)) is not None:
            next(reversed(jobs.values())).setdefault(fact[1], fact[2])
    if not jobs:
        raise ValueError("no job in it")
    return jobs


def _seen(facts: Mapping[str, Any]) -> Seen:
    state = str(facts["job_state"])
    if state in _HELD:
        return Seen(Phase.HELD, state)
    if state in _ALIVE:
        return Seen(Phase.ALIVE, state)
    if state not in ("F", "X"):
        raise ValueError(state)
    comment = str(facts.get("comment", ""))
    return Seen(_ended(facts.get("Exit_status"), comment), comment or state)


def _ended(status: Any, comment: str) -> Phase:
    if status is None:
        # Deleted before it ran, or never started.
        return Phase.FAILED if "deleted" in comment.lower() else Phase.STOPPED
    code = int(status)
    if code == 0:
        return Phase.SUCCESS
    if code == _QDEL or code in _OVER_LIMIT:
        return Phase.FAILED
    return Phase.STOPPED if code < 0 or code > 256 else Phase.FAILED
