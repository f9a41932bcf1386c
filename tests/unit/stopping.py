"""Another process at work: stopped (SIGSTOP) at a chosen point while a test does something, or holding a lock."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ffn.errors import StageError
from ffn.locks import lock
from ffn.stages import LOCK

ROOT = Path(__file__).resolve().parents[2]
PAUSE = "import os, signal, sys\ndef pause(): os.kill(os.getpid(), signal.SIGSTOP)\n"


@contextmanager
def stopped(code: str, *args: str) -> Iterator[subprocess.Popen[str]]:
    """Run Python code that calls `pause()`, and hand over the process when it has."""
    command = [sys.executable, "-c", PAUSE + code, *args]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        _, status = os.waitpid(process.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status), process.communicate()
        yield process
    finally:
        process.kill()
        process.communicate()


def went_on(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Let it go on to its end: exit code, output, errors."""
    process.send_signal(signal.SIGCONT)
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def killed(process: subprocess.Popen[str], reaped: bool = True) -> None:
    """Kill it and wait for that; not `reaped`: it stays as a zombie."""
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | (0 if reaped else os.WNOWAIT))


def refused_while_locked(folder: Path, work: Callable[[], object]) -> None:
    """Assert that `work`, a stage of one process, writes nothing while another process works in its folder."""
    with lock(folder / LOCK):
        before = sorted(folder.rglob("*"))
        with pytest.raises(StageError, match=f"Another process works in {folder}: process {os.getpid()} on"):
            work()
        assert sorted(folder.rglob("*")) == before
