"""Where the field of view goes next (the reference's FaceMaxMovementPolicy).

After a prediction at P the six faces of the box P +- deltas are looked at:

        +-----*---+      each face offers its highest voxel (*), if that reaches the move threshold;
        |         |      an axis with delta 0 has no faces, so a network with deltas (0, d, d) stays in its section
        *    P    |
        |         *      offers join the end of a queue, the highest first; places already predicted (to within
        +--*------+      a delta) are skipped when their turn comes
"""

from collections import deque
from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from ffn.geometry import ZYX
from ffn.model.faces import face_moves


class FaceMaxMovement:
    """The queue of one object: positions to visit and cells that have been visited."""

    def __init__(self, seed: ZYX, deltas: ZYX, threshold: np.float32) -> None:
        self.seed = seed
        self.queue: deque[ZYX] = deque([seed])
        self.done: set[ZYX] = set()
        self._deltas = deltas
        self._threshold = threshold

    @classmethod
    def restored(
        cls, seed: ZYX, deltas: ZYX, threshold: np.float32, queue: Iterable[ZYX], done: Iterable[ZYX]
    ) -> "FaceMaxMovement":
        """Continue with a queue and done cells saved earlier."""
        movement = cls(seed, deltas, threshold)
        movement.queue = deque(queue)
        movement.done = set(done)
        return movement

    def pop(self, is_valid: Callable[[ZYX], bool]) -> ZYX | None:
        """The next position that is neither done nor refused by `is_valid`; None when the queue is empty."""
        while self.queue:
            position = self.queue.popleft()
            if self._cell(position) not in self.done and is_valid(position):
                return position
        return None

    def push(self, logits: NDArray[np.float32], position: ZYX) -> None:
        """Note that `position` has been predicted with result `logits`, and queue the moves it suggests."""
        self.done.add(self._cell(position))
        z, y, x = position
        self.queue.extend((z + dz, y + dy, x + dx) for dz, dy, dx in face_moves(logits, self._deltas, self._threshold))

    def _cell(self, position: ZYX) -> ZYX:
        (z, y, x), (sz, sy, sx), (dz, dy, dx) = position, self.seed, self._deltas
        return (z - sz + dz // 2) // max(dz, 1), (y - sy + dy // 2) // max(dy, 1), (x - sx + dx // 2) // max(dx, 1)
