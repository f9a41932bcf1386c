"""A real Slurm of a few nodes on this machine, with accounting, as the user who runs the tests.

    munged      who is who                 mariadbd <- slurmdbd     accounting (sacct)
    slurmctld   the queue                  slurmd, one a node       run the jobs

Everything lies in one folder; ports are taken from those that are free.
"""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

PROGRAMS = (
    "munged", "mariadbd", "mariadb-install-db", "slurmdbd", "slurmctld", "slurmd", "sacctmgr", "sacct", "sbatch",
)  # fmt: skip
HINT = "a real Slurm with accounting: apt-get install slurm-wlm slurmdbd munge mariadb-server"
START_S = 60.0
JOB_S = 180.0
CPUS = 32
"""Of each node, whatever this machine has: jobs of the tests wait more than they compute."""


def path_with_daemons() -> str:
    """$PATH and where Debian keeps daemons."""
    return os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])


def missing_programs() -> list[str]:
    return [name for name in PROGRAMS if shutil.which(name, path=path_with_daemons()) is None]


@dataclass(frozen=True)
class _Process:
    number: int
    parent: int
    command: str
    variables: list[str]


def _processes() -> list[_Process]:
    """Those of this machine that may be looked at."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            command = (folder / "cmdline").read_text(errors="replace")
            variables = (folder / "environ").read_text(errors="replace").split("\0")
        except OSError:
            continue
        found.append(_Process(int(folder.name), parent, command, variables))
    return found


class Slurm:
    """One cluster; `start` returns when its nodes are idle."""

    def __init__(self, folder: Path, nodes: int = 4, kill_wait_s: int = 2) -> None:
        self.folder, self.nodes, self.kill_wait_s = folder, nodes, kill_wait_s
        self.user = subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()
        self.env = {**os.environ, "PATH": path_with_daemons(), "SLURM_CONF": str(folder / "slurm.conf")}
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def names(self) -> list[str]:
        return [f"n{number}" for number in range(1, self.nodes + 1)]

    def start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o755)
        with _free_ports(3 + self.nodes) as ports:
            self._write_settings(ports)
        self._start_munge()
        self._start_accounting()
        self._spawn("slurmctld", "slurmctld", "-D")
        self._wait("slurmctld", lambda: self.ask("scontrol", "ping").returncode == 0)
        for name in self.names:
            self.start_node(name)
        self._wait("nodes", lambda: self._idle() == self.nodes)

    def stop(self) -> None:
        """End all daemons, and the jobs with them."""
        for name in reversed(list(self._daemons)):
            self._end(name, signal.SIGTERM)

    def ask(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, env=self.env, text=True, capture_output=True, check=False, timeout=60)

    def clear(self) -> None:
        """Cancel all jobs; returns when the nodes are idle again."""
        self.ask("scancel", "--me", "--signal=KILL", "--full")
        self.ask("scancel", "--me")
        # A node whose task took too long to die takes no more, which is no business of the next test.
        self.ask("scontrol", "update", f"NodeName={','.join(self.names)}", "State=RESUME")
        self._wait("nodes", lambda: self._idle() == self.nodes)

    def state(self, job_id: str) -> str:
        """In Slurm's words, as the controller has it."""
        return self.ask("squeue", "--noheader", "--states=all", f"--jobs={job_id}", "--format=%T").stdout.strip()

    def wait_for(self, job_id: str, *states: str) -> str:
        """Block until a job is in one of these states, by default at its end; returns it."""
        ended = states or ("COMPLETED", "FAILED", "TIMEOUT", "NODE_FAIL", "CANCELLED", "OUT_OF_MEMORY")
        self._wait(f"job {job_id} in {ended}", lambda: self.state(job_id) in ended, JOB_S)
        return self.state(job_id)

    def end_time(self, job_id: str) -> None:
        """Let a running job's wall time, of which Slurm counts minutes, be over soon."""
        changed = self.ask("scontrol", "update", f"JobId={job_id}", "EndTime=now+1")
        if changed.returncode:
            raise AssertionError(changed.stdout + changed.stderr)

    def first_node(self, job_id: str) -> str:
        """Where a running job's script runs."""
        return self.ask("squeue", "--noheader", f"--jobs={job_id}", "--format=%B").stdout.strip()

    def limit_jobs(self, count: int) -> None:
        """How many jobs the user may have in the queue; -1 = any number."""
        changed = self.ask("sacctmgr", "--immediate", "modify", "user", self.user, "set", f"MaxSubmitJobs={count}")
        if changed.returncode:
            raise AssertionError(changed.stdout + changed.stderr)

    def start_node(self, name: str) -> None:
        self._spawn(name, "slurmd", "-D", "-N", name)

    def kill_node(self, name: str) -> None:
        """As if its power failed: the daemon and all that it runs are gone."""
        daemon = self._daemons.pop(name)
        daemon.kill()
        daemon.wait()
        tasks = [process for process in _processes() if f"SLURMD_NODENAME={name}" in process.variables]
        # What would report their end first.
        above = {task.parent for task in tasks}
        for process in _processes():
            if process.number in above and process.command.startswith("slurmstepd"):
                os.kill(process.number, signal.SIGKILL)
        for task in tasks:
            with suppress(ProcessLookupError):
                os.kill(task.number, signal.SIGKILL)

    def stop_controller(self) -> None:
        self._end("slurmctld", signal.SIGTERM)

    def start_controller(self) -> None:
        self._spawn("slurmctld", "slurmctld", "-D")
        self._wait("slurmctld", lambda: self.ask("scontrol", "ping").returncode == 0)

    # --- parts

    def _write_settings(self, ports: list[int]) -> None:
        controller, dbd, self._database_port, *nodes = ports
        munge = self.folder / "munge.socket"
        (self.folder / "state").mkdir()
        spools = [self.folder / f"spool-{name}" for name in self.names]
        for spool in spools:
            spool.mkdir()
        lines = [
            "ClusterName=tests", "SlurmctldHost=localhost", f"SlurmctldPort={controller}", f"AuthInfo=socket={munge}",
            "AuthType=auth/munge", "CredType=cred/munge", f"SlurmUser={self.user}", f"SlurmdUser={self.user}",
            "ProctrackType=proctrack/linuxproc", "TaskPlugin=task/none", "SelectType=select/cons_tres",
            "SelectTypeParameters=CR_Core", "ReturnToService=2", "SlurmdParameters=config_overrides",
            "JobAcctGatherType=jobacct_gather/none", "MpiDefault=none", "SwitchType=switch/none",
            "AccountingStorageEnforce=limits", "EnforcePartLimits=ALL",
            "AccountingStorageType=accounting_storage/slurmdbd", "AccountingStorageHost=localhost",
            f"AccountingStoragePass={munge}", f"AccountingStoragePort={dbd}", "SchedulerType=sched/backfill",
            "SchedulerParameters=sched_interval=1,sched_min_interval=100000,bf_interval=1,batch_sched_delay=0",
            f"KillWait={self.kill_wait_s}", "InactiveLimit=0", "MinJobAge=300", "SlurmdTimeout=10", "OverTimeLimit=0",
            f"StateSaveLocation={self.folder}/state", f"SlurmdSpoolDir={self.folder}/spool-%n",
            f"SlurmctldPidFile={self.folder}/slurmctld.pid", f"SlurmdPidFile={self.folder}/slurmd-%n.pid",
            f"SlurmctldLogFile={self.folder}/slurmctld.log", f"SlurmdLogFile={self.folder}/slurmd-%n.log",
        ]  # fmt: skip
        lines += [
            f"NodeName={name} NodeHostname=localhost NodeAddr=127.0.0.1 Port={port} CPUs={CPUS} RealMemory=64000"
            for name, port in zip(self.names, nodes, strict=True)
        ]
        lines.append(
            f"PartitionName=main Nodes={','.join(self.names)} Default=YES MaxNodes={self.nodes} MaxTime=1:00:00"
            " State=UP"
        )
        (self.folder / "slurm.conf").write_text("\n".join(lines) + "\n")
        accounting = self.folder / "slurmdbd.conf"
        accounting.write_text(
            f"AuthType=auth/munge\nAuthInfo=socket={munge}\nDbdHost=localhost\nDbdPort={dbd}\nSlurmUser={self.user}\n"
            f"StorageType=accounting_storage/mysql\nStorageHost=127.0.0.1\nStoragePort={self._database_port}\n"
            f"StorageUser=slurm\nStoragePass=slurm\nStorageLoc=slurm_acct\nLogFile={self.folder}/slurmdbd.log\n"
            f"PidFile={self.folder}/slurmdbd.pid\n"
        )
        accounting.chmod(0o600)

    def _start_munge(self) -> None:
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o600)
        here = self.folder
        self._spawn(
            "munged", "munged", "--foreground", "--force", f"--socket={here}/munge.socket", f"--key-file={key}",
            f"--pid-file={here}/munged.pid", f"--log-file={here}/munged.log", f"--seed-file={here}/munged.seed",
        )  # fmt: skip
        self._wait("munged", lambda: (here / "munge.socket").exists())

    def _start_accounting(self) -> None:
        data, init = self.folder / "database", self.folder / "init.sql"
        made = self.ask(
            "mariadb-install-db", "--no-defaults", f"--datadir={data}", f"--user={self.user}", "--skip-test-db",
            "--auth-root-authentication-method=normal",
        )  # fmt: skip
        if made.returncode:
            raise AssertionError(f"mariadb-install-db: {made.stdout[-2000:]}{made.stderr[-2000:]}")
        init.write_text(
            "CREATE DATABASE IF NOT EXISTS slurm_acct;\n"
            "CREATE USER IF NOT EXISTS 'slurm'@'127.0.0.1' IDENTIFIED BY 'slurm';\n"
            "GRANT ALL ON slurm_acct.* TO 'slurm'@'127.0.0.1';\n"
        )
        self._spawn(
            "mariadbd", "mariadbd", "--no-defaults", f"--datadir={data}", f"--user={self.user}",
            f"--socket={self.folder}/database.socket", f"--pid-file={self.folder}/mariadbd.pid",
            f"--port={self._database_port}", "--bind-address=127.0.0.1", "--skip-name-resolve",
            "--innodb-lock-wait-timeout=900", f"--init-file={init}",
        )  # fmt: skip
        self._wait("mariadbd", lambda: _listening(self._database_port))
        self._spawn("slurmdbd", "slurmdbd", "-D")
        self._wait("slurmdbd", lambda: self.ask("sacctmgr", "--noheader", "show", "cluster").returncode == 0)
        for words in (["cluster", "tests"], ["account", "connectomics"], ["user", self.user, "account=connectomics"]):
            added = self.ask("sacctmgr", "--immediate", "add", *words)
            if added.returncode:
                raise AssertionError(f"sacctmgr add {words}: {added.stdout}{added.stderr}")

    def _spawn(self, name: str, *command: str) -> None:
        log = (self.folder / f"{name}.out").open("ab")
        with log:
            self._daemons[name] = subprocess.Popen(
                command, env=self.env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def _end(self, name: str, how: signal.Signals) -> None:
        daemon = self._daemons.pop(name)
        if daemon.poll() is None:
            daemon.send_signal(how)
            try:
                daemon.wait(20)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()

    def _idle(self) -> int:
        states = self.ask("sinfo", "--noheader", "--Node", "--format=%T").stdout.split()
        return states.count("idle")

    def _wait(self, what: str, ready: Callable[[], bool], seconds: float = START_S) -> None:
        until = time.monotonic() + seconds
        while not ready():
            ended = [name for name, daemon in self._daemons.items() if daemon.poll() is not None]
            if ended or time.monotonic() > until:
                logs = "\n".join(_tail(self.folder / f"{name}{end}") for name in ended for end in (".out", ".log"))
                raise AssertionError(
                    f"{what} did not start ({', '.join(ended) or 'too slow'} in {self.folder}).\n{logs}"
                )
            time.sleep(0.1)


@contextmanager
def _free_ports(count: int) -> Iterator[list[int]]:
    """Ports that nobody listens on; kept until the block ends, so that all are different."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        yield [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def _listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _tail(path: Path) -> str:
    return path.read_text(errors="replace")[-2000:] if path.exists() else ""
