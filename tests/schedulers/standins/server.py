"""What the stand-ins for schedulers share: they really run jobs on this machine.

The state of one lies in $SCHEDULER_STANDIN:

    jobs/<id>.json       jobs in the queue                locks/<id>   locked until the job has ended
    history/<id>.json    jobs that have ended             calls.log    one line for each call of a client
    submitted            id and working directory of each job so far

Faults are files in that folder, some with a text in them:

    hold        the state that new jobs get, in which they stay
    running     so many jobs run at once, the others wait
    full        so many jobs may be in the queue, qsub refuses more
    refuse      qsub refuses with this text
    deaf        qstat and qdel do not reach the server
    garbage     qstat prints this text and exits with 0
    unescaped   qstat of PBS writes variables into its JSON as they are
    chatter     qsub prints this text before and after the id, on stdout
    lost        qsub accepts the job, but its answer is lost
    vanish      jobs end without a trace
    skew        seconds that the clock of the log stamps is wrong
"""

import contextlib
import fcntl
import json
import os
import pwd
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(os.environ["SCHEDULER_STANDIN"])
FORCE_KILL_DELAY_S = 2.0

Job = dict[str, Any]


@dataclass(frozen=True)
class Dialect:
    """What differs between the schedulers that are played.

    Attributes:
        home: Folder of its programs.
        environment: What a job sees beside the user's own name, shell and home.
        started: Called when a job runs.
        ended: Called with a job, how it ended (`exit`, `deleted`, `walltime`, `node`) and its exit code.
    """

    home: Path
    environment: Callable[[Job], dict[str, str]]
    started: Callable[[Job], None]
    ended: Callable[[Job, str, int | None], None]


def note_call(name: str) -> None:
    """One line in calls.log for each call of a client."""
    with (ROOT / "calls.log").open("a") as log:
        log.write(f"{time.time():.3f} {name} {shlex.join(sys.argv[1:])}\n")


def fault(name: str) -> str | None:
    """Text of a fault that is set; None where it is not."""
    try:
        return (ROOT / name).read_text().strip()
    except FileNotFoundError:
        return None


def fail(text: str, code: int = 1) -> None:
    """End the client with a message."""
    print(text, file=sys.stderr)
    sys.exit(code)


def now() -> float:
    """The server's clock."""
    return time.time() + float(fault("skew") or 0)


def job_file(job_id: str) -> Path:
    return ROOT / "jobs" / f"{job_id}.json"


def load(job_id: str) -> Job | None:
    """A job in the queue."""
    return _read(job_file(job_id))


def past(job_id: str) -> Job | None:
    """A job that has ended."""
    return _read(ROOT / "history" / f"{job_id}.json")


def store(job: Job, folder: str = "jobs") -> None:
    partial = ROOT / folder / f"{job['id']}.{os.getpid()}"
    partial.write_text(json.dumps(job))
    partial.replace(ROOT / folder / f"{job['id']}.json")


def jobs() -> list[Job]:
    """Jobs in the queue, in the order in which they came."""
    found = [_read(path) for path in (ROOT / "jobs").glob("*.json")]
    return sorted((job for job in found if job is not None), key=lambda job: job["number"])


@contextlib.contextmanager
def guarded() -> Iterator[None]:
    """One process at a time changes states."""
    with (ROOT / "lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def next_number() -> int:
    counter = ROOT / "next"
    number = int(counter.read_text()) if counter.exists() else 563001
    counter.write_text(str(number + 1))
    return number


def launch_server(script: Path, job_id: str) -> None:
    """Start the process that looks after a job; returns when the job is locked."""
    with (ROOT / "submitted").open("a") as submitted:
        submitted.write(f"{job_id} {Path.cwd()}\n")
    server = subprocess.Popen(
        [sys.executable, str(script), job_id],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    server.stdout.readline()


def serve(job_id: str, dialect: Dialect) -> None:
    """Run one job to its end: what the server and the nodes do, in a process of its own."""
    with (ROOT / "locks" / job_id).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        os.write(1, b"locked\n")
        silence = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(silence, descriptor)
        if _wait_for_turn(job_id):
            _run(job_id, dialect)


def end_job(job: Job, state: str, how: str) -> None:
    """Take a job's processes away, as its server finds out; `how` as in `Dialect.ended`."""
    store({**job, "state": state, "how": how})
    os.killpg(job["pid"], signal.SIGKILL if how == "node" else signal.SIGTERM)


def _wait_for_turn(job_id: str) -> bool:
    """Whether the job is to run: it is not held, and still there when nodes are free."""
    while True:
        with guarded():
            job = load(job_id)
            if job is None or job["state"] != job["queued"]:
                return False
            limit = fault("running")
            busy = sum("pid" in other for other in jobs())
            first = next(other["id"] for other in jobs() if "pid" not in other and other["state"] == other["queued"])
            if limit is None or (busy < int(limit) and first == job_id):
                store({**job, "pid": 0})
                return True
        time.sleep(0.05)


def _run(job_id: str, dialect: Dialect) -> None:
    job = load(job_id)
    with Path(job["out"]).open("ab") as out, Path(job["err"]).open("ab") as err:
        with guarded():
            process = subprocess.Popen(
                [job["script"], *job["args"]],
                cwd=job["cwd"],
                env=_environment(job, dialect),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )
            job |= {"state": job["running"], "pid": process.pid}
            store(job)
        dialect.started(job)
        how, code = "exit", None
        try:
            code = process.wait(job["seconds"] or None)
        except subprocess.TimeoutExpired:
            how = "walltime"
            _end(process)
        with guarded():
            how = (load(job_id) or {}).get("how", how)
            if how == "deleted":
                _end(process)
            code = None if code is None else code if code >= 0 else 128 - code
            if fault("vanish") is None:
                dialect.ended(job, how, code)
            job_file(job_id).unlink(missing_ok=True)


def _end(process: "subprocess.Popen[bytes]") -> None:
    """SIGTERM to all of a job's processes, SIGKILL to those that stay."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(FORCE_KILL_DELAY_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _environment(job: Job, dialect: Dialect) -> dict[str, str]:
    """What a job sees: the user's own environment is not inherited."""
    user = pwd.getpwuid(os.getuid())
    return {
        "HOME": os.environ.get("HOME", user.pw_dir),
        "USER": user.pw_name,
        "LOGNAME": user.pw_name,
        "SHELL": "/bin/bash",
        "PATH": f"{dialect.home}:/usr/local/bin:/usr/bin:/bin",
        **dialect.environment(job),
    }


def _read(path: Path) -> Job | None:
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        return None
