"""Starting a command, and starting it again where that helps: `ffn attend`.

A rank that is killed (out of memory, a lost node) ends a whole training, although it could go on from its last
checkpoint; a mistake would only be repeated. Exit codes do not tell one from the other: horovodrun turns them all into
1. So the processes leave word of how they ended (`ffn.attempts`), and this starts the command again only if nobody said
that it failed, and if the attempt got further than the one before.
"""

import os
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Self

from ffn.attempts import VARIABLE, Attempt
from ffn.errors import FFNError, InterruptedTrainingError
from ffn.files import PARTIAL, remove
from ffn.progress import log

SAVED = InterruptedTrainingError.exit_code
FAILED = FFNError.exit_code


@dataclass(frozen=True)
class Attendance:
    """A command and what is known about it.

    Attributes:
        command: Program and arguments, with the launcher in front if it has several ranks.
        notes: Folder for the attempts' notes, on a file system that all ranks see; made anew for each attempt.
        progress: Folder in which the names change when the command gets further; None if there is no such thing.
        restarts: How often the command is started again, at most.
    """

    command: Sequence[str]
    notes: Path
    progress: Path | None
    restarts: int

    def run(self) -> int:
        """Run the command until it ends well, for good, or is asked to stop; returns the exit code.

        SIGTERM or SIGINT asks the command to save its work; a second one is passed on. The code is 75 if the same
        command can go on later.
        """
        with _Stop() as stop:
            for again in range(self.restarts + 1):
                before = self._there()
                code = self._attempt(stop)
                ends = [how for how, _ in Attempt(self.notes).ends()]
                if code == 0:
                    remove(self.notes)
                    return 0
                if "failed" in ends:
                    return FAILED if code == SAVED else code
                if stop.asked or "saved" in ends:
                    return SAVED
                if self.progress is not None and self._there() == before:
                    log(f"ffn attend: {self._why(code)} It got no further than when it started; not started again.")
                    return code
                if again < self.restarts:
                    log(f"ffn attend: {self._why(code)} Starting again ({again + 1} of {self.restarts}).")
            log(f"ffn attend: {self._why(code)} Started again {self.restarts} times already; giving up for now.")
        return SAVED

    def failed_before(self) -> str | None:
        """Why the last attempt failed for good, if it did."""
        return next((reason for how, reason in Attempt(self.notes).ends() if how == "failed"), None)

    def _attempt(self, stop: "_Stop") -> int:
        remove(self.notes)
        self.notes.mkdir(parents=True)
        process = subprocess.Popen(self.command, env={**os.environ, VARIABLE: str(self.notes.resolve())})
        stop.concerns(Attempt(self.notes), process)
        code = process.wait()
        return code if code >= 0 else 128 - code

    def _there(self) -> set[str]:
        if self.progress is None or not self.progress.is_dir():
            return set()
        return {path.name for path in self.progress.iterdir() if path.suffix != PARTIAL}

    def _why(self, code: int) -> str:
        lost = [reason for how, reason in Attempt(self.notes).ends() if how == "lost"]
        return lost[0] if lost else f"The command ended with exit code {code} and without a word."


class _Stop:
    """Takes the signals that ask to stop, for the block."""

    def __init__(self) -> None:
        self.asked = False
        self._concerned: tuple[Attempt, subprocess.Popen[bytes]] | None = None

    def concerns(self, attempt: Attempt, process: "subprocess.Popen[bytes]") -> None:
        """From now on requests are for this attempt."""
        self._concerned = attempt, process
        if self.asked:
            attempt.ask_to_stop()

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._receive) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        again, self.asked = self.asked, True
        if self._concerned is not None:
            attempt, process = self._concerned
            attempt.ask_to_stop()
            if again:
                process.send_signal(number)
