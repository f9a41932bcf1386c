"""What a proofreader gets: every pair that was tried, the most doubtful first, with its place and its scores."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from ffn.errors import StageError
from ffn.files import atomic_path, write_json
from ffn.geometry import ZYX, xyz_from_zyx

_PLACES = ("zyx", "seed_a_zyx", "seed_b_zyx")
_FIRST = ("a", "b", "joined", "reason", "margin", "zyx", "xyz")


def merged_ids(pairs: Sequence[tuple[int, int]], largest: int) -> NDArray[np.uint64]:
    """Table from segment to object, uint64 [largest + 1]: joined segments get the lowest of their ids."""
    ids = np.arange(largest + 1, dtype=np.uint64)
    joined = np.array(pairs, np.int64).reshape(-1, 2)
    members, place = np.unique(joined, return_inverse=True)
    first, second = place.reshape(-1, 2).T
    graph = coo_array((np.ones(len(joined), np.int8), (first, second)), shape=(len(members), len(members)))
    if len(members) > 0:
        _, objects = connected_components(graph, directed=False)
        # Members ascend, so the first of each object is its lowest.
        _, lowest, member = np.unique(objects, return_index=True, return_inverse=True)
        ids[members] = members[lowest][member]
    return ids


def listed(records: Sequence[Mapping[str, Any]], objects: NDArray[np.uint64], offset: ZYX) -> list[dict[str, Any]]:
    """The records, most doubtful first, with places in the source volume and the objects that the segments ended in.

    Args:
        records: Of `Refill`, in any order.
        objects: Table of `merged_ids`.
        offset: Voxel of the source volume at which the region begins, zyx.
    """
    result = []
    for record in sorted(records, key=lambda r: (abs(r["margin"]), r["a"], r["b"])):
        entry = in_source(record, offset)
        ends = {"object_a": int(objects[entry["a"]]), "object_b": int(objects[entry["b"]])}
        first = {key: entry.pop(key) for key in _FIRST}
        result.append({**first, **ends, **entry})
    return result


def in_source(record: Mapping[str, Any], offset: ZYX) -> dict[str, Any]:
    """A record of `Refill` with its places counted in the source volume, and `xyz`, the order that viewers show."""
    entry = dict(record)
    for name in _PLACES:
        if entry[name] is not None:
            entry[name] = [p + o for p, o in zip(entry[name], offset, strict=True)]
    entry["xyz"] = [int(p) for p in xyz_from_zyx(entry["zyx"])]
    return entry


def write_candidates(folder: Path, candidates: Sequence[Mapping[str, Any]]) -> None:
    """Write `candidates.json` and, for spreadsheets, `candidates.csv`; places there are such as `12, 34, 56`."""
    write_json(folder / "candidates.json", list(candidates))
    columns = list(candidates[0]) if candidates else list(_FIRST)
    with atomic_path(folder / "candidates.csv") as partial, partial.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows([_cell(candidate[column]) for column in columns] for candidate in candidates)


def read_candidates(folder: Path) -> list[dict[str, Any]]:
    """What `write_candidates` wrote. Raises StageError where that is missing or something else."""
    path = folder / "candidates.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StageError(f"{path} cannot be read ({error}); delete {folder} and run `ffn agglomerate`.") from error
    return list(found)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
