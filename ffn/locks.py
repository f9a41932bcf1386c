"""Locks that need nothing from the file system but that a file can be made once: one process at a time in a folder.

A lock is a file that names its holder and is complete when it appears. A thread of the holder touches it every few
seconds. A lock is taken over when its holder is gone: at once where that was a process of the same machine, otherwise
when it was not touched for `silent_s`. Whoever takes over from the holder with token T first makes the file
`NAME.T`, which only one can do, and then puts its own file in the place of the lock. So the holder is the last of the
chain NAME, NAME.T, ..., which has more than one file only while somebody takes over, or was killed doing it.
"""

import json
import os
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from ffn.errors import HeldError, StageError
from ffn.files import partial_path
from ffn.processes import ProcessId
from ffn.progress import log

_POLL_S = 0.1
_PATIENCE_S = 5.0
"""How long to wait in silence."""


@dataclass(frozen=True)
class Beat:
    """How a holder shows that it lives: its file is touched every `every_s`, and it is lost after `silent_s`."""

    every_s: float = 5.0
    silent_s: float = 120.0


BEAT = Beat()


_waits = False
"""Whether this process waits for locks, whoever asks for them."""


def wait_for_others() -> None:
    """From now on wait until a lock is free instead of ending, as a job of a workflow does."""
    global _waits
    _waits = True


class Lock:
    """A lock that this process holds."""

    def __init__(self, path: Path, token: str, beat: Beat) -> None:
        self.path, self._token = path, token
        self._over = threading.Event()
        self._process = os.getpid()
        self._file = os.open(path, os.O_RDWR)
        self._thread = threading.Thread(target=self._touch, args=(beat.every_s,), name="lock", daemon=True)
        self._thread.start()

    def is_held(self) -> bool:
        """Whether it is still this process's: another machine may have taken it over while this process was stopped."""
        chain = _chain(self.path)
        return bool(chain) and chain[-1].token == self._token

    def require(self) -> None:
        """Raise StageError where the lock was lost."""
        if self.is_held():
            return
        raise StageError(
            f"{self.path.parent} was taken over by another process while this one did not run for a while. That one "
            "finishes the work; this one ends."
        )

    def release(self) -> None:
        """Make way for others."""
        self._over.set()
        if os.getpid() != self._process:  # a fork of the holder
            return
        self._thread.join()
        os.close(self._file)
        if self.is_held():
            with suppress(FileNotFoundError):
                self.path.unlink()
        _remove_remains(self.path)

    def _touch(self, every_s: float) -> None:
        # The open file and not its name: that may be somebody else's by now.
        while not self._over.wait(every_s):
            with suppress(OSError):
                os.utime(self._file)


@contextmanager
def lock(path: Path, waits: bool | None = None, beat: Beat = BEAT) -> Iterator[Lock]:
    """Hold the lock at `path` for the block; the file is gone afterwards, and its folder too if it was made for it.

    Args:
        path: A file that is nothing else.
        waits: Whether to wait until it is free; None = if this process waits for locks, see `wait_for_others`.
        beat: The same for all that use this lock.

    Raises HeldError, naming the holder, if another process holds it: at once if that is on the same machine, otherwise
    when it was seen to touch the lock.
    """
    made = not path.parent.exists()
    held = _acquire(path, _waits if waits is None else waits, beat)
    try:
        yield held
    finally:
        held.release()
        if made:
            with suppress(OSError):  # not empty, mostly
                path.parent.rmdir()


@dataclass(frozen=True)
class _Record:
    """What a lock's file says. `holder` is None, and `token` stands for the file's time, if it cannot be read."""

    path: Path
    touched_ns: int
    token: str
    holder: ProcessId | None = None
    since: str = ""

    @classmethod
    def read(cls, path: Path) -> Self | None:
        try:
            with path.open("rb") as file:  # opening it makes NFS ask the server
                touched, data = os.fstat(file.fileno()).st_mtime_ns, file.read()
        except FileNotFoundError:
            return None
        try:
            values = json.loads(data)
            return cls(path, touched, str(values["token"]), ProcessId(**values["process"]), str(values["since"]))
        except (ValueError, KeyError, TypeError):
            return cls(path, touched, f"unreadable-{touched}")

    def __str__(self) -> str:
        return f"{self.holder} since {self.since}" if self.holder is not None else "an unknown process"


def _acquire(path: Path, waits: bool, beat: Beat) -> Lock:
    token = os.urandom(16).hex()
    own = _written(path, token)
    try:
        seen: dict[str, int] = {}
        began, told = time.monotonic(), False
        while True:
            chain = _chain(path)
            if not chain:
                if _place(own, path):
                    break
                continue
            last = chain[-1]
            if _is_lost(last, own, beat):
                if _taken_over(path, chain, own, token):
                    break
                continue
            lives = last.holder is not None and last.holder.is_here
            lives = lives or seen.setdefault(last.token, last.touched_ns) != last.touched_ns
            if lives and not waits:
                raise HeldError(
                    f"Another process works in {path.parent}: {last}. Wait until it ends, or stop it; then give the "
                    "same command again. What it has done is kept."
                )
            if not told and time.monotonic() - began > _PATIENCE_S:
                told = True
                log(f"{path.parent} is locked by {last}; waiting until it ends or is silent for {beat.silent_s:g} s.")
            time.sleep(_POLL_S)
    finally:
        own.unlink(missing_ok=True)
    return Lock(path, token, beat)


def _written(path: Path, token: str) -> Path:
    """A new file beside `path` that says who is here."""
    since = time.strftime("%Y-%m-%d %H:%M:%S %z")
    record = {"process": asdict(ProcessId.current()), "since": since, "token": token}
    own = partial_path(path)
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Between the two, another process may remove a folder that it made for its lock.
        with suppress(FileNotFoundError), own.open("x", encoding="utf-8") as file:
            json.dump(record, file)
            file.flush()
            os.fsync(file.fileno())
            return own


def _chain(path: Path) -> list[_Record]:
    """The lock's file and those of who took over from there; the last one's is the holder."""
    chain: list[_Record] = []
    record = _Record.read(path)
    while record is not None and record.path not in (other.path for other in chain):
        chain.append(record)
        record = _Record.read(_following(path, record.token))
    return chain


def _following(path: Path, token: str) -> Path:
    return path.with_name(f"{path.name}.{token}")


def _is_lost(record: _Record, own: Path, beat: Beat) -> bool:
    """Whether the holder is gone. `own` is a file of this process in the same folder, for the file system's time."""
    if record.holder is not None and record.holder.is_here:
        return record.holder.is_gone()
    os.utime(own)
    return own.stat().st_mtime_ns - record.touched_ns > beat.silent_s * 1e9


def _taken_over(path: Path, chain: list[_Record], own: Path, token: str) -> bool:
    """Take over from the last of the chain; False if another was faster."""
    mine = _following(path, chain[-1].token)
    if not _place(own, mine):
        return False
    # The chain may have been replaced after it was read, and `mine` hang from nothing.
    if [record.token for record in _chain(path)][-1:] != [token]:
        mine.unlink(missing_ok=True)
        return False
    own.replace(path)
    for passed in (*(record.path for record in chain[1:]), mine):
        passed.unlink(missing_ok=True)
    _remove_remains(path)
    return True


def _place(own: Path, target: Path) -> bool:
    """Make `target` with the contents of `own`; False if there is one already."""
    try:
        os.link(own, target)
    except FileExistsError:
        # An answer that NFS lost was asked for twice: then the first one succeeded.
        with suppress(FileNotFoundError):
            return target.samefile(own)
        return False
    except OSError:
        return _place_without_link(own, target)
    return True


def _place_without_link(own: Path, target: Path) -> bool:
    """The same for file systems that have no links. Whoever reads the file before it is complete waits."""
    try:
        with target.open("xb") as file:
            file.write(own.read_bytes())
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError:
        return False
    return True


def _remove_remains(path: Path) -> None:
    """Remove files beside the lock of who was killed while taking over, and who no chain leads to any more."""
    chain = {record.path for record in _chain(path)}
    for other in path.parent.glob(f"{path.name}.*"):
        if other in chain or not re.fullmatch(r"[0-9a-f]{32}|unreadable-\d+", other.name.removeprefix(f"{path.name}.")):
            continue
        record = _Record.read(other)
        if record is not None and record.holder is not None and record.holder.is_gone():
            other.unlink(missing_ok=True)
