"""Batches: neighbouring sub-volumes, by number, that one job fills.

    numbers    0 1 2 3 4 5 6 7 8 9
    finished           [4 . 6]
    in threes  [0 . 2] [4 . 6] [7 . 9]      and 3 by itself

Finished batches stay as they were cut, so that another size of batch changes only what is still to do.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class Batch:
    """Sub-volumes `first` to `last`, both included."""

    first: int
    last: int

    def __str__(self) -> str:
        return f"{self.first:04d}-{self.last:04d}"

    @classmethod
    def parse(cls, text: str) -> "Batch | None":
        """The batch of this name, or None if it is none."""
        match = re.fullmatch(r"(\d+)-(\d+)", text)
        return None if match is None or int(match[2]) < int(match[1]) else cls(int(match[1]), int(match[2]))

    @property
    def indices(self) -> range:
        return range(self.first, self.last + 1)


def cut(count: int, size: int, finished: Iterable[Batch] = ()) -> list[Batch]:
    """Batches of at most `size` that hold each of `count` sub-volumes once, together with those that are finished.

    Of finished batches that overlap the one that starts first counts, and of those the longest.
    """
    kept: list[Batch] = []
    for batch in sorted(finished, key=lambda batch: (batch.first, -batch.last)):
        if batch.last < count and (not kept or batch.first > kept[-1].last):
            kept.append(batch)
    found, place = [], 0
    for batch in [*kept, Batch(count, count)]:
        found += [Batch(first, min(first + size, batch.first) - 1) for first in range(place, batch.first, size)]
        found.append(batch)
        place = batch.last + 1
    return found[:-1]
