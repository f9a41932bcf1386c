"""One .npz file: its members, read into memory under the limits that the file itself implies.

A member is never trusted to be what it says: sizes are compared with what is really there before memory is asked for,
and nothing is unpacked onto the disk, so that names of members mean nothing.
"""

import math
import os
import struct
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from ffn.errors import ExchangeError

# Deflate cannot shrink more; what claims to is no deflated data.
_MOST_SHRUNK = 1032
_SLACK = 1 << 12
_PIECE = 1 << 22
_BROKEN = (
    *(zipfile.BadZipFile, zlib.error, struct.error, ValueError, OverflowError, NotImplementedError, RuntimeError),
    # A place outside the file.
    OSError,
)
MAX_TEXT = 16 * 2**20
"""Bytes of a text (counters, request)."""


@dataclass(frozen=True)
class _Header:
    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype[Any]
    length: int


class Archive:
    """An open .npz file."""

    def __init__(self, path: Path) -> None:
        """Raises ExchangeError where `path` is missing or no such file."""
        self.path = path
        if not path.is_file():
            raise ExchangeError(f"There is no file {path}.")
        try:
            self._zip = zipfile.ZipFile(path)
        except PermissionError:
            raise
        except (*_BROKEN, EOFError) as error:
            raise ExchangeError(
                f"{path} is no .npz file, or it is cut off ({error}); copy or download it again, or name another."
            ) from error
        self._members = {info.filename: info for info in self._zip.infolist()}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._zip.close()

    def __contains__(self, key: str) -> bool:
        return f"{key}.npy" in self._members

    def array(self, key: str) -> NDArray[Any]:
        """A member of numbers, C-contiguous. Raises ExchangeError where it holds something else or is damaged."""
        with self._open(key) as (file, header, size):
            if header.dtype.kind not in "uif" or header.dtype.itemsize > 8:
                raise ExchangeError(f"{self._shown(key)} holds values of type {header.dtype}; expected numbers.")
            expected = math.prod(header.shape) * header.dtype.itemsize
            if expected != size:
                raise ExchangeError(
                    f"{self._shown(key)} says it has shape {header.shape} and type {header.dtype}, {expected} bytes, "
                    f"but {size} are there; copy or download the file again."
                )
            self._require_memory(key, size)
            values = np.empty(math.prod(header.shape), header.dtype)
            self._fill(file, values.view(np.uint8))
            # In here: a shape with a 0 can have other numbers, or more of them, than numpy takes.
            return np.ascontiguousarray(values.reshape(header.shape, order="F" if header.fortran else "C"))

    def text(self, key: str) -> bytes:
        """A member that is one text or byte string, as bytes (UTF-8). Raises ExchangeError for anything else."""
        with self._open(key) as (file, header, size):
            if header.shape != () or header.dtype.kind not in "SU" or header.dtype.itemsize != size:
                raise ExchangeError(
                    f"{self._shown(key)} has shape {header.shape} and type {header.dtype}; expected one text."
                )
            self._require_small(key, size, MAX_TEXT)
            data = self._all(file, size)
            if header.dtype.kind == "U":
                data = data.decode("utf-32-be" if header.dtype.str[0] == ">" else "utf-32-le").encode()
            # numpy has no string of no bytes.
            return b"" if data == b"\0" else data

    def pickle(self, key: str, most: int) -> bytes:
        """The pickle of a member that holds Python objects, not loaded. Raises ExchangeError if it holds numbers."""
        with self._open(key) as (file, header, size):
            if header.shape != () or header.dtype != np.dtype(object):
                raise ExchangeError(
                    f"{self._shown(key)} has shape {header.shape} and type {header.dtype}; expected one object."
                )
            self._require_small(key, size, most)
            return self._all(file, size)

    @contextmanager
    def _open(self, key: str) -> Iterator[tuple[IO[bytes], _Header, int]]:
        info = self._members.get(f"{key}.npy")
        if info is None:
            there = ", ".join(ascii(name)[1:-1] for name in list(self._members)[:8]) or "nothing"
            raise ExchangeError(f"{self.path} has no member {key}; it holds {there}.")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ExchangeError(f"{self._shown(key)} is packed in a way that numpy never uses; it is not read.")
        if info.file_size > info.compress_size * _MOST_SHRUNK + _SLACK:
            raise ExchangeError(
                f"{self._shown(key)} claims {info.file_size} bytes, which its {info.compress_size} packed ones cannot "
                "hold; the file is damaged or made to do harm."
            )
        try:
            with self._zip.open(info) as file:
                header = _header(file)
                yield file, header, info.file_size - header.length
        except EOFError as error:
            raise ExchangeError(f"{self._shown(key)} ends early; copy or download the file again.") from error
        except _BROKEN as error:
            raise ExchangeError(f"{self._shown(key)} is damaged ({error}); copy or download the file again.") from error

    def _fill(self, file: IO[bytes], into: NDArray[np.uint8]) -> None:
        at = 0
        while at < into.size:
            piece = file.read(min(_PIECE, into.size - at))
            if not piece:
                raise EOFError
            into[at : at + len(piece)] = np.frombuffer(piece, np.uint8)
            at += len(piece)
        # The end of a member is where its checksum is compared.
        file.read(1)

    def _all(self, file: IO[bytes], size: int) -> bytes:
        data = np.empty(size, np.uint8)
        self._fill(file, data)
        return data.tobytes()

    def _require_small(self, key: str, size: int, most: int) -> None:
        if size > most:
            raise ExchangeError(f"{self._shown(key)} has {size} bytes; no more than {most} are read.")

    def _require_memory(self, key: str, size: int) -> None:
        there = memory_bytes()
        if size > there:
            raise ExchangeError(
                f"{self._shown(key)} needs {size / 2**30:.1f} GiB, but this machine has {there / 2**30:.1f} GiB."
            )

    def _shown(self, key: str) -> str:
        return f"{self.path}, member {key},"


def memory_bytes() -> int:
    """Physical memory of this machine."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _header(file: IO[bytes]) -> _Header:
    read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
    version = npy.read_magic(file)
    if version not in read:
        raise ValueError(f"an .npy member of version {version}")
    try:
        # numpy warns of headers that Python 2 wrote.
        with warnings.catch_warnings(action="ignore"):
            shape, fortran, dtype = read[version](file)
    except Exception as error:
        # The text of a header is read as a Python literal, which can fail in many ways when it is meant to.
        raise ValueError("a header that is none") from error
    if any(n < 0 for n in shape):
        raise ValueError(f"an array of shape {shape}")
    return _Header(shape, fortran, dtype, file.tell())
