"""Writing files so that a reader never sees half of one."""

import errno
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ffn.processes import ProcessId

PARTIAL = ".partial"
"""How the names of temporary files and folders end."""
ABANDONED_S = 24 * 3600.0
"""Seconds after which the temporary files of another machine's process count as left behind."""
_LEFTOVER = re.compile(rf"(.+)\.([^.]+)-[0-9a-f]{{8}}{re.escape(PARTIAL)}")


def sync(path: Path) -> None:
    """Flush a file's or folder's contents to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; what is written there becomes `path` if the block succeeds.

    Works for files and for folders. Several processes may write the same path at once, none sees another's temporary
    path: of files the last one stays, of folders the first. After an exception nothing is left behind; after a kill, a
    name ending in `.partial`, which the next writer of the path or `remove_leftovers` removes.
    """
    with temporary_path(path) as partial:
        yield partial
        sync(partial)
        rename(partial, path)
        sync(path.parent)


@contextmanager
def temporary_path(path: Path) -> Iterator[Path]:
    """Yield a path beside `path` that no other process and no other call has; nothing is left there after the block.

    Its name is NAME.HOST-MACHINE-PID-START-RANDOM.partial, where NAME is that of `path`, so everyone can tell whose it
    is. Removes what killed processes left that wrote the same path; for that it reads the folder.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(path.parent, path.name)
    partial = partial_path(path)
    try:
        yield partial
    finally:
        remove(partial)


def partial_path(path: Path) -> Path:
    """A new temporary name beside `path` for this process; for use where `temporary_path` does not fit."""
    return path.with_name(f"{path.name}.{ProcessId.current().name}-{secrets.token_hex(4)}{PARTIAL}")


def rename(partial: Path, path: Path) -> None:
    """Give a temporary file or folder its name. A file replaces one that is there; a folder that is there is kept."""
    try:
        partial.replace(path)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.EISDIR) or not (partial.is_dir() and path.is_dir()):
            raise
        remove(partial)


def remove_leftovers(folder: Path, name: str | None = None) -> None:
    """Remove the temporary files and folders of processes that have ended, those in `folder` but not below.

    Those of another machine are removed when they were not touched for a day: whether their process lives is not known.

    Args:
        folder: May be missing.
        name: Only what was to become this file; None = any.
    """
    try:
        with os.scandir(folder) as entries:
            found = [Path(entry.path) for entry in entries if entry.name.endswith(PARTIAL)]
    except (FileNotFoundError, NotADirectoryError):
        return
    for path in found:
        match = _LEFTOVER.fullmatch(path.name)
        owner = None if match is None else ProcessId.parse(match[2])
        if match is None or owner is None or name not in (None, match[1]):
            continue
        if owner.is_gone() or (not owner.is_here and _untouched_s(path) > ABANDONED_S):
            _remove_with_others(path)


def _untouched_s(path: Path) -> float:
    """Seconds since anything was written at or below `path`, by the clock of the file system."""
    clock = partial_path(path.with_name("clock"))
    try:
        clock.touch()
        return clock.stat().st_mtime - max(one.lstat().st_mtime for one in (path, *path.rglob("*")))
    except OSError:  # something is gone by now, or may not be read
        return 0.0
    finally:
        clock.unlink(missing_ok=True)


def _remove_with_others(path: Path) -> None:
    """Remove what other processes may be removing too, or what this one may not remove."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def _unless_gone(_function: Any, _path: str, error: tuple[Any, BaseException, Any]) -> None:
    if not isinstance(error[1], FileNotFoundError):
        raise error[1]


def remove(path: Path) -> None:
    """Delete a file or a whole folder; a path that is not there is fine, and another process may be deleting it too."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, onerror=_unless_gone)
    else:
        path.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text, atomically."""
    with atomic_path(path) as partial:
        partial.write_text(text, encoding="utf-8")
