"""Where the field of view goes next.

After a prediction at P the six faces of the box P +- deltas are looked at:

        +-----*---+      each face offers its highest voxel (*), if that reaches the move threshold;
        |         |      an axis with delta 0 has no faces, so a network with deltas (0, d, d) stays in its section
        *    P    |
        |         *      places already predicted (to within a delta) are skipped when their turn comes
        +--*------+

Offers wait in a queue, those of one prediction the highest first, and are taken

- by `FaceMaxMovement`, the reference's policy, all of them;
- by `UnseenMovement`, where enough of the field of view has not been seen yet. Steps of a delta overlap by three
  quarters, and half of the fields of view see less than 2 % that no other saw before; these bring 4 % of the voxels
  (measured with the published FIB-25 network). With fewer looks there are fewer offers, so the faces halfway between
  P +- deltas and the border of the field of view make some too.

The order is the same, and it matters: an object that grows evenly sees each place from several sides, with what it has
found already around it. Going first where most is unseen takes still fewer looks, but runs ahead of its own context,
and joins neurons. Where looks are to be few, the choice is among the next few offers only (docs/quality.md).
"""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from ffn.geometry import ZYX
from ffn.model.faces import face_moves


class Movement(ABC):
    """The offers of one object that wait, and the cells that have been visited.

    Args:
        seed: Where the object begins, z,y,x: the first offer.
        deltas: Step of the field of view.
        threshold: Logit at which a face makes an offer.
    """

    def __init__(self, seed: ZYX, deltas: ZYX, threshold: np.float32) -> None:
        self.seed = seed
        self.done: set[ZYX] = set()
        self._deltas = deltas
        self._threshold = threshold

    @abstractmethod
    def pop(self, is_valid: Callable[[ZYX], bool]) -> ZYX | None:
        """The next position that is neither done nor refused by `is_valid`; None when nothing waits."""

    @abstractmethod
    def waiting(self) -> list[ZYX]:
        """Positions in the order in which they were offered."""

    @abstractmethod
    def _offer(self, positions: Iterable[ZYX]) -> None:
        """Let positions wait."""

    def push(self, logits: NDArray[np.float32], position: ZYX) -> None:
        """Note that `position` has been predicted with result `logits`, and let the moves wait that it suggests."""
        self.done.add(self._cell(position))
        z, y, x = position
        self._offer((z + dz, y + dy, x + dx) for dz, dy, dx in self._moves(logits))

    def restore(self, waiting: Iterable[ZYX], done: Iterable[ZYX]) -> None:
        """Continue with offers and done cells saved earlier, in place of the seed."""
        self.done = set(done)
        self._clear()
        self._offer(waiting)

    def _moves(self, logits: NDArray[np.float32]) -> list[ZYX]:
        """Offsets that a prediction suggests, best first."""
        return face_moves(logits, self._deltas, self._threshold)

    @abstractmethod
    def _clear(self) -> None:
        """Forget all offers."""

    def _cell(self, position: ZYX) -> ZYX:
        (z, y, x), (sz, sy, sx), (dz, dy, dx) = position, self.seed, self._deltas
        return (z - sz + dz // 2) // max(dz, 1), (y - sy + dy // 2) // max(dy, 1), (x - sx + dx // 2) // max(dx, 1)


class FaceMaxMovement(Movement):
    """First come, first served (the reference's FaceMaxMovementPolicy)."""

    def __init__(self, seed: ZYX, deltas: ZYX, threshold: np.float32) -> None:
        super().__init__(seed, deltas, threshold)
        self._queue: deque[ZYX] = deque([seed])

    def pop(self, is_valid: Callable[[ZYX], bool]) -> ZYX | None:
        while self._queue:
            position = self._queue.popleft()
            if self._cell(position) not in self.done and is_valid(position):
                return position
        return None

    def waiting(self) -> list[ZYX]:
        return list(self._queue)

    def _offer(self, positions: Iterable[ZYX]) -> None:
        self._queue.extend(positions)

    def _clear(self) -> None:
        self._queue.clear()


class UnseenMovement(FaceMaxMovement):
    """Offers from where little is new to see are left out; of the next few the one that shows most goes first.

    Args:
        seed, deltas, threshold: As for `Movement`.
        unseen: Voxels around a position that have not been predicted yet.
        least: With fewer than this many a position is left out; the seed is not.
        compared: Of how many offers the one with most unseen goes first, of equal ones the earliest.
    """

    def __init__(
        self,
        seed: ZYX,
        deltas: ZYX,
        threshold: np.float32,
        unseen: Callable[[ZYX], int],
        least: Callable[[ZYX], int],
        compared: int = 1,
    ) -> None:
        super().__init__(seed, deltas, threshold)
        self._unseen, self._least, self._compared = unseen, least, compared

    def pop(self, is_valid: Callable[[ZYX], bool]) -> ZYX | None:
        foremost: list[ZYX] = []
        while len(foremost) < self._compared:
            position = super().pop(lambda position: self._is_worth(position) and is_valid(position))
            if position is None:
                break
            foremost.append(position)
        best = max(foremost, key=self._unseen, default=None)
        self._queue.extendleft(position for position in reversed(foremost) if position != best)
        return best

    def _is_worth(self, position: ZYX) -> bool:
        return position == self.seed or self._unseen(position) >= self._least(position)

    def _moves(self, logits: NDArray[np.float32]) -> list[ZYX]:
        z, y, x = (d and (d + n // 2) // 2 for d, n in zip(self._deltas, logits.shape, strict=True))
        return super()._moves(logits) + face_moves(logits, (z, y, x), self._threshold)
