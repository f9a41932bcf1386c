"""Misaligned sections: from some section on, or at one only, everything lies a few voxels further along y and x."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from ffn.geometry import Box


@dataclass(frozen=True)
class Misalignment:
    """`shifted` sections show what lies `dy`, `dx` voxels further on.

    The centre's section never moves, because the example is about the object at its centre: where it would, the others
    move the other way, which is the same defect.
    """

    dy: int
    dx: int
    shifted: tuple[int, ...]

    @classmethod
    def draw(cls, random: np.random.Generator, depth: int, most: int, slip: float) -> "Misalignment":
        """Up to `most` voxels along either axis, in `depth` sections; `slip` is the probability that it is only one."""
        dy, dx = (int(shift) for shift in random.integers(-most, most, 2, endpoint=True))
        first = int(random.integers(depth))
        moved = {first} if random.random() < slip else set(range(first, depth))
        if depth // 2 in moved:
            dy, dx, moved = -dy, -dx, set(range(depth)) - moved
        return cls(dy, dx, tuple(sorted(moved)))

    def reach(self, box: Box) -> Box:
        """The voxels that are needed to cut out `box` with this defect."""
        z, y, x = box.start
        stop_z, stop_y, stop_x = box.stop
        start = z, y + min(self.dy, 0), x + min(self.dx, 0)
        return Box(start, (stop_z, stop_y + max(self.dy, 0), stop_x + max(self.dx, 0)))

    def apply(self, wide: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Cut the voxels of `reach` (zyx) down to those of the box, each section where it is seen."""
        height, width = wide.shape[1] - abs(self.dy), wide.shape[2] - abs(self.dx)
        top, left = max(-self.dy, 0), max(-self.dx, 0)
        patch = wide[:, top : top + height, left : left + width].copy()
        at = list(self.shifted)
        patch[at] = wide[at, top + self.dy :, left + self.dx :][:, :height, :width]
        return patch
