"""Cobalt, the scheduler of Theta: the commands that Snakemake's cluster-generic executor calls.

    ffn-cobalt-submit [--prelude FILE] JOBSCRIPT     prints the job's id
    ffn-cobalt-status ID                             prints running, success or failed; always exits with 0
    ffn-cobalt-cancel ID...                          returns at once, before the jobs are gone

Cobalt shows a job in qstat only while it is alive; how it ended stands in its .cobaltlog. A job whose time was over, or
that Cobalt lost, is submitted again as often as its resource `restarts` says, and counts as running: our stages go on
where they stopped. One that ended by itself with an exit code would end so again, so it has failed.
"""

import argparse
import getpass
import os
import re
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ffn.cluster.jobscript import JobScript
from ffn.cluster.polling import Answer, ask_once
from ffn.cluster.registry import Record, Registry
from ffn.errors import ClusterError, FFNError

FOLDER = Path(".snakemake") / "cobalt"
POLL_S = 15.0
GRACE_S = 60.0
"""How long a job may be neither in the queue nor ended in its log."""
SILENCE_S = 3600.0
"""How long the scheduler may not answer before its jobs count as failed."""
ATTEMPTS = 3
COMMAND_TIMEOUT_S = 60.0

ALIVE = {
    "queued", "starting", "running", "user_hold", "admin_hold", "dep_hold", "maxrun_hold", "preempting", "preempted",
}  # fmt: skip
ENDING = {"exiting", "killing"}
HELD = {"user_hold", "admin_hold", "dep_hold", "maxrun_hold"}

_ENDINGS = re.compile(
    r"task completed normally with an exit code of (?P<code>-?\d+|None)"
    r"|maximum execution time exceeded"
    r"|user delete requested"
    r"|ERROR: execution failure"
)


def qsub_command(resources: Mapping[str, Any], name: str, workdir: Path, prefix: Path, script: Path) -> list[str]:
    """The qsub call for a job with these Snakemake resources.

    `nodes` and `runtime` (minutes) are needed; `queue`, `project` and `attrs` are passed where given (Cobalt takes
    the project from $COBALT_PROJ otherwise).
    """
    missing = [key for key in ("nodes", "runtime") if key not in resources]
    if missing:
        raise ClusterError(
            f"Job {name} has no resource {' and '.join(missing)}; set default-resources in the profile, "
            "as workflow/profiles/theta does."
        )
    command = ["qsub", "-n", str(resources["nodes"]), "-t", str(resources["runtime"])]
    for option, key in (("-q", "queue"), ("-A", "project"), ("--attrs", "attrs")):
        if resources.get(key):
            command += [option, str(resources[key])]
    return [*command, "--mode", "script", "--jobname", name, "--cwd", str(workdir), "-O", str(prefix), str(script)]


def parse_qstat(text: str) -> dict[str, str]:
    """States by job id, from `qstat --header JobID:State`."""
    states = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) == 2 and words[0] != "JobID":
            states[words[0]] = words[1].lower()
    return states


def ended_as(log: str) -> str | None:
    """`success`, `failed`, or `stopped` by Cobalt, by the last line of a .cobaltlog that tells of an end.

    None if there is no such line.
    """
    endings = list(_ENDINGS.finditer(log))
    if not endings:
        return None
    code = endings[-1].group("code")
    if code == "0":
        return "success"
    if any("maximum execution time" in ending.group() for ending in endings):
        return "stopped"
    if "delete" in endings[-1].group() or code not in (None, "None"):
        return "failed"
    return "stopped"


def submit(script_path: Path, registry: Registry, workdir: Path, prelude: Path | None = None) -> str:
    """Hand a job to Cobalt and return its id; work that is already in the queue is not submitted again."""
    script = JobScript.read(script_path)
    key = script.key(workdir)
    earlier = registry.work(key)
    if earlier is not None and (_qstat() or {}).get(earlier.id) in ALIVE:
        print(f"Job {earlier.id} already does the work of {script.name}; waiting for it.", file=sys.stderr)
        registry.update(earlier, missing_since=None)
        return earlier.id
    prefix = registry.folder / f"{script.name}-{uuid.uuid4().hex[:12]}"
    installed = prefix.with_name(prefix.name + ".sh")
    script.install(installed, prelude)
    command = qsub_command(script.resources, script.name, workdir, prefix, installed)
    restarts = int(script.resources.get("restarts", 0))
    return _hand_over(Record("", key, script.name, f"{prefix}.cobaltlog", command=command, restarts=restarts), registry)


def submit_again(record: Record, registry: Registry) -> Record:
    """Hand the work of a job that has ended to a new one."""
    prefix = registry.folder / f"{record.name}-{uuid.uuid4().hex[:12]}"
    command = list(record.command)
    command[command.index("-O") + 1] = str(prefix)
    again = replace(
        record, log=f"{prefix}.cobaltlog", command=command, restarts=record.restarts - 1, missing_since=None
    )
    new_id = _hand_over(again, registry)
    registry.update(record, successor=new_id)
    return replace(again, id=new_id)


def _hand_over(record: Record, registry: Registry) -> str:
    code, out, err = _call(record.command)
    sys.stderr.write(err)
    words = out.split()
    if code != 0 or not words:
        raise ClusterError(f"qsub refused job {record.name} (exit code {code}); its own words are above.")
    registry.add(replace(record, id=words[0]))
    return words[0]


def status(job_id: str, registry: Registry, now: Callable[[], float] = time.time) -> str:
    """`running`, `success` or `failed`: of the job, or of the one that goes on with its work."""
    poll_s = float(os.environ.get("FFN_COBALT_POLL_S", POLL_S))
    answer = ask_once(registry.folder, _qstat, poll_s)
    record = registry.latest(job_id) or Record(job_id, "", "", "")
    end = _state(record, registry, answer, now)
    if end != "stopped":
        return end
    if record.restarts < 1 or not record.command:
        print(f"Job {record.id} counts as failed: Cobalt stopped it, and it may not start again.", file=sys.stderr)
        return "failed"
    try:
        again = submit_again(record, registry)
    except ClusterError as error:
        print(f"Job {record.id} was stopped by Cobalt and cannot be submitted again: {error}", file=sys.stderr)
        return "failed"
    left = f"restarts left: {again.restarts}"
    print(f"Job {record.id} was stopped by Cobalt; job {again.id} goes on with its work ({left}).", file=sys.stderr)
    return "running"


def _state(record: Record, registry: Registry, answer: Answer, now: Callable[[], float]) -> str:
    """As `status`, or `stopped`."""
    state = answer.states.get(record.id)
    if state == "dep_fail":
        print(f"Job {record.id} cannot start: a job that it depends on has failed.", file=sys.stderr)
        return "failed"
    if state in ALIVE | ENDING:
        if state in HELD and record.warned_of != state:
            print(f"Job {record.id} is held ({state}); release it with qrls or delete it with qdel.", file=sys.stderr)
        registry.update(record, missing_since=None, warned_of=state if state in HELD else None)
        return "running"
    end = ended_as(_log(record))
    if end is not None:
        return end
    if answer.failing_since is not None:
        silent = now() - answer.failing_since >= SILENCE_S
        return _lost(record.id, "the scheduler does not answer", "failed") if silent else "running"
    if record.missing_since is None:
        registry.update(record, missing_since=now())
        return "running"
    if now() - record.missing_since < GRACE_S:
        return "running"
    return _lost(record.id, "it vanished from the queue without an exit code", "stopped")


def cancel(job_ids: Sequence[str], registry: Registry) -> None:
    """Start qdel in a session of its own and return: it takes longer than Snakemake waits."""
    registry.folder.mkdir(parents=True, exist_ok=True)
    present = [record.id if (record := registry.latest(job_id)) else job_id for job_id in job_ids]
    with (registry.folder / "cancel.log").open("ab") as log:
        subprocess.Popen(["qdel", *present], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)


def submit_main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ffn-cobalt-submit."""
    parser = argparse.ArgumentParser(prog="ffn-cobalt-submit", description="Submit a Snakemake jobscript to Cobalt.")
    parser.add_argument(
        "--prelude",
        type=Path,
        default=os.environ.get("FFN_CLUSTER_PRELUDE") or None,
        help="shell file sourced first in each job, e.g. with the modules to load (default: $FFN_CLUSTER_PRELUDE)",
    )
    parser.add_argument("jobscript", type=Path)
    args = parser.parse_args(argv)
    try:
        print(submit(args.jobscript, Registry(Path.cwd() / FOLDER), Path.cwd(), args.prelude))
    except FFNError as error:
        print(f"ffn-cobalt-submit: {error}", file=sys.stderr)
        return 1
    return 0


def status_main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ffn-cobalt-status. One failure here would end the whole workflow, so there is none."""
    parser = argparse.ArgumentParser(prog="ffn-cobalt-status", description="State of a job, in Snakemake's words.")
    parser.add_argument("id")
    args = parser.parse_args(argv)
    try:
        print(status(args.id, Registry(Path.cwd() / FOLDER)))
    except Exception as error:
        print(f"ffn-cobalt-status: {error!r}; asking again later.", file=sys.stderr)
        print("running")
    return 0


def cancel_main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ffn-cobalt-cancel."""
    parser = argparse.ArgumentParser(prog="ffn-cobalt-cancel", description="Delete jobs from Cobalt's queue.")
    parser.add_argument("id", nargs="+")
    args = parser.parse_args(argv)
    try:
        cancel(args.id, Registry(Path.cwd() / FOLDER))
    except OSError as error:
        print(f"ffn-cobalt-cancel: qdel cannot be started: {error}.", file=sys.stderr)
        return 1
    return 0


def _qstat() -> dict[str, str] | None:
    """States of the user's jobs; None if Cobalt did not answer. No jobs: exit code 1 and not a word."""
    for _ in range(ATTEMPTS):
        code, out, err = _call(["qstat", "--header", "JobID:State", "-u", getpass.getuser()])
        if code == 0 or (code == 1 and not out.strip() and not err.strip()):
            return parse_qstat(out)
        sys.stderr.write(err)
    return None


def _call(command: Sequence[str]) -> tuple[int, str, str]:
    """Exit code, stdout and stderr. Files, not pipes: a child left behind by the scheduler cannot block us."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        try:
            code = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, timeout=COMMAND_TIMEOUT_S, check=False
            ).returncode
        except FileNotFoundError:
            return 127, "", f"There is no program {command[0]} here; is this a login node of the cluster?\n"
        except subprocess.TimeoutExpired:
            return 124, "", f"{command[0]} did not answer within {COMMAND_TIMEOUT_S:.0f} s.\n"
        out.seek(0)
        err.seek(0)
        return code, out.read(), err.read()


def _log(record: Record) -> str:
    try:
        return Path(record.log).read_text(encoding="utf-8", errors="replace") if record.log else ""
    except OSError:
        return ""


def _lost(job_id: str, why: str, end: str) -> str:
    print(f"Job {job_id} is lost: {why}.", file=sys.stderr)
    return end
