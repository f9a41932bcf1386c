"""Sums by key over more records than memory holds: sorted runs on disk, merged a piece at a time."""

import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Counted = tuple[NDArray[np.uint64], NDArray[np.int64]]
"""Keys and their counts; where they are `summed`, the keys ascend and each is there once."""

MOST = 1 << 22
"""Records held at once: 64 MB, and some 0.4 GB while they are sorted."""


def summed(parts: Iterable[Counted]) -> Counted:
    """All keys of the parts, ascending, each once with the sum of its counts."""
    listed = [*parts, (np.empty(0, np.uint64), np.empty(0, np.int64))]
    keys = np.concatenate([part[0] for part in listed])
    counts = np.concatenate([part[1] for part in listed])
    order = np.argsort(keys, kind="stable")
    keys, counts = keys[order], counts[order]
    firsts = np.flatnonzero(np.concatenate([np.ones(min(len(keys), 1), bool), keys[1:] != keys[:-1]]))
    return keys[firsts], np.add.reduceat(counts, firsts) if len(firsts) else counts


def merged(parts: Iterable[Counted], folder: Path | None = None, most: int = MOST) -> Iterator[Counted]:
    """The same as `summed` in pieces, one behind the other; at most about `most` records are in memory.

    Args:
        parts: Taken one at a time; each fits into memory.
        folder: Where runs go that do not; removed at the end. None = the system's folder for temporary files.
        most: Records.
    """
    with tempfile.TemporaryDirectory(prefix="runs-", dir=folder) as runs_folder:
        runs: list[_Run] = []
        held: list[Counted] = []
        for part in parts:
            held.append(part)
            if sum(len(keys) for keys, _ in held) > most:
                held = [summed(held)]
                # Where most keys are old ones there is room for many more parts.
                if len(held[0][0]) > most // 2:
                    runs.append(_Run.write(Path(runs_folder) / str(len(runs)), held[0]))
                    held = []
        if not runs:
            yield summed(held)
            return
        if held:
            runs.append(_Run.write(Path(runs_folder) / str(len(runs)), summed(held)))
        yield from _side_by_side(runs, max(most // len(runs), 1))


@dataclass
class _Run:
    """A sorted run on disk, read from `begin` on; read and not mapped, so that what has been read takes no memory."""

    path: Path
    size: int
    begin: int = 0

    @classmethod
    def write(cls, path: Path, records: Counted) -> "_Run":
        for array, suffix in zip(records, (".keys", ".counts"), strict=True):
            array.tofile(path.with_suffix(suffix))
        return cls(path, len(records[0]))

    def keys(self, first: int, count: int) -> NDArray[np.uint64]:
        return np.fromfile(self.path.with_suffix(".keys"), np.uint64, count, offset=8 * first)

    def key_at(self, step: int) -> np.uint64 | None:
        """The key of the last of the next `step` records; None where there are no more than that."""
        return None if self.begin + step >= self.size else self.keys(self.begin + step - 1, 1)[0]

    def take(self, last: np.uint64 | None, step: int) -> Counted:
        """Read on up to the key `last`, or to the end: `step` records at most."""
        keys = self.keys(self.begin, step)
        if last is not None:
            keys = keys[: np.searchsorted(keys, last, side="right")]
        counts = np.fromfile(self.path.with_suffix(".counts"), np.int64, len(keys), offset=8 * self.begin)
        self.begin += len(keys)
        return keys, counts


def _side_by_side(runs: list[_Run], step: int) -> Iterator[Counted]:
    """At each turn all keys up to one that no run has more than `step` records before."""
    while any(run.begin < run.size for run in runs):
        ends = [key for run in runs if (key := run.key_at(step)) is not None]
        yield summed([run.take(min(ends, default=None), step) for run in runs])
