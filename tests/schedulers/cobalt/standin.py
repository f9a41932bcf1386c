"""A stand-in for Cobalt 1.0.33: qsub, qstat and qdel with its texts and exit codes, running real jobs here.

State lives in $COBALT_STANDIN: `next`, `jobs/<id>.json` while a job is in the queue, `locks/<id>` locked until
the job has ended (a test waits on that lock), `calls.log` with one line a call. Knobs, as files in that folder:
`hold` (holds the state that new jobs get, in which they stay), `deaf` (qstat fails), `vanish` (jobs end without a
last line in their .cobaltlog).
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
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = Path(os.environ["COBALT_STANDIN"])
FORCE_KILL_DELAY_S = 2.0


def note_call(name: str) -> None:
    """One line in calls.log for each call of a client."""
    with (ROOT / "calls.log").open("a") as log:
        log.write(f"{name} {shlex.join(sys.argv[1:])}\n")


def knob(name: str) -> str | None:
    """Text of a knob file; None where it is not set."""
    path = ROOT / name
    return path.read_text().strip() if path.exists() else None


def stamp() -> str:
    return time.strftime("%a %b %d %H:%M:%S %Y +0000 (UTC)", time.gmtime())


def job_file(job_id: str) -> Path:
    return ROOT / "jobs" / f"{job_id}.json"


def lock_file(job_id: str) -> Path:
    return ROOT / "locks" / job_id


def load(job_id: str) -> dict | None:
    try:
        return json.loads(job_file(job_id).read_text())
    except FileNotFoundError:
        return None


def store(job: dict) -> None:
    partial = job_file(job["id"]).with_suffix(f".{os.getpid()}")
    partial.write_text(json.dumps(job))
    partial.replace(job_file(job["id"]))


def jobs() -> list[dict]:
    ids = sorted((int(path.stem) for path in (ROOT / "jobs").glob("*.json")), key=int)
    return [job for job in (load(str(i)) for i in ids) if job is not None]


@contextlib.contextmanager
def guarded() -> Iterator[None]:
    """One process at a time changes states."""
    with (ROOT / "lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def next_id() -> str:
    counter = ROOT / "next"
    number = int(counter.read_text()) if counter.exists() else 563001
    counter.write_text(str(number + 1))
    return str(number)


def say(job: dict, line: str) -> None:
    """Add a line to the job's .cobaltlog; the server writes only while the file exists."""
    log = Path(job["log"])
    if log.exists():
        with log.open("a") as handle:
            handle.write(f"{stamp()} {line}\n")


def environment(job: dict) -> dict[str, str]:
    """What a job sees: the user's own environment is not inherited."""
    user = pwd.getpwuid(os.getuid())
    return {
        "HOME": os.environ.get("HOME", user.pw_dir),
        "USER": user.pw_name,
        "LOGNAME": user.pw_name,
        "SHELL": "/bin/bash",
        "PATH": f"{HERE}:/usr/local/bin:/usr/bin:/bin",
        "COBALT_JOBID": job["id"],
        "COBALT_RESID": job["id"],
        "COBALT_PARTNAME": "0",
        "COBALT_PARTSIZE": str(job["nodes"]),
        "COBALT_JOBSIZE": str(job["nodes"]),
        "COBALT_PROJECT": job["project"],
        "COBALT_QUEUE": job["queue"],
        **job["env"],
    }


def serve(job_id: str) -> None:
    """Run one job to its end: what the server and the node do, in a process of its own."""
    with lock_file(job_id).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        os.write(1, b"locked\n")
        silence = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(silence, descriptor)
        with guarded():
            job = load(job_id)
            if job is None:
                return
            held = job["state"] != "queued"
        if not held:
            run(job)


def run(job: dict) -> None:
    with Path(job["out"]).open("ab") as out, Path(job["err"]).open("ab") as err:
        with guarded():
            if load(job["id"]) is None:
                return
            process = subprocess.Popen(
                [job["script"], *job["args"]],
                cwd=job["cwd"],
                env=environment(job),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )
            job |= {"state": "running", "pid": process.pid}
            store(job)
        say(job, f"Info: Job {job['id']}/{job['user']}/ Q.{job['queue']}: Running job on 0")
        try:
            process.wait(job["seconds"] or None)
        except subprocess.TimeoutExpired:
            say(job, "Info: maximum execution time exceeded; initiating job termination")
            end(process)
        else:
            deleted = (load(job["id"]) or {}).get("state") == "killing"
            if not deleted and knob("vanish") is None:
                code = process.returncode if process.returncode >= 0 else 128 - process.returncode
                ending = f"task completed normally with an exit code of {code}"
                say(job, f"Info: {ending}; initiating job cleanup and removal")
    job_file(job["id"]).unlink(missing_ok=True)


def end(process: subprocess.Popen) -> None:
    """SIGTERM to all of a job's processes, SIGKILL to those that stay."""
    os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(FORCE_KILL_DELAY_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


if __name__ == "__main__":
    serve(sys.argv[1])
