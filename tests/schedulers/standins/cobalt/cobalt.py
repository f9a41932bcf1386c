"""What the stand-in for Cobalt 1.0.33 says and tells its jobs; run with a job's id, it is the server of that job."""

import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
import server  # noqa: E402


def stamp() -> str:
    return time.strftime("%a %b %d %H:%M:%S %Y +0000 (UTC)", time.gmtime(server.now()))


def say(job: server.Job, line: str) -> None:
    """Add a line to the job's .cobaltlog; the server writes only while the file exists."""
    log = Path(job["log"])
    if log.exists():
        with log.open("a") as handle:
            handle.write(f"{stamp()} {line}\n")


def environment(job: server.Job) -> dict[str, str]:
    return {
        "COBALT_JOBID": job["id"],
        "COBALT_RESID": job["id"],
        "COBALT_PARTNAME": ",".join(map(str, range(job["nodes"]))),
        "COBALT_PARTSIZE": str(job["nodes"]),
        "COBALT_JOBSIZE": str(job["nodes"]),
        "COBALT_PROJECT": job["project"],
        "COBALT_QUEUE": job["queue"],
        "COBALT_STARTTIME": str(int(server.now())),
        "COBALT_ENDTIME": str(int(server.now()) + job["seconds"]),
        **job["env"],
    }


def started(job: server.Job) -> None:
    say(job, f"Info: Job {job['id']}/{job['user']}/ Q.{job['queue']}: Running job on 0")


def ended(job: server.Job, how: str, code: int | None) -> None:
    if how == "walltime":
        say(job, "Info: maximum execution time exceeded; initiating job termination")
    elif how == "node":
        say(job, "Info: task completed normally with an exit code of None; initiating job cleanup and removal")
    elif how == "exit":
        say(job, f"Info: task completed normally with an exit code of {code}; initiating job cleanup and removal")


DIALECT = server.Dialect(HERE, environment, started, ended)

if __name__ == "__main__":
    server.serve(sys.argv[1], DIALECT)
