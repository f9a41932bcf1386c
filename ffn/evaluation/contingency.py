"""The sparse table of how many voxels each ground-truth body shares with each segment.

Tables of disjoint blocks add up to the table of their union, so a volume of any size is a sum over blocks. All
scores are functions of this table alone.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ffn.errors import VolumeError
from ffn.geometry import ZYX, Box, blocks
from ffn.progress import Progress
from ffn.volumes import Volume

Ids = npt.NDArray[np.uint64]
Counts = npt.NDArray[np.int64]

DEFAULT_BLOCK: ZYX = (64, 256, 256)
_ROWS_KEPT_APART = 1 << 20


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
        t, s = _ids(truth, "Ground truth"), _ids(segmentation, "Segmentation")
        if t.size == 0:
            return cls.empty()
        # Neighbours along a line mostly have the same pair: sorting runs instead of voxels is many times less work.
        first = np.concatenate(([True], (t[1:] != t[:-1]) | (s[1:] != s[:-1])))
        starts = np.flatnonzero(first)
        lengths = np.diff(starts, append=t.size)
        known = t[starts] != 0
        return _merged(t[starts][known], s[starts][known], lengths[known])

    @classmethod
    def sum(cls, tables: Iterable["Contingency"]) -> "Contingency":
        """Add tables as they come, holding little more than the result and one table."""
        total, pending, rows = cls.empty(), [], 0
        for table in tables:
            pending.append(table)
            rows += table.count.size
            if rows > max(_ROWS_KEPT_APART, total.count.size):
                total, pending, rows = _added([total, *pending]), [], 0
        return _added([total, *pending])

    def __add__(self, other: "Contingency") -> "Contingency":
        return _added([self, other])

    @property
    def voxels(self) -> int:
        """Voxels with known truth."""
        return int(self.count.sum())

    def select(self, rows: npt.NDArray[np.bool_]) -> "Contingency":
        """The table of only those rows (bool [rows])."""
        return Contingency(self.truth[rows], self.segmentation[rows], self.count[rows])


def contingency_of_volumes(truth: Volume, segmentation: Volume, block: ZYX = DEFAULT_BLOCK) -> Contingency:
    """Table of two volumes of the same shape, read block by block (zyx voxels); memory grows with the block only.

    Raises VolumeError where the shapes differ, naming both.
    """
    if tuple(truth.shape) != tuple(segmentation.shape):
        raise VolumeError(
            f"Ground truth {truth.uri} has shape {_text(truth.shape)} and segmentation {segmentation.uri} "
            f"{_text(segmentation.shape)} (z,y,x); they must cover the same voxels. Use --box to choose them."
        )
    pieces = list(blocks(Box.of_shape(truth.shape), block))
    with Progress("evaluate", len(pieces), "blocks") as progress:

        def tables() -> Iterable[Contingency]:
            for piece in pieces:
                yield Contingency.of_arrays(truth.read(piece), segmentation.read(piece))
                progress.advance()

        return Contingency.sum(tables())


def _added(tables: list[Contingency]) -> Contingency:
    return _merged(
        np.concatenate([table.truth for table in tables]),
        np.concatenate([table.segmentation for table in tables]),
        np.concatenate([table.count for table in tables]),
    )


def _merged(truth: Ids, segmentation: Ids, count: Counts) -> Contingency:
    if count.size == 0:
        return Contingency.empty()
    order = np.lexsort((segmentation, truth))
    truth, segmentation, count = truth[order], segmentation[order], count[order]
    first = np.concatenate(([True], (truth[1:] != truth[:-1]) | (segmentation[1:] != segmentation[:-1])))
    starts = np.flatnonzero(first)
    return Contingency(truth[starts], segmentation[starts], np.add.reduceat(count, starts))


def _ids(labels: npt.NDArray[np.integer], name: str) -> Ids:
    if labels.dtype.kind not in "uib":
        raise VolumeError(f"{name} has dtype {labels.dtype}; labels must be whole numbers.")
    if labels.dtype.kind == "i" and labels.size and int(labels.min()) < 0:
        raise VolumeError(f"{name} has the negative label {int(labels.min())}; labels must be 0 (unknown) or greater.")
    return np.ascontiguousarray(labels).reshape(-1).astype(np.uint64, copy=False)


def _text(shape: ZYX) -> str:
    return ",".join(str(n) for n in shape)
