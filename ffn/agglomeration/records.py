"""What was found for pairs, as columns: a ledger, a sorted file and Parquet hold them, a `Record` is one row."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ffn.blockwise.tables import Table

Record = dict[str, Any]
"""What was found for a pair, of JSON's types; places are image voxels of the region."""

_SCORES = (
    *("iou", "from_a_in_a", "from_a_in_b", "from_b_in_a", "from_b_in_b", "deleted_a", "deleted_b"),
    *("recovered_a", "recovered_b"),
)
TYPES: Mapping[str, Any] = {
    **dict.fromkeys(("a", "b"), np.uint64),
    "joined": np.bool_,
    "reason": "S24",
    "margin": np.float64,
    "zyx": (np.int64, (3,)),
    "distance_nm": np.float64,
    **dict.fromkeys(("voxels_a", "voxels_b"), np.int64),
    **dict.fromkeys((*_SCORES, "max_edt_nm_a", "max_edt_nm_b"), np.float64),
    **dict.fromkeys(("seed_a_zyx", "seed_b_zyx"), (np.int64, (3,))),
    **dict.fromkeys(("attempts_a", "attempts_b", "fovs"), np.int64),
}
"""Columns in the order of a record's entries."""
NOWHERE = -1
"""Coordinates of a seed that there is none of."""


def columns_of(records: Sequence[Record]) -> Table:
    """Records as columns of `TYPES`."""
    columns = {}
    for name, kind in TYPES.items():
        chosen = np.dtype(kind)
        values = [record[name] for record in records]
        if chosen.shape:
            values = [[NOWHERE] * 3 if value is None else value for value in values]
        columns[name] = np.array(values, chosen.base).reshape(-1, *chosen.shape)
    return columns


def column_values(name: str, values: Any) -> list[Any]:
    """A column (`TYPES`) as what its records hold."""
    if name == "reason":
        return values.astype(str).tolist()
    listed = values.tolist()
    return [None if value[0] == NOWHERE else value for value in listed] if np.dtype(TYPES[name]).shape else listed
