"""Ranks that run bare training steps side by side, each in a process of its own, for a turn at a time."""

import json
import os
import subprocess
import sys
import tempfile
import time
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, Self

from ffn.config import Config
from ffn.errors import RankError
from ffn.training.candidates import Candidate
from ffn.training.threads import environment


class Team:
    """The ranks of one candidate. They share the machine as ranks do, but exchange nothing.

    Use as a context manager, or `end` them. All methods raise RankError if a rank fails or is not done by `deadline`
    (of time.monotonic).
    """

    def __init__(self, config: Config, candidate: Candidate) -> None:
        self.candidate = candidate
        batch = candidate.at_once(config.training.microbatch)
        whole = config.model_copy(update={"threads": candidate.threads}).model_dump(mode="json")
        orders = [
            {"config": whole, "batch": batch, "local_rank": rank, "local_size": candidate.ranks}
            for rank in range(candidate.ranks)
        ]
        self._ranks = [_Rank(order, environment(candidate.threads)) for order in orders]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def ready(self, deadline: float) -> tuple[bool, int]:
        """Wait until all have run a step; returns whether they have OpenMP, and the bytes of memory of one."""
        answers = [rank.answer(deadline) for rank in self._ranks]
        return any(answer["openmp"] for answer in answers), max(answer["bytes"] for answer in answers)

    def turn(self, seconds: float, deadline: float) -> float:
        """Fields of view per second of all ranks together, over at least `seconds` and one step."""
        for rank in self._ranks:
            rank.say(f"{seconds}\n")
        answers = [rank.answer(deadline) for rank in self._ranks]
        return sum(answer["fovs"] / answer["seconds"] for answer in answers)

    def end(self) -> None:
        """End the processes."""
        for rank in self._ranks:
            rank.end()


class _Rank:
    """A process of `ffn.training.turns`."""

    def __init__(self, order: dict[str, Any], variables: dict[str, str]) -> None:
        self._errors = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115  (see `end`)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "ffn.training.turns"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env={**os.environ, **variables},
            text=True,
        )
        self._answers: SimpleQueue[dict[str, Any] | None] = SimpleQueue()
        Thread(target=self._listen, daemon=True).start()
        self.say(json.dumps(order) + "\n")

    def say(self, line: str) -> None:
        stdin = self._process.stdin
        assert stdin is not None
        try:
            stdin.write(line)
            stdin.flush()
        except OSError as error:
            raise self._failed() from error

    def answer(self, deadline: float) -> dict[str, Any]:
        try:
            answer = self._answers.get(timeout=max(deadline - time.monotonic(), 0.0))
        except Empty:
            raise RankError("not done in time") from None
        if answer is None:
            raise self._failed()
        return answer

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        self._errors.close()

    def _listen(self) -> None:
        stdout = self._process.stdout
        assert stdout is not None
        for line in stdout:
            if line.startswith("{"):
                self._answers.put(json.loads(line))
        self._answers.put(None)

    def _failed(self) -> RankError:
        code = self._process.wait()
        self._errors.seek(0)
        lines = self._errors.read().strip().splitlines() or [""]
        return RankError(f"ended with code {code}: {lines[-1]}")
