"""What google/ffn writes for a sub-volume, read: `seg-<x>_<y>_<z>.npz`, and the object maps `.prob` beside it.

    segmentation   ids, zyx, the smallest of uint8, 16, 32 that holds them; 0 = none
    origins        pickled {id: OriginInfo(start_zyx, iters, walltime_sec)}, starts relative to the corner
    overlaps       pickled {id: [[earlier ids], [voxels]]}; newer versions only
    counters       JSON {name: number}, as text or bytes
    request        serialised InferenceRequest

`.prob` holds `qprob`, uint8 zyx (`ffn.inference.probability`). OriginInfo has been pickled under several module names,
of which only the last part is looked at.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ffn.errors import ExchangeError
from ffn.exchange.archive import Archive
from ffn.exchange.numbers import NAMES, UnexpectedValueError, finite, only_object, plain, whole
from ffn.exchange.stream import MAX_BYTES, Made, Name, read_stream
from ffn.geometry import ZYX

RECORD = "OriginInfo"
_MOST_OVERLAPS = MAX_BYTES // 16
"""In one file; each takes 16 bytes of it, unless one list serves many objects, which google/ffn never writes."""

T = TypeVar("T")


@dataclass(frozen=True)
class Origin:
    """Where an object started (zyx, relative to the sub-volume's corner), and what it cost."""

    seed: ZYX
    fovs: int
    seconds: float


@dataclass(frozen=True)
class Facts:
    """What is known of a sub-volume besides the ids of its voxels; all of it may be missing."""

    origins: Mapping[int, Origin] = field(default_factory=dict)
    overlaps: Mapping[int, Sequence[tuple[int, int]]] = field(default_factory=dict)
    """By id: (earlier id, voxels) of the objects it ran into."""
    counters: Mapping[str, int | float] = field(default_factory=dict)
    request: bytes = b""
    """What was asked for, as google/ffn serialises it."""


def read_result(path: Path) -> tuple[NDArray[np.unsignedinteger[Any]], Facts]:
    """Read `seg-*.npz`: ids (unsigned, zyx, 0 = not segmented), and what is known of them.

    Raises ExchangeError where the file is damaged, is something else, or asks for anything to be executed.
    """
    with Archive(path) as archive:
        labels = _labels(archive)
        return labels, Facts(
            origins=_objects(archive, "origins", _origins) if "origins" in archive else {},
            overlaps=_objects(archive, "overlaps", _overlaps) if "overlaps" in archive else {},
            counters=_counters(archive) if "counters" in archive else {},
            request=archive.text("request") if "request" in archive else b"",
        )


def read_probability(path: Path, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Read the bytes (uint8 zyx) of `.prob`. Raises ExchangeError where it is damaged or not of `shape`."""
    with Archive(path) as archive:
        q = archive.array("qprob")
    if q.dtype != np.uint8 or q.shape != shape:
        raise ExchangeError(
            f"{path} holds object maps of shape {q.shape} and type {q.dtype}; expected {shape} and uint8, as the "
            "segmentation. Name the .prob file of the same sub-volume."
        )
    return q


def _labels(archive: Archive) -> NDArray[np.unsignedinteger[Any]]:
    labels = archive.array("segmentation")
    if labels.ndim != 3 or labels.size == 0 or labels.dtype.kind not in "ui":
        raise ExchangeError(
            f"{archive.path}: segmentation has shape {labels.shape} and type {labels.dtype}; expected whole numbers "
            "in three dimensions, z, y, x."
        )
    if labels.dtype.kind == "i":
        if labels.min() < 0:
            raise ExchangeError(f"{archive.path}: segmentation holds negative ids, so it is not a finished one.")
        labels = labels.astype(f"u{labels.dtype.itemsize}")
    return labels.astype(labels.dtype.newbyteorder("="), copy=False)


def _objects(archive: Archive, key: str, understood: Callable[[Any], T]) -> T:
    where = f"{archive.path}, member {key},"
    value = read_stream(archive.pickle(key, MAX_BYTES), _is_known, where)
    try:
        return understood(only_object(value))
    except UnexpectedValueError as error:
        raise ExchangeError(f"{where} is not what google/ffn writes: {error}.") from error
    except (ValueError, TypeError, OverflowError) as error:
        raise ExchangeError(
            f"{where} is not what google/ffn writes: a record has too few or too many parts."
        ) from error


def _is_known(name: Name) -> bool:
    return name in NAMES or name.name == RECORD


def _origins(value: Any) -> dict[int, Origin]:
    return {whole(number): _origin(record) for number, record in _items(value)}


def _origin(record: Any) -> Origin:
    if not isinstance(record, Made) or record.maker.name != RECORD:
        raise UnexpectedValueError(f"something else where an {RECORD} is expected")
    start, iterations, seconds = record.args
    z, y, x = (whole(n) for n in plain(start))
    return Origin((z, y, x), whole(iterations), finite(seconds))


def _overlaps(value: Any) -> dict[int, list[tuple[int, int]]]:
    found, count = {}, 0
    for number, table in _items(value):
        ids, voxels = (plain(row) for row in plain(table))
        count += len(ids)
        if count > _MOST_OVERLAPS:
            raise UnexpectedValueError(f"more than {_MOST_OVERLAPS} overlaps")
        found[whole(number)] = [(whole(a), whole(b)) for a, b in zip(ids, voxels, strict=True)]
    return found


def _items(value: Any) -> list[tuple[Any, Any]]:
    if not isinstance(value, dict):
        raise UnexpectedValueError("something else where a dictionary is expected")
    return list(value.items())


def _counters(archive: Archive) -> dict[str, int | float]:
    try:
        found = json.loads(archive.text("counters"))
        if isinstance(found, dict) and all(type(value) in (int, float) for value in found.values()):
            return found
    except (ValueError, RecursionError):
        pass
    raise ExchangeError(f"{archive.path}, member counters, is not JSON of names and numbers.")
