"""Clusters of one machine: stand-ins for Cobalt and PBS, which really run jobs, and a real Slurm."""

import fcntl
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from slurm.cluster import Slurm

STANDINS = Path(__file__).resolve().parent / "standins"


@dataclass
class Cluster:
    """A scheduler, a working directory, and the environment in which its programs are found.

    Attributes:
        key: As in the names of our commands.
        profile: For Snakemake.
    """

    key: str
    profile: str
    workdir: Path
    env: dict[str, str]

    def command(self, verb: str) -> str:
        return f"ffn-{self.key}-{verb}"

    def beside(self) -> Self:
        """The same in another working directory."""
        workdir = self.workdir.with_name(f"{self.workdir.name}-beside")
        workdir.mkdir()
        return replace(self, workdir=workdir)

    def call(self, *command: str | Path, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """Run a command in the working directory and return it with its output."""
        return subprocess.run(
            [str(word) for word in command],
            cwd=self.workdir,
            env=self.env,
            text=True,
            capture_output=True,
            timeout=timeout,
            check=False,
        )


@dataclass
class StandIn(Cluster):
    """A scheduler that is not there, played by small programs; `state` is where they keep theirs."""

    state: Path

    @property
    def held(self) -> str:
        """Its own word for a job that its user holds."""
        return {"cobalt": "user_hold", "pbs": "H"}[self.key]

    def set(self, fault: str, text: str = "") -> None:
        (self.state / fault).write_text(text)

    def clear(self, fault: str) -> None:
        (self.state / fault).unlink()

    def calls(self, name: str) -> list[str]:
        """The argument lines with which a client was called so far."""
        log = self.state / "calls.log"
        lines = [line.split(" ", 1)[1] for line in log.read_text().splitlines()] if log.exists() else []
        return [line for line in lines if line.split()[0] == name]

    def jobs(self) -> list[str]:
        """Ids in the queue, of this working directory."""
        return [job_id for job_id in self.submitted() if (self.state / "jobs" / f"{job_id}.json").exists()]

    def submitted(self) -> list[str]:
        """Ids of all jobs of this working directory so far."""
        lines = (self.state / "submitted").read_text().splitlines() if (self.state / "submitted").exists() else []
        return sorted(job_id for job_id, folder in map(str.split, lines) if folder == str(self.workdir))

    def end(self, job_id: str, how: str) -> None:
        """End a running job: `walltime` or `node`."""
        path = self.state / "jobs" / f"{job_id}.json"
        while not (job := json.loads(path.read_text())).get("pid"):
            os.sched_yield()
        path.write_text(json.dumps({**job, "how": how}))
        os.killpg(job["pid"], 9 if how == "node" else 15)

    def wait_for(self, job_id: str) -> None:
        """Block until a job has ended."""
        with (self.state / "locks" / job_id).open() as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)


def _environment(programs: Path | None) -> dict[str, str]:
    """Ours, without what a test must not depend on; `programs` are found first."""
    installed = Path(sys.executable).parent
    env = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("COBALT", "PBS", "SLURM", "FFN_", "SNAKEMAKE"))
    }
    path = [str(installed), env["PATH"]] if programs is None else [str(programs), str(installed), env["PATH"]]
    if shutil.which("ffn-pbs-submit", path=str(installed)) is None:
        raise AssertionError("ffn-pbs-submit is not installed: run `make setup` (or pip install -e .) first")
    return env | {"PATH": os.pathsep.join(path), "FFN_CLUSTER_POLL_S": "0"}


def stand_in(key: str, tmp_path: Path) -> StandIn:
    """A fresh stand-in for Cobalt or PBS."""
    state, workdir, home = (tmp_path / name for name in ("scheduler", "work", "home"))
    for folder in ("jobs", "locks", "history"):
        (state / folder).mkdir(parents=True)
    workdir.mkdir()
    home.mkdir()
    programs = STANDINS / key
    # A login shell, as PBS jobs need one, sets PATH anew.
    (home / ".bash_profile").write_text(f'export PATH="{programs}:$PATH"\n')
    env = _environment(programs) | {"SCHEDULER_STANDIN": str(state), "HOME": str(home)}
    env |= {"XDG_CACHE_HOME": os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache"))}
    env["FFN_PROJECT"] = "connectomics"
    return StandIn(key, {"cobalt": "theta", "pbs": "polaris"}[key], workdir, env, state)


@dataclass
class SlurmCluster(Cluster):
    """The real Slurm."""

    slurm: Slurm

    def jobs(self) -> list[str]:
        """Ids in the queue, of this working directory."""
        return self._listed("--states=PENDING,RUNNING,COMPLETING")

    def submitted(self) -> list[str]:
        """Ids of all jobs of this working directory so far."""
        return self._listed("--states=all")

    def wait_for(self, job_id: str) -> None:
        """Block until a job has ended."""
        self.slurm.wait_for(job_id)

    def _listed(self, *options: str) -> list[str]:
        lines = self.slurm.ask("squeue", "--noheader", "--format=%i %Z", *options).stdout.splitlines()
        return sorted(job_id for job_id, folder in map(str.split, lines) if folder == str(self.workdir))


def slurm_cluster(real_slurm: Slurm, tmp_path: Path) -> SlurmCluster:
    """The real Slurm, which has been started."""
    workdir = tmp_path / "work"
    workdir.mkdir()
    env = _environment(None) | {"SLURM_CONF": real_slurm.env["SLURM_CONF"]}
    return SlurmCluster("slurm", "slurm", workdir, env, real_slurm)
