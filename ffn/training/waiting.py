"""Whether this rank's main thread waits for the other ranks, and for how long."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

AT_THE_START = 10
"""How many times as long ranks may wait before the first update is done: graphs are built, files are read first."""


class Waiting:
    """The clock of one rank."""

    def __init__(self) -> None:
        self._since: float | None = None
        self._updates = 0

    @contextmanager
    def block(self, update: bool = False) -> Iterator[None]:
        """What ranks do together; an `update` includes this rank's own computation."""
        self._since = time.monotonic()
        try:
            yield
        finally:
            self._since = None
        self._updates += update

    @property
    def now(self) -> bool:
        """Whether the main thread is in such a block."""
        return self._since is not None

    def seconds(self, since: float) -> float:
        """For how long, counted from the monotonic time `since` at the earliest."""
        began = self._since
        return 0.0 if began is None else time.monotonic() - max(began, since)

    @property
    def patience(self) -> int:
        """How many times the usual limit waiting is no sign of trouble."""
        return 1 if self._updates else AT_THE_START
