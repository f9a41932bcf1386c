"""A scheduler that is not there, played by small programs that really run jobs on this machine."""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = Path(__file__).resolve().parent / "cobalt"
PROFILE = ROOT / "workflow" / "profiles" / "theta"


@dataclass
class Cobalt:
    """The stand-in's state, a working directory, and the environment in which its programs are found."""

    state: Path
    workdir: Path
    env: dict[str, str]

    def set(self, knob: str, text: str = "") -> None:
        (self.state / knob).write_text(text)

    def clear(self, knob: str) -> None:
        (self.state / knob).unlink()

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

    def calls(self, name: str) -> list[str]:
        """The argument lines with which a client was called so far."""
        log = self.state / "calls.log"
        lines = log.read_text().splitlines() if log.exists() else []
        return [line for line in lines if line.split()[0] == name]

    def jobs(self) -> list[str]:
        """Ids in the queue."""
        return sorted(path.stem for path in (self.state / "jobs").glob("*.json"))

    def submitted(self) -> list[str]:
        """Ids of all jobs so far."""
        return sorted(path.name for path in (self.state / "locks").iterdir())

    def time_is_up(self, job_id: str) -> None:
        """End a job as Cobalt does when its time is over; waits until it runs."""
        path = self.state / "jobs" / f"{job_id}.json"
        while "pid" not in (job := json.loads(path.read_text())):
            time.sleep(0.02)
        path.write_text(json.dumps({**job, "state": "killing"}))
        with Path(job["log"]).open("a") as log:
            log.write("Info: maximum execution time exceeded; initiating job termination\n")
        os.killpg(job["pid"], signal.SIGTERM)

    def wait_for(self, job_id: str) -> None:
        """Block until a job has ended."""
        with (self.state / "locks" / job_id).open() as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)


@pytest.fixture
def cobalt(tmp_path: Path) -> Cobalt:
    state = tmp_path / "cobalt"
    for folder in ("jobs", "locks"):
        (state / folder).mkdir(parents=True)
    workdir = tmp_path / "work"
    workdir.mkdir()
    programs = Path(sys.executable).parent
    env = {key: value for key, value in os.environ.items() if not key.startswith(("COBALT", "FFN_", "SNAKEMAKE"))}
    env |= {
        "PATH": f"{PROGRAMS}:{programs}:{env['PATH']}",
        "COBALT_STANDIN": str(state),
        "COBALT_PROJ": "connectomics",
        "FFN_COBALT_POLL_S": "0",
    }
    if shutil.which("ffn-cobalt-submit", path=env["PATH"]) is None:
        pytest.fail("ffn-cobalt-submit is not installed: run `make setup` (or pip install -e .) first")
    return Cobalt(state, workdir, env)
