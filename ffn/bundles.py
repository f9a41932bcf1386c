"""Files of many units in few archives, so that a large run does not leave some files for each of its units.

An archive is a tar file to which a single process appends, and which every tar program opens. A file in it has a path
as if the archive were a folder: `archives/NAME.tar/tile-0003/segmentation.h5`. What a kill cut short is the end of an
archive, where nobody looks: which units are whole is said by the ledger that names them.
"""

import io
import os
import shutil
import tarfile
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from ffn.files import sync
from ffn.processes import ProcessId

SUFFIX = ".tar"
UNITS = 32
"""The most that one archive holds: a file is found by reading the headers in front of it."""


class Bundle:
    """The archives of this process; the first one is made when something is added.

    Args:
        folder: Of the archives of all processes.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file: IO[bytes] | None = None
        self._archive: tarfile.TarFile | None = None
        self._path, self._units = Path(), 0

    def add(self, files: Iterable[Path], name: str) -> dict[str, Any]:
        """Append the files of a unit under `name`; they are on the disk when this returns.

        Returns where they are: `archive` (a file name), `folder` in it, and `end`, the bytes that it must have.
        """
        file, archive = self._begun()
        try:
            for path in files:
                archive.add(path, f"{name}/{path.name}", filter=_without_owner)
            file.flush()
            os.fsync(file.fileno())
        except BaseException:
            # Nothing can be appended behind a file that was cut short.
            self._forget()
            raise
        self._units += 1
        return {"archive": self._path.name, "folder": name, "end": file.tell()}

    def close(self) -> None:
        """End the archive."""
        if self._archive is not None:
            self._archive.close()
        self._forget()

    def _begun(self) -> tuple[IO[bytes], tarfile.TarFile]:
        if self._units == UNITS:
            self.close()
        if self._file is None or self._archive is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._path = self._folder / f"{ProcessId.current().name}-{uuid.uuid4().hex[:8]}{SUFFIX}"
            self._file = self._path.open("xb")
            # One header a file: the other format has a second one for fractions of a second.
            self._archive = tarfile.TarFile(fileobj=self._file, mode="w", format=tarfile.GNU_FORMAT)
            sync(self._folder)
        return self._file, self._archive

    def _forget(self) -> None:
        if self._file is not None:
            self._file.close()
        self._file = self._archive = None
        self._units = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def is_whole(archives: Path, facts: Mapping[str, Any]) -> bool:
    """Whether the archive of a unit is there, as far as the unit's files reach; `facts` as `Bundle.add` gave them."""
    try:
        return (archives / facts["archive"]).stat().st_size >= facts["end"]
    except (OSError, KeyError, TypeError):
        return False


def inside(path: Path) -> tuple[Path, str] | None:
    """The archive that a path leads into, and the name in it; None where it leads into none."""
    for parent in path.parents:
        if parent.suffix == SUFFIX and parent.is_file():
            return parent, path.relative_to(parent).as_posix()
    return None


def open_file(path: Path) -> IO[bytes]:
    """Open a file, in an archive or not, to be read. Raises FileNotFoundError where there is none."""
    if (place := inside(path)) is None:
        return path.open("rb")
    archive, name = place
    begin, size = _places(archive, archive.stat().st_size).get(name, (0, -1))
    if size < 0:
        raise FileNotFoundError(f"There is no {name} in {archive}.")
    return io.BufferedReader(_Part(archive.open("rb"), begin, size))


def take_out(archive: Path, name: str, folder: Path) -> None:
    """Copy the files that an archive holds under `name` into a folder.

    Raises FileNotFoundError where it holds none.
    """
    with archive.open("rb") as file:
        found = [member for member in _members(file) if member.name.startswith(f"{name}/")]
        if not found:
            raise FileNotFoundError(f"There is nothing under {name} in {archive}.")
        folder.mkdir(parents=True, exist_ok=True)
        for member in found:
            part = io.BufferedReader(_Part(file, member.offset_data, member.size, closes=False))
            with part, (folder / Path(member.name).name).open("wb") as copy:
                shutil.copyfileobj(part, copy)


@lru_cache(maxsize=256)
def _places(archive: Path, size: int) -> dict[str, tuple[int, int]]:
    """Where each file begins in an archive of so many bytes, which only grows, and its size."""
    with archive.open("rb") as file:
        return {member.name: (member.offset_data, member.size) for member in _members(file)}


def _members(file: IO[bytes]) -> Iterator[tarfile.TarInfo]:
    """The files of an archive up to where it ends or was cut short."""
    with suppress(tarfile.ReadError), tarfile.open(fileobj=file, mode="r:") as archive:
        yield from archive


def _without_owner(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


class _Part(io.RawIOBase):
    """Bytes `begin` to `begin + size` of a file, which is closed with this."""

    def __init__(self, file: IO[bytes], begin: int, size: int, closes: bool = True) -> None:
        self._file, self._begin, self._size, self._closes = file, begin, size, closes
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence] + offset
        return self._at

    def readinto(self, buffer: Any) -> int:
        wanted = memoryview(buffer)[: max(self._size - self._at, 0)]
        self._file.seek(self._begin + self._at)
        content = self._file.read(len(wanted))
        wanted[: len(content)] = content
        self._at += len(content)
        return len(content)

    def close(self) -> None:
        if self._closes and not self.closed:
            self._file.close()
        super().close()
