"""What a proofreader gets: every pair that was tried, the most doubtful first, with its place and its scores.

    candidates.parquet, candidates.csv    all of them
    candidates.json                       the first `LISTED`

They are written piece by piece, so there may be any number of them.
"""

import csv
import json
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ffn.agglomeration.records import NOWHERE, TYPES, Record, column_values
from ffn.blockwise.tables import Table
from ffn.errors import StageError
from ffn.files import atomic_path, write_json
from ffn.geometry import ZYX, xyz_from_zyx

LISTED = 1000
"""Candidates in the JSON file."""
DOUBT = ("doubt", "a", "b")
"""Columns of `doubted`, by which candidates are sorted."""
_PLACES = ("zyx", "seed_a_zyx", "seed_b_zyx")
_FIRST = ("a", "b", "joined", "reason", "margin", "zyx")
_OBJECTS = ("object_a", "object_b")
_NAMES = (*_FIRST, "xyz", *_OBJECTS, *(name for name in TYPES if name not in _FIRST))
_TYPES = {**TYPES, **dict.fromkeys(_OBJECTS, np.uint64)}
_NAME, _CSV, _PARQUET = "candidates.json", "candidates.csv", "candidates.parquet"


def doubted(records: Table) -> Table:
    """Records as columns (`ffn.agglomeration.records`), with the one by which the most doubtful come first."""
    return {**records, "doubt": np.abs(records["margin"])}


def in_source(record: Record, offset: ZYX) -> Record:
    """A record with its places counted in the source volume, and `xyz`, the order that viewers show."""
    entry = dict(record)
    for name in _PLACES:
        if entry[name] is not None:
            entry[name] = [p + o for p, o in zip(entry[name], offset, strict=True)]
    entry["xyz"] = [int(p) for p in xyz_from_zyx(entry["zyx"])]
    return entry


def write_candidates(folder: Path, pieces: Iterable[Table], tried: int, offset: ZYX) -> None:
    """Write the three files.

    Args:
        folder: Where they go.
        pieces: Candidates as columns, sorted (`doubted`), with the objects that the segments ended in, `object_a` and
            `object_b`; places are voxels of the region.
        tried: How many there are.
        offset: Voxel of the source volume at which the region begins, zyx.
    """
    first: list[Record] = []
    with ExitStack() as files:
        text = files.enter_context(atomic_path(folder / _CSV)).open("w", encoding="utf-8", newline="")
        rows = csv.writer(files.enter_context(text), lineterminator="\n")
        rows.writerow(_NAMES)
        path = files.enter_context(atomic_path(folder / _PARQUET))
        columns = files.enter_context(pq.ParquetWriter(path, _SCHEMA, compression="zstd"))
        for piece in pieces:
            placed = _in_source(piece, offset)
            columns.write_table(_arrow_of(placed))
            for begin in range(0, len(placed["a"]), _CHUNK):
                chunk = {name: values[begin : begin + _CHUNK] for name, values in placed.items()}
                lists = {name: _values(name, chunk[name]) for name in _NAMES}
                rows.writerows(zip(*(_cells(name, lists[name]) for name in _NAMES), strict=True))
                first += [
                    dict(zip(_NAMES, row, strict=True))
                    for row in zip(*(values[: LISTED - len(first)] for values in lists.values()), strict=True)
                ]
    listed = {"tried": tried, "listed": len(first), "all": [_CSV, _PARQUET], "candidates": first}
    write_json(folder / _NAME, listed)


def candidate_files(folder: Path) -> list[Path]:
    """What `write_candidates` writes."""
    return [folder / name for name in (_NAME, _CSV, _PARQUET)]


def read_candidates(folder: Path) -> list[Record]:
    """The first candidates of `candidates.json`; in runs of earlier versions, all. Raises StageError where it is
    missing or something else."""
    path = folder / _NAME
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return list(found["candidates"] if isinstance(found, Mapping) else found)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StageError(f"{path} cannot be read ({error}); delete {folder} and run `ffn agglomerate`.") from error


_CHUNK = 1 << 16
"""Rows of which texts are made at once."""
_ARROW = {"joined": pa.bool_(), "reason": pa.string()} | dict.fromkeys(("a", "b", *_OBJECTS), pa.uint64())
_SCHEMA = pa.schema(
    [
        field
        for name in _NAMES
        if name != "xyz"
        for field in (
            [(name.replace("zyx", axis), pa.int64()) for axis in "zyx"]
            if name in _PLACES
            else [(name, _ARROW.get(name) or pa.from_numpy_dtype(np.dtype(_TYPES[name])))]
        )
    ]
)


def _in_source(piece: Table, offset: ZYX) -> dict[str, Any]:
    placed = dict(piece)
    for name in _PLACES:
        places = piece[name]
        placed[name] = np.where(places == NOWHERE, NOWHERE, places + np.array(offset))
    placed["xyz"] = placed["zyx"][:, ::-1]
    return placed


def _arrow_of(piece: Table) -> pa.Table:
    columns: dict[str, Any] = {}
    for name in _NAMES:
        values = piece[name]
        if name in _PLACES:
            for axis, column in zip("zyx", np.ascontiguousarray(values.T), strict=True):
                columns[name.replace("zyx", axis)] = pa.array(column, pa.int64(), mask=column == NOWHERE)
        elif name == "reason":
            columns[name] = values.astype(str)
        elif name != "xyz":
            columns[name] = values
    return pa.table(columns, schema=_SCHEMA)


def _values(name: str, values: Any) -> list[Any]:
    return values.tolist() if name in ("xyz", *_OBJECTS) else column_values(name, values)


def _cells(name: str, values: list[Any]) -> list[Any]:
    """A column as the CSV file shows it: places such as `12, 34, 56`, numbers as Python writes them."""
    if name == "joined":
        return ["yes" if value else "no" for value in values]
    if name in (*_PLACES, "xyz"):
        return [value and f"{value[0]}, {value[1]}, {value[2]}" for value in values]
    return values
