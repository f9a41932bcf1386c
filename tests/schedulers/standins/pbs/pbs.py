"""What the stand-in for PBS Pro says and tells its jobs; run with a job's id, it is the server of that job."""

import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
import server  # noqa: E402

SERVER = "polaris-pbs-01.hsn.cm.polaris.alcf.anl.gov"
_WALLTIME, _NODE_LOST, _TERMINATED = -29, -3, 256 + 15


def stamp() -> str:
    return time.strftime("%a %b %d at %H:%M", time.gmtime(server.now()))


def environment(job: server.Job) -> dict[str, str]:
    nodes = server.ROOT / f"nodes-{job['number']}"
    nodes.write_text("".join(f"localhost-{number}\n" for number in range(job["nodes"])))
    return {
        "PBS_JOBID": job["id"],
        "PBS_JOBNAME": job["jobname"],
        "PBS_NODEFILE": str(nodes),
        "PBS_O_WORKDIR": job["workdir"],
        "PBS_QUEUE": job["queue"],
        "PBS_ENVIRONMENT": "PBS_BATCH",
        "PBS_O_HOST": "login-01",
    }


def started(job: server.Job) -> None:
    return


def ended(job: server.Job, how: str, code: int | None) -> None:
    """Keep the job in the history, as qstat -x shows it."""
    status = {"walltime": _WALLTIME, "node": _NODE_LOST, "deleted": _TERMINATED}.get(how, code)
    words = {"walltime": " and exceeded resource walltime", "deleted": " and terminated", "node": " and failed"}
    end = words.get(how, " and finished" if code == 0 else " and failed")
    comment = f"Job run at {stamp()} on (localhost-0:ncpus=1){end}"
    server.store({**job, "state": "F", "exit": status, "comment": comment}, "history")


def facts(job: server.Job) -> dict[str, object]:
    """A job as qstat -f shows it."""
    hours, rest = divmod(job["seconds"], 3600)
    return {
        "Job_Name": job["jobname"],
        "Job_Owner": f"{job['user']}@login-01",
        "job_state": job["state"],
        "queue": job["queue"],
        "server": SERVER,
        "Account_Name": job["project"],
        "Exit_status": job.get("exit"),
        "comment": job.get("comment"),
        "Resource_List": {
            "nodect": job["nodes"],
            "walltime": f"{hours:02d}:{rest // 60:02d}:{rest % 60:02d}",
            "filesystems": job["filesystems"],
        },
    }


DIALECT = server.Dialect(HERE, environment, started, ended)

if __name__ == "__main__":
    server.serve(sys.argv[1], DIALECT)
