"""Progress on stderr: a bar on a terminal, one line every few seconds in a log file."""

import sys
import time
from types import TracebackType
from typing import Self

LOG_INTERVAL_S = 10.0


def log(message: str) -> None:
    """Write one line to stderr without breaking a bar that is being drawn there."""
    from tqdm import tqdm  # here: the shortest commands show nothing

    tqdm.write(message, file=sys.stderr)
    sys.stderr.flush()


class Progress:
    """Counts work done, with rate and time left. Use as a context manager; `enabled=False` is silent."""

    def __init__(self, label: str, total: int | None, unit: str, done: int = 0, enabled: bool = True) -> None:
        from tqdm import tqdm

        terminal = sys.stderr.isatty()
        self._bar = tqdm(
            desc=label,
            total=total,
            initial=done,
            unit=unit,
            disable=not (enabled and terminal),
            file=sys.stderr,
            dynamic_ncols=True,
        )
        self._lines = enabled and not terminal
        self._label, self._unit, self._total = label, unit, total
        self._first = self._done = done
        self._began = self._printed = time.monotonic()
        self._note = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()
        if self._lines:
            self._print()

    def expect(self, count: int) -> None:
        """There is more to do than was thought, or less."""
        if self._total is not None:
            self._total += count
            self._bar.total = self._total

    def advance(self, count: int = 1, note: str = "") -> None:
        """Add finished work; `note` is shown behind the rate."""
        self._done += count
        self._note = note or self._note
        if note:
            self._bar.set_postfix_str(note, refresh=False)
        self._bar.update(count)
        if self._lines and time.monotonic() - self._printed > LOG_INTERVAL_S:
            self._print()

    def _print(self) -> None:
        self._printed = time.monotonic()
        rate = (self._done - self._first) / max(self._printed - self._began, 1e-9)
        parts = [f"{self._label}: {self._done}"]
        if self._total is not None:
            parts[0] += f"/{self._total}"
        parts[0] += f" {self._unit}"
        parts.append(f"{rate:.1f} {self._unit}/s")
        if self._total is not None and rate > 0:
            left = max(self._total - self._done, 0) / rate
            parts.append(f"{int(left) // 60}:{int(left) % 60:02d} left")
        if self._note:
            parts.append(self._note)
        print(", ".join(parts), file=sys.stderr, flush=True)
