"""google/ffn's files, written: the same input gives the same bytes, and memory holds a few sections at a time."""

import filecmp
import json
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from ffn.errors import ExchangeError, StageError
from ffn.exchange.records import origins_pickle, overlaps_pickle
from ffn.exchange.results import Facts
from ffn.files import atomic_path

SECTIONS = 64
_SMALL = (np.uint8, np.uint16, np.uint32)


class Readable(Protocol):
    """An array or an open volume: a zyx shape, and reading by slices."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, key: slice, /) -> NDArray[Any]: ...


def write_result(path: Path, labels: Readable, facts: Facts) -> None:
    """Write `seg-*.npz`, atomically, so that google/ffn loads it.

    Args:
        path: The file.
        labels: Ids below 2^32, zyx; they are stored as the smallest type that holds the largest.
        facts: Origins relative to the corner of the sub-volume, and the rest.

    Raises:
        ExchangeError: an id that google/ffn's types cannot hold.
        StageError: the file exists and holds something else.
    """
    with _archive(path) as archive:
        _add_array(archive, "segmentation", labels, _smallest(path, labels))
        origins = {number: (o.seed, o.fovs, o.seconds) for number, o in facts.origins.items()}
        _add_object(archive, "origins", origins_pickle(origins))
        _add_object(archive, "overlaps", overlaps_pickle(facts.overlaps))
        _add_text(archive, "counters", np.array(json.dumps(dict(facts.counters))))
        _add_text(archive, "request", np.array(facts.request))


def write_probability(path: Path, q: Readable) -> None:
    """Write `.prob` from bytes (uint8 zyx), atomically. Raises StageError where it exists and holds something else."""
    with _archive(path) as archive:
        _add_array(archive, "qprob", q, np.dtype(np.uint8))


@contextmanager
def _archive(path: Path) -> Iterator[zipfile.ZipFile]:
    with atomic_path(path) as partial:
        with zipfile.ZipFile(partial, "w") as archive:
            yield archive
        if path.exists() and not filecmp.cmp(partial, path, shallow=False):
            raise StageError(f"{path} exists and holds something else; choose another folder or delete it.")


def _smallest(path: Path, labels: Readable) -> np.dtype[Any]:
    most = max(int(part.max()) for part in _parts(labels))
    for kind in _SMALL:
        if most <= np.iinfo(kind).max:
            return np.dtype(kind)
    raise ExchangeError(f"The largest id is {most}, but {path.name} holds ids below 2^32; number the objects anew.")


def _parts(labels: Readable) -> Iterator[NDArray[Any]]:
    for z in range(0, labels.shape[0], SECTIONS):
        yield labels[z : z + SECTIONS]


@contextmanager
def _member(archive: zipfile.ZipFile, key: str, descr: str, shape: tuple[int, ...]) -> Iterator[IO[bytes]]:
    # Without a date, which would make two files of one input differ.
    info = zipfile.ZipInfo(f"{key}.npy")
    info.compress_type = zipfile.ZIP_DEFLATED
    with archive.open(info, "w", force_zip64=True) as file:
        npy.write_array_header_1_0(file, {"descr": descr, "fortran_order": False, "shape": shape})
        yield file


def _add_array(archive: zipfile.ZipFile, key: str, values: Readable, kind: np.dtype[Any]) -> None:
    kind = kind.newbyteorder("<")
    with _member(archive, key, kind.str, values.shape) as file:
        for part in _parts(values):
            file.write(part.astype(kind).tobytes())


def _add_object(archive: zipfile.ZipFile, key: str, pickle: bytes) -> None:
    with _member(archive, key, "|O", ()) as file:
        file.write(pickle)


def _add_text(archive: zipfile.ZipFile, key: str, text: NDArray[Any]) -> None:
    with _member(archive, key, text.dtype.str, ()) as file:
        file.write(text.tobytes())
