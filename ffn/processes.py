"""Names of processes that other processes understand, also on other machines and after the process has ended."""

import functools
import hashlib
import os
import re
import socket
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import psutil

_UNKNOWN = 0
"""The start of a process where the system does not tell: it counts as living while there is one of its number."""
_NAME = re.compile(r"(\w{1,16})-([0-9a-f]{8})-(\d+)-(\d+)")


@dataclass(frozen=True)
class ProcessId:
    """One process on one machine; no other process ever has the same.

    Attributes:
        host: The machine's name, for people.
        machine: Eight hexadecimal digits for the machine since it was started, and its process numbers: containers
            of one machine may each count their own.
        pid: Process number.
        start: When the process started. Process numbers are used again, with another start.
    """

    host: str
    machine: str
    pid: int
    start: int

    @classmethod
    def current(cls) -> Self:
        """The process that calls this."""
        pid = os.getpid()
        return cls(_host(), _machine(), pid, _own_start(pid))

    @classmethod
    def parse(cls, name: str) -> Self | None:
        """The process whose `name` this is, None if it is not such a name."""
        match = _NAME.fullmatch(name)
        return None if match is None else cls(match[1], match[2], int(match[3]), int(match[4]))

    @property
    def name(self) -> str:
        """A part of a file's name, at most 60 characters without dots."""
        return f"{self.host}-{self.machine}-{self.pid}-{self.start}"

    @property
    def is_here(self) -> bool:
        """Whether it is, or was, a process of this machine, so that `is_gone` can tell."""
        return self.machine == _machine()

    def is_gone(self) -> bool:
        """Whether it was a process of this machine and has ended; False where that cannot be known."""
        if not self.is_here:
            return False
        try:
            start = _start(self.pid)
        except ProcessLookupError:
            return True
        return start is not None and self.start != _UNKNOWN and start != self.start

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


@functools.cache
def _host() -> str:
    return re.sub(r"\W+", "_", socket.gethostname().partition(".")[0])[:16] or "unknown"


@functools.cache
def _machine() -> str:
    parts = [socket.gethostname()]
    try:
        parts += [Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8")]
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    except OSError:
        parts.append(str(uuid.getnode()))
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()[:8]


@functools.lru_cache(maxsize=1)
def _own_start(pid: int) -> int:
    return _start(pid) or _UNKNOWN


def _start(pid: int) -> int | None:
    """When a process started, None where the system does not tell. Raises ProcessLookupError if there is none."""
    try:
        # In Linux' own ticks since the machine was started: seconds since 1970 change when its clock is set.
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        if fields[0] in "ZX":  # killed, and its parent has not asked for its exit code yet
            raise ProcessLookupError(pid)
        return int(fields[19])
    except FileNotFoundError:
        # No such process, another user's that /proc hides, or another system than Linux.
        if not psutil.pid_exists(pid):
            raise ProcessLookupError(pid) from None
    except PermissionError:
        return None
    if Path("/proc/self/stat").exists():
        return None
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            raise ProcessLookupError(pid)
        return int(process.create_time() * 100)
    except psutil.NoSuchProcess as error:
        raise ProcessLookupError(pid) from error
    except psutil.AccessDenied:
        return None
