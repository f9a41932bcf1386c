"""The file below an HDF5 file that is being written, made so that a full disk ends in an exception."""

import io
from pathlib import Path


class DiskFile(io.RawIOBase):
    """A new file for reading and writing whose first failed write is remembered instead of raised.

    The HDF5 library cannot close a file whose last blocks do not fit on the disk: it leaves it half open and crashes
    the process at its end. So from the first failure on it is told that all went well, and whoever writes asks
    `raise_failure` for what happened.

    Args:
        path: created, or emptied.
        shown: the name that errors give.
    """

    def __init__(self, path: Path, shown: Path) -> None:
        super().__init__()
        self._file = path.open("w+b", buffering=0)
        self._shown = shown
        self._failure: OSError | None = None

    def raise_failure(self) -> None:
        """Raise the OSError (with errno and file name) of the first write that failed, if one did."""
        if self._failure is not None:
            raise OSError(self._failure.errno, self._failure.strerror, str(self._shown)) from self._failure

    def write(self, data: "memoryview | bytes") -> int:  # type: ignore[override]
        view = memoryview(data).cast("B")
        done = 0
        while self._failure is None and done < len(view):
            try:
                done += self._file.write(view[done:])
            except OSError as error:
                self._failure = error
        return len(view)

    def readinto(self, buffer: "memoryview | bytearray") -> int:  # type: ignore[override]
        view = memoryview(buffer).cast("B")
        done = 0
        while done < len(view):
            count = self._file.readinto(view[done:])
            if not count:
                # Beyond the end, as when a write was lost.
                view[done:] = bytes(len(view) - done)
                break
            done += count
        return len(view)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def truncate(self, size: int | None = None) -> int:
        try:
            return self._file.truncate(size)
        except OSError as error:
            self._failure = self._failure or error
            return size or 0

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def close(self) -> None:
        self._file.close()
        super().close()
