"""Ranks that run bare training steps, each in a process of its own, for a turn at a time."""

import importlib.util
import json
import math
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from ffn.config import Config
from ffn.errors import RankError
from ffn.training.autotune.candidates import Candidate
from ffn.training.threads import environment

_POLL_S = 0.2
_END_S = 10.0


def horovodrun() -> str | None:
    """The program that starts ranks on this machine, or None where Horovod is not installed."""
    if importlib.util.find_spec("horovod") is None:
        return None
    beside = Path(sys.executable).with_name("horovodrun")
    return str(beside) if beside.exists() else shutil.which("horovodrun")


class Team:
    """The ranks of one candidate.

    With `launcher` (see `horovodrun`) they exchange gradients as in training; without, or where there is one only, they
    work side by side. Use as a context manager, or `end` them. The methods that take a `deadline` (of time.monotonic)
    raise RankError if a rank fails or is not done by then.
    """

    def __init__(self, config: Config, candidate: Candidate, launcher: str | None = None) -> None:
        self.candidate = candidate
        self.step_s = 0.0
        self._batch = candidate.at_once(config.training.microbatch)
        exchange = launcher is not None and candidate.ranks > 1
        whole = config.model_copy(update={"threads": candidate.threads}).model_dump(mode="json")
        order = {"config": whole, "batch": self._batch, "local_size": candidate.ranks, "exchange": exchange}
        self._orders = [{**order, "local_rank": rank} for rank in range(candidate.ranks)]
        self._folder = Path(tempfile.mkdtemp(prefix="ffn-"))
        self._door = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._door.bind(str(self._folder / "door"))
        self._door.listen(candidate.ranks)
        self._connections: list[_Connection] = []
        command = [sys.executable, "-m", "ffn.training.autotune.turns", str(self._folder / "door")]
        count = candidate.ranks
        if launcher is not None and exchange:
            command = [launcher, "--gloo", "-np", str(count), "-H", f"localhost:{count}", *command]
        variables = {**os.environ, **environment(candidate.threads)}
        with (self._folder / "log").open("wb") as log:
            self._processes = [
                subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=variables)
                for _ in range(1 if exchange else count)
            ]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def ready(self, deadline: float) -> tuple[bool, int]:
        """Wait until all have run some steps; returns whether they have OpenMP, and the bytes of memory of one."""
        for order in self._orders:
            self._connections.append(self._next_rank(deadline))
            self._connections[-1].say(json.dumps(order))
        answers = self._answers(deadline)
        self._run(1, deadline)
        return any(answer["openmp"] for answer in answers), max(answer["bytes"] for answer in answers)

    def turn(self, seconds: float, deadline: float) -> float:
        """Fields of view per second of all ranks together, over about `seconds` and at least one step."""
        steps = max(math.ceil(seconds / self.step_s), 1)
        self._run(steps, deadline)
        return self.candidate.ranks * self._batch / self.step_s

    def end(self) -> None:
        """End the processes."""
        for connection in self._connections:
            connection.close()
        self._door.close()
        # Ranks end with their connections; horovodrun passes SIGTERM on to ranks that do not listen yet.
        for how in (None, subprocess.Popen.terminate, subprocess.Popen.kill):
            for process in self._processes:
                if how is not None and process.poll() is None:
                    how(process)
            if self._connections or how is not None:
                self._wait(time.monotonic() + _END_S)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _wait(self, deadline: float) -> None:
        for process in self._processes:
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(deadline - time.monotonic(), 0.0))

    def _run(self, steps: int, deadline: float) -> None:
        for connection in self._connections:
            connection.say(str(steps))
        self.step_s = max(answer["seconds"] for answer in self._answers(deadline)) / steps

    def _answers(self, deadline: float) -> list[dict[str, Any]]:
        lines = [connection.hear(deadline) for connection in self._connections]
        if not all(lines):
            raise self._failed()
        return [json.loads(line) for line in lines]

    def _next_rank(self, deadline: float) -> "_Connection":
        while time.monotonic() < deadline:
            self._door.settimeout(_POLL_S)
            try:
                return _Connection(self._door.accept()[0])
            except TimeoutError:
                if any(process.poll() is not None for process in self._processes):
                    raise self._failed() from None
        raise RankError("not started in time")

    def _failed(self) -> RankError:
        lines = (self._folder / "log").read_text(encoding="utf-8", errors="replace").strip().splitlines()
        codes = {process.poll() for process in self._processes} - {None, 0}
        code = f" with code {codes.pop()}" if codes else ""
        return RankError(f"a rank ended{code}: {lines[-1] if lines else 'it said nothing'}")


class _Connection:
    """Lines to and from one rank."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket, self._heard = connection, b""

    def say(self, line: str) -> None:
        self._socket.settimeout(None)
        try:
            self._socket.sendall(f"{line}\n".encode())
        except OSError:
            return  # the rank is gone, which `hear` reports

    def hear(self, deadline: float) -> str:
        """The next line; empty if the rank has ended."""
        while b"\n" not in self._heard:
            self._socket.settimeout(max(deadline - time.monotonic(), 1e-3))
            try:
                more = self._socket.recv(1 << 16)
            except TimeoutError:
                raise RankError("not done in time") from None
            except OSError:
                return ""
            if not more:
                return ""
            self._heard += more
        line, _, self._heard = self._heard.partition(b"\n")
        return line.decode()

    def close(self) -> None:
        self._socket.close()
