"""How an attempt to run a command ended, told to whoever started it, past launchers that swallow exit codes.

`ffn attend` gives each attempt a folder and its name to all processes of the command as $FFN_ATTEMPT:

    ended     a line of JSON from each process that could still say why it ended: how, reason
    stop      appears when the command is to save its work and end

Without that variable nothing is written and nothing asked.
"""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ffn.errors import FFNError, InterruptedTrainingError, LostRankError

VARIABLE = "FFN_ATTEMPT"

End = Literal["failed", "saved", "lost"]
"""`failed`: the same command would fail again; `saved`: asked to stop, can go on; `lost`: another process was gone."""


@dataclass(frozen=True)
class Attempt:
    """One attempt, by its folder."""

    folder: Path

    @classmethod
    def current(cls, environment: Mapping[str, str] = os.environ) -> "Attempt | None":
        """The attempt that this process is part of, if anyone attends to it."""
        return cls(Path(environment[VARIABLE])) if environment.get(VARIABLE) else None

    def tell(self, how: End, reason: str) -> None:
        """Say how this process ends. Called when something is wrong already, so it never fails itself."""
        line = json.dumps({"how": how, "reason": reason}) + "\n"
        try:
            handle = os.open(self.folder / "ended", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            try:
                os.write(handle, line.encode())
            finally:
                os.close(handle)
        except OSError:
            return

    def ends(self) -> list[tuple[End, str]]:
        """What processes told, in order: how they ended, and why."""
        try:
            lines = (self.folder / "ended").read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return []
        records = [json.loads(line) for line in lines]
        return [(record["how"], record["reason"]) for record in records]

    def ask_to_stop(self) -> None:
        """Ask the command's processes to save their work and end."""
        (self.folder / "stop").touch()

    @property
    def is_to_stop(self) -> bool:
        return (self.folder / "stop").exists()


def tell_end(error: BaseException) -> None:
    """Tell whoever attends to this process that it ends by this exception."""
    attempt = Attempt.current()
    if attempt is None or isinstance(error, SystemExit):
        return
    how: End = "failed"
    if isinstance(error, InterruptedTrainingError | KeyboardInterrupt):
        how = "saved"
    elif isinstance(error, LostRankError):
        how = "lost"
    attempt.tell(how, str(error) if isinstance(error, FFNError) else f"{type(error).__name__}: {error}")


@contextmanager
def telling_end() -> Iterator[None]:
    """What ends the block by an exception is told to whoever attends to this process."""
    try:
        yield
    except BaseException as error:
        tell_end(error)
        raise
