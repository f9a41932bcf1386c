"""Which pairs of segments are tried, in which order, and what that costs at most.

All that meet are in a file, `pairs.parquet`, in the order in which they are tried: columns `a`, `b`, `distance_nm`,
`z`, `y`, `x` (voxels of the region) and `voxels_a`, `voxels_b` (of the segments). A large volume has more of them than
will ever be tried.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ffn.agglomeration.decision_points import STEPS_PER_NM, DecisionPoint
from ffn.blockwise.tables import Table
from ffn.config import Config
from ffn.errors import StageError
from ffn.geometry import ZYX

RANKED_BY = ("depth", "minus_smaller", "a", "b")
"""Columns of `ranked`, by which pairs are sorted."""
SCHEMA = pa.schema(
    [
        *((name, pa.uint64()) for name in ("a", "b")),
        ("distance_nm", pa.float64()),
        *((name, pa.int64()) for name in ("z", "y", "x", "voxels_a", "voxels_b")),
    ]
)
_MADE_FROM = b"made_from"
_BITS = 21
"""Bits of a coordinate in a Morton code."""


@dataclass(frozen=True)
class Pair:
    """A candidate: where its segments meet, and the voxels of each in the whole volume."""

    point: DecisionPoint
    voxels_a: int
    voxels_b: int


def ranked(pairs: Table) -> Table:
    """Pairs with the columns by which they are sorted: the nearest first; of equally near ones those whose smaller
    segment is larger, then those of lower ids.

    Args:
        pairs: With `a`, `b`, `depth`, `voxels_a`, `voxels_b`.
    """
    return {**pairs, "minus_smaller": -np.minimum(pairs["voxels_a"], pairs["voxels_b"])}


def morton(zyx: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Numbers that are near each other for places that are: the bits of z, y and x in turn, uint64 [n]."""
    code = np.zeros(len(zyx), np.uint64)
    for axis, column in enumerate(zyx.T.astype(np.uint64)):
        for bit in range(_BITS):
            code |= ((column >> np.uint64(bit)) & np.uint64(1)) << np.uint64(3 * bit + 2 - axis)
    return code


def pairs_of(table: Table) -> list[Pair]:
    """The pairs in a table with `a`, `b`, `depth`, `zyx`, `voxels_a`, `voxels_b`."""
    distance = table["depth"] / STEPS_PER_NM
    columns = (table["a"], table["b"], distance, table["zyx"], table["voxels_a"], table["voxels_b"])
    return [
        Pair(DecisionPoint(a, b, distance_nm, tuple(zyx)), voxels_a, voxels_b)
        for a, b, distance_nm, zyx, voxels_a, voxels_b in zip(*(column.tolist() for column in columns), strict=True)
    ]


def arrow_of(table: Table) -> pa.Table:
    """The same pairs as they are in `pairs.parquet`."""
    z, y, x = np.ascontiguousarray(table["zyx"].T)
    columns = {**table, "distance_nm": table["depth"] / STEPS_PER_NM, "z": z, "y": y, "x": x}
    return pa.table({name: columns[name] for name in SCHEMA.names}, schema=SCHEMA)


def schema_of(made_from: str) -> pa.Schema:
    """That of `pairs.parquet`, with the settings that decide what is in it."""
    return SCHEMA.with_metadata({_MADE_FROM: made_from.encode()})


class PairsFile:
    """A `pairs.parquet` that is there; a few of its pairs are looked up.

    Raises StageError where it is something else.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            schema = pq.read_schema(path)
        except (OSError, pa.ArrowException) as error:
            raise self._unreadable(error) from error
        self.made_from = (schema.metadata or {}).get(_MADE_FROM, b"").decode()

    def between(self, a: int, b: int) -> Pair | None:
        """The pair of these two segments."""
        if min(a, b) < 0:
            return None
        found = self._where((pc.field("a") == _id(min(a, b))) & (pc.field("b") == _id(max(a, b))), SCHEMA.names)
        for row in found.to_pylist():
            point = DecisionPoint(row["a"], row["b"], row["distance_nm"], (row["z"], row["y"], row["x"]))
            return Pair(point, row["voxels_a"], row["voxels_b"])
        return None

    def meets(self, segment: int) -> bool:
        """Whether a segment is in any pair."""
        if segment < 0:
            return False
        return self._where((pc.field("a") == _id(segment)) | (pc.field("b") == _id(segment)), ["a"]).num_rows > 0

    def _where(self, condition: pc.Expression, columns: Sequence[str]) -> pa.Table:
        try:
            return pq.read_table(self.path, columns=columns, filters=condition)
        except (OSError, pa.ArrowException) as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: Exception) -> StageError:
        return StageError(f"{self.path} cannot be read ({error}); delete it and run the same command again.")


def _id(number: int) -> pa.Scalar:
    return pa.scalar(number, pa.uint64())


def largest_fill(config: Config) -> int:
    """Evaluations of the network that one fill takes at most: a step is taken to each place on the grid of steps."""
    return math.prod(
        1 if delta == 0 else math.ceil((2 * radius + 1 - fov) / delta) + 1
        for radius, fov, delta in zip(config.radii.filled, config.network.fov, config.deltas, strict=True)
    )


def network_voxel(place: ZYX, factors: ZYX) -> ZYX:
    """The network voxel that holds an image voxel."""
    z, y, x = (p // f for p, f in zip(place, factors, strict=True))
    return z, y, x
