"""Which of many boxes share voxels with a given one, without comparing it with all of them.

The boxes are entered into a grid whose cells are as large as the largest of them, so each lies in at most eight cells,
and a box of that size meets only those in the cells around it.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import product

import numpy as np
from numpy.typing import NDArray

from ffn.geometry import Box


class BoxIndex:
    """Boxes that can be asked for by place."""

    def __init__(self, boxes: Sequence[Box]) -> None:
        self._boxes = boxes
        self._starts = np.array([box.start for box in boxes], np.int64).reshape(-1, 3)
        self._stops = np.array([box.stop for box in boxes], np.int64).reshape(-1, 3)
        self._cell = (self._stops - self._starts).max(axis=0, initial=1)
        cells = defaultdict[tuple[int, ...], list[int]](list)
        for number, box in enumerate(boxes):
            for cell in self._cells(box):
                cells[cell].append(number)
        self._members = {cell: np.array(numbers, np.int64) for cell, numbers in cells.items()}

    def meeting(self, box: Box) -> NDArray[np.int64]:
        """Numbers of the boxes that share voxels with `box`, int64, ascending."""
        found = [self._members[cell] for cell in self._cells(box) if cell in self._members]
        if not found:
            return np.empty(0, np.int64)
        near = np.unique(np.concatenate(found))
        return near[np.all((self._starts[near] < box.stop) & (self._stops[near] > box.start), axis=1)]

    def pairs_of(self, first: int) -> Iterator[tuple[int, Box]]:
        """The later boxes that share voxels with the box `first`, ascending, and these voxels."""
        near = self.meeting(self._boxes[first])
        for second in near[near > first].tolist():
            shared = self._boxes[first].intersection(self._boxes[second])
            if shared is not None:
                yield second, shared

    def _cells(self, box: Box) -> Iterator[tuple[int, ...]]:
        ranges = (range(a // n, (b - 1) // n + 1) for a, b, n in zip(box.start, box.stop, self._cell, strict=True))
        return product(*ranges)
