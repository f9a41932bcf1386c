"""Which segments are one object, by the pairs that were joined.

objects.parquet    `object` and `segment` of all segments in objects of several, sorted
objects.json       the same of the first `LISTED` segments, for reading
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ffn.assembly.unionfind import smallest_members
from ffn.blockwise.tables import Table, find_rows, group_starts, sorted_by
from ffn.files import atomic_path, write_json

LISTED = 10_000
_JSON, _PARQUET = "objects.json", "objects.parquet"


def joined_segments(ids: NDArray[np.uint64], pairs: Iterable[tuple[NDArray[np.uint64], NDArray[np.uint64]]]) -> Table:
    """`segment` and `object` (uint64) of all segments in objects of several, sorted by segment.

    An object has the lowest id of its segments.

    Args:
        ids: Of all segments that may be joined, ascending.
        pairs: Ids a, b of segments that are one.
    """
    members = smallest_members(len(ids), ((_rows(ids, a), _rows(ids, b)) for a, b in pairs))
    several = members != np.arange(len(ids))
    several[members[several]] = True
    return {"segment": np.asarray(ids[several]), "object": np.asarray(ids[members[several]])}


def objects_of(
    segments: NDArray[np.uint64], known: NDArray[np.uint64], objects: NDArray[np.uint64]
) -> NDArray[np.uint64]:
    """The object of each segment: itself, or what `objects` says of it where it is among those `known` (ascending)."""
    rows, there = find_rows([known], [segments])
    result = segments.copy()
    result[there] = objects[rows[there]]
    return result


def write_objects(folder: Path, joined: Table) -> None:
    """Write both files of the segments in objects of several (`joined_segments`)."""
    rows = sorted_by(joined, ["object", "segment"])
    with atomic_path(folder / _PARQUET) as partial:
        pq.write_table(pa.table({name: rows[name] for name in ("object", "segment")}), partial, compression="zstd")
    first = {name: values[:LISTED] for name, values in rows.items()}
    members: dict[str, list[int]] = {}
    for number, segment in zip(first["object"].tolist(), first["segment"].tolist(), strict=True):
        members.setdefault(str(number), []).append(segment)
    write_json(
        folder / _JSON,
        {
            "objects_of_several": len(group_starts([rows["object"]])),
            "segments": len(rows["segment"]),
            "listed": len(first["segment"]),
            "all": _PARQUET,
            "members": members,
        },
    )


def object_files(folder: Path) -> list[Path]:
    """What `write_objects` writes."""
    return [folder / _JSON, folder / _PARQUET]


def _rows(ids: NDArray[np.uint64], segments: NDArray[np.uint64]) -> NDArray[np.int64]:
    return np.searchsorted(ids, segments)
