"""The sparse table of how many voxels each ground-truth body shares with each segment.

Tables of disjoint blocks add up to the table of their union, so a volume of any size is a sum over blocks. All
scores are functions of this table alone.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from math import inf
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ffn.errors import VolumeError
from ffn.evaluation.totals import Counts, Ids, Totals
from ffn.geometry import ZYX, Box, blocks
from ffn.volumes import Volume

DEFAULT_BLOCK: ZYX = (64, 256, 256)
_ROWS_KEPT_APART = 1 << 20


class Rows(Protocol):
    """A contingency table, in memory or in files: all that scores need of it."""

    @property
    def totals(self) -> Totals:
        """Voxels of its bodies and segments."""

    def parts(self) -> Iterator["Contingency"]:
        """Its rows in order, some at a time."""


@dataclass(frozen=True)
class Contingency:
    """Rows (truth id, segment id, voxels), each pair once, sorted by truth id and then segment id.

    `truth` and `segmentation` are uint64 [rows], `count` is int64 [rows] and positive. Voxels whose truth is 0
    (unknown) are not in the table; segment 0 is the segmentation's background and is.
    """

    truth: Ids
    segmentation: Ids
    count: Counts

    @classmethod
    def empty(cls) -> "Contingency":
        return cls(np.zeros(0, np.uint64), np.zeros(0, np.uint64), np.zeros(0, np.int64))

    @classmethod
    def of_arrays(cls, truth: npt.NDArray[np.integer], segmentation: npt.NDArray[np.integer]) -> "Contingency":
        """Count two label arrays of one shape (any integer dtype, 0 = unknown and background).

        Raises VolumeError for different shapes, negative labels or a dtype that cannot hold labels.
        """
        if truth.shape != segmentation.shape:
            raise VolumeError(
                f"Ground truth has shape {truth.shape} and segmentation {segmentation.shape}; they must be equal."
            )
        if truth.size == 0:
            return cls.empty()
        t, s = np.ravel(truth), np.ravel(segmentation)
        # Neighbours along a line mostly have the same pair: runs are many times fewer than voxels.
        starts = _first_of_equals(t, s)
        pairs = {
            "truth": _ids(t[starts], "Ground truth"),
            "segmentation": _ids(s[starts], "Segmentation"),
            "count": np.diff(starts, append=t.size),
        }
        # Runs repeat the same few pairs, so these are hashed; only the pairs are sorted.
        grouped = pa.table(pairs).group_by(["truth", "segmentation"], use_threads=False).aggregate([("count", "sum")])
        table = _added([cls(*(grouped[name].to_numpy() for name in ("truth", "segmentation", "count_sum")))])
        return table.select(table.truth != 0)

    @classmethod
    def of_sorted(cls, truth: Ids, segmentation: Ids, count: Counts) -> "Contingency":
        """The table of rows that are sorted, but may have a pair several times."""
        if count.size == 0:
            return cls.empty()
        starts = _first_of_equals(truth, segmentation)
        return cls(truth[starts], segmentation[starts], np.add.reduceat(count, starts))

    @classmethod
    def sum(cls, tables: Iterable["Contingency"]) -> "Contingency":
        """Add tables, in any order, as they come, holding little more than the result and one table."""
        (table,) = partial_sums(tables)
        return table

    @property
    def columns(self) -> dict[str, npt.NDArray[Any]]:
        """The columns by their names."""
        return {"truth": self.truth, "segmentation": self.segmentation, "count": self.count}

    @cached_property
    def totals(self) -> Totals:
        """Voxels of its bodies and segments."""
        return Totals.of(self.truth, self.segmentation, self.count)

    def parts(self) -> Iterator["Contingency"]:
        """All of it."""
        yield self

    def __add__(self, other: "Contingency") -> "Contingency":
        return _added([self, other])

    @property
    def voxels(self) -> int:
        """Voxels with known truth."""
        return int(self.count.sum())

    def select(self, rows: npt.NDArray[np.bool_]) -> "Contingency":
        """The table of only those rows (bool [rows])."""
        return Contingency(self.truth[rows], self.segmentation[rows], self.count[rows])


def partial_sums(tables: Iterable[Contingency], most: float = inf) -> Iterator[Contingency]:
    """Sums of tables that follow each other, at least one: a sum that has more than `most` rows is ended.

    Little more than one sum and one table are held.
    """
    kept, rows = [Contingency.empty()], 0
    for table in tables:
        kept.append(table)
        rows += table.count.size
        if rows > max(_ROWS_KEPT_APART, kept[0].count.size // 4):
            kept, rows = [_added(kept)], 0
            if kept[0].count.size > most:
                yield kept.pop()
                kept.append(Contingency.empty())
    yield _added(kept)


def contingency_of_volumes(
    truth: Volume, segmentation: Volume, block: ZYX = DEFAULT_BLOCK, box: Box | None = None
) -> Contingency:
    """Table of two volumes of the same shape, or of a box of them, read block by block (zyx voxels); memory grows with
    the block only.

    Raises VolumeError where the shapes differ, naming both.
    """
    require_same_shape(truth, segmentation)
    return Contingency.sum(
        Contingency.of_arrays(truth.read(piece), segmentation.read(piece))
        for piece in blocks(box or Box.of_shape(truth.shape), block)
    )


def require_same_shape(truth: Volume, segmentation: Volume) -> None:
    """Raise VolumeError, naming both, where the two do not cover the same voxels."""
    if tuple(truth.shape) != tuple(segmentation.shape):
        raise VolumeError(
            f"Ground truth {truth.uri} has shape {_text(truth.shape)} and segmentation {segmentation.uri} "
            f"{_text(segmentation.shape)} (z,y,x); they must cover the same voxels. Use --box to choose them."
        )


def _added(tables: list[Contingency]) -> Contingency:
    """The sum of tables; the list is empty afterwards, so that they need no memory while their sum is made."""
    truth = np.concatenate([table.truth for table in tables])
    segmentation = np.concatenate([table.segmentation for table in tables])
    count = np.concatenate([table.count for table in tables])
    tables.clear()
    order = np.lexsort((segmentation, truth))
    truth, segmentation, count = truth[order], segmentation[order], count[order]
    del order
    return Contingency.of_sorted(truth, segmentation, count)


def _first_of_equals(a: npt.NDArray[np.integer], b: npt.NDArray[np.integer]) -> npt.NDArray[np.intp]:
    """Where a pair of two columns differs from the one before it; the first place always is there. Not for none."""
    differs = np.empty(a.size, bool)
    differs[0] = True
    np.not_equal(a[1:], a[:-1], out=differs[1:])
    differs[1:] |= b[1:] != b[:-1]
    return np.flatnonzero(differs)


def _ids(labels: npt.NDArray[np.integer], name: str) -> Ids:
    if labels.dtype.kind not in "uib":
        raise VolumeError(f"{name} has dtype {labels.dtype}; labels must be whole numbers.")
    if labels.dtype.kind == "i" and int(labels.min()) < 0:
        raise VolumeError(f"{name} has the negative label {int(labels.min())}; labels must be 0 (unknown) or greater.")
    return labels.astype(np.uint64, copy=False)


def _text(shape: ZYX) -> str:
    return ",".join(str(n) for n in shape)
