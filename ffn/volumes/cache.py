"""Decompressed copies of gzipped volumes, in the user's cache."""

import gzip
import hashlib
import os
import shutil
import zlib
from pathlib import Path

from ffn.errors import VolumeError
from ffn.files import atomic_path
from ffn.locks import lock
from ffn.progress import log


def cache_folder() -> Path:
    """`$XDG_CACHE_HOME/ffn-workflow`, by default `~/.cache/ffn-workflow`."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "ffn-workflow"


def gunzipped(path: Path) -> Path:
    """The decompressed copy of `path`, made on first use; a changed file gets a new copy.

    Several processes may ask at once: one decompresses, the others wait for it.
    """
    try:
        status = path.stat()
    except FileNotFoundError as error:
        raise VolumeError(f"There is no file {path}.") from error
    key = hashlib.sha256(f"{path.resolve()}\0{status.st_size}\0{status.st_mtime_ns}".encode()).hexdigest()[:24]
    copy = cache_folder() / "volumes" / f"{key}-{path.name.removesuffix('.gz')}"
    if copy.exists():
        return copy
    with lock(copy.with_name(f"{copy.name}.lock"), waits=True):
        if not copy.exists():
            log(f"Decompressing {path} to {copy}")
            _decompress(path, copy)
    return copy


def _decompress(path: Path, copy: Path) -> None:
    try:
        with atomic_path(copy) as partial, gzip.open(path, "rb") as source, partial.open("wb") as target:
            shutil.copyfileobj(source, target, 1 << 20)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise VolumeError(f"{path} is damaged or not gzip ({error}); copy or download it again.") from error
