"""Done-markers: what makes a stage safe to kill and to run again.

A stage owns one folder. `started.json` records the settings that are making its contents, `done.json` that they
are complete. Same settings and done: nothing to do. Other settings: refuse, naming the keys that differ. A stage that
one process does alone holds the folder's `lock` meanwhile.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from ffn.errors import StageError
from ffn.files import remove_leftovers, write_json
from ffn.locks import BEAT, Beat, Lock, lock

LOCK = "lock"
"""Name of the file in a stage's folder that says which process works there."""


def settings_hash(settings: Mapping[str, Any]) -> str:
    """SHA-256 of the settings as canonical JSON."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(value, dict) and value:
        return {k: v for key, item in value.items() for k, v in _flat(item, f"{prefix}{key}.").items()}
    return {prefix.rstrip("."): value}


def differences(there: Mapping[str, Any], now: Mapping[str, Any], missing: bool = True, most: int = 5) -> str:
    """The keys in which two settings (JSON) differ, with both values, as a text; empty where they are equal.

    Args:
        there: Settings in a marker.
        now: Those of now.
        missing: Whether a key that only one of them has counts.
        most: How many are named.
    """
    theirs, ours = _flat(dict(there)), _flat(dict(now))
    keys = sorted(ours.keys() | theirs.keys() if missing else ours.keys() & theirs.keys())
    differing = [
        f"{key}: there {theirs.get(key)!r}, now {ours.get(key)!r}" for key in keys if theirs.get(key) != ours.get(key)
    ]
    return "; ".join(differing[:most]) + (f"; and {len(differing) - most} more" if len(differing) > most else "")


class Stage:
    """One stage's folder, bound to the settings (JSON-able) that decide its contents."""

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self.folder = folder
        self.settings = json.loads(json.dumps(settings, default=str))
        self.started_marker = folder / "started.json"
        self.done_marker = folder / "done.json"
        self._lock: Lock | None = None

    @contextmanager
    def locked(self, beat: Beat = BEAT, waits: bool | None = None) -> Iterator[None]:
        """Let no other process work in the folder during the block; ask `begin` in it whether there is work.

        A folder that is complete is not locked, as nothing is written there any more. For `waits` see `lock`.

        Raises HeldError, saying who works there, if another process does.
        """
        if self.done_marker.exists():
            self.clear_lock()
            yield
            return
        with lock(self.folder / LOCK, waits, beat) as self._lock:
            try:
                yield
            finally:
                self._lock = None

    def clear_lock(self) -> None:
        """Remove the lock of a complete folder: of a process that was killed when all was done."""
        path = self.folder / LOCK
        if self.done_marker.exists() and path.exists():
            with suppress(OSError):
                path.unlink()

    def is_done(self) -> bool:
        """Whether the folder is complete with these settings; writes nothing.

        Raises StageError if the folder was started or finished with other settings.
        """
        for marker in (self.done_marker, self.started_marker):
            if marker.exists():
                self._refuse_other_settings(marker)
        return self.done_marker.exists()

    def begin(self) -> bool:
        """Record the settings. True: there is work to do. False: it is already done with these settings.

        Raises StageError if the folder was started or finished with other settings.
        """
        if self.is_done():
            return False
        if not self.started_marker.exists():
            write_json(self.started_marker, self._record())
        return True

    def begin_locked(self, held: ExitStack) -> bool:
        """`begin`, with the folder locked until `held` ends, also where there is no work; see `locked`."""
        held.enter_context(self.locked())
        return self.begin()

    def finish(self, **facts: Any) -> None:
        """Mark the folder complete; call only after all data is on disk. `facts` are kept in the marker.

        Removes the temporary files of killed processes in the folder and in those directly in it. Raises StageError if
        the lock of the folder was lost to another machine meanwhile.
        """
        if self._lock is not None:
            self._lock.require()
        for folder in (self.folder, *self.folder.glob("*/")):
            remove_leftovers(folder)
        write_json(self.done_marker, {**self._record(), "facts": facts})

    def _record(self) -> dict[str, Any]:
        return {"hash": settings_hash(self.settings), "settings": self.settings}

    def _refuse_other_settings(self, marker: Path) -> None:
        try:
            record = json.loads(marker.read_text(encoding="utf-8"))
            theirs = dict(record["settings"])
        except (ValueError, KeyError, TypeError) as error:
            raise StageError(f"{marker} is not a marker of this workflow ({error}); move the folder away.") from error
        if record.get("hash") == settings_hash(self.settings):
            return
        shown = differences(theirs, self.settings)
        raise StageError(
            f"{self.folder} holds results of another configuration ({shown}). "
            "Choose another run name or output folder, or delete that folder to start over."
        )


def done_digest(folder: Path, command: str) -> str:
    """SHA-256 of the done-marker in `folder`: put into the settings of a stage that reads what that stage made.

    Raises StageError, naming the `command` that makes it, where the folder is missing or not complete.
    """
    marker = folder / "done.json"
    try:
        return hashlib.sha256(marker.read_bytes()).hexdigest()
    except FileNotFoundError as error:
        raise StageError(f"{folder} is not complete (no {marker.name} in it); run `{command}` first.") from error
