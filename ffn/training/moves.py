"""How the field of view moves over a training example: the policies `fixed`, `max_pred_moves` and `no_step`.

A policy proposes offsets (zyx voxels from the example's centre) one after the other and sees the canvas, the object
map in logits as the network has left it so far. It also counts its decisions: a move is *wanted* where the label is
the object, and *executed* where the canvas reaches the threshold. Where the label is not known, nobody can say whether
a move was right, and it is not counted.
"""

from abc import ABC, abstractmethod
from collections import deque
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ffn.config import Network
from ffn.geometry import ZYX
from ffn.model.faces import face_moves
from ffn.model.logits import logit
from ffn.training.metrics import Tally

# An object's soft label is 0.95; the reference asks for 0.9 whatever the threshold of the map.
WANTED_LABEL = np.float32(0.9)
CENTRE: ZYX = (0, 0, 0)


class Moves(ABC):
    """The moves over one example. `canvas` and `labels` are float32 zyx, the size of the example's patch."""

    def __init__(self, network: Network) -> None:
        self._threshold = logit(network.move_threshold)
        self._deltas: ZYX = network.deltas

    @abstractmethod
    def next(self, canvas: NDArray[np.float32], labels: NDArray[np.float32], tally: Tally) -> ZYX | None:
        """The next offset to run the network at, or None when the example is finished."""

    def ran(self, offset: ZYX, updated: NDArray[np.float32]) -> None:  # noqa: B027  (most policies need not know)
        """Tell the policy that the network ran at `offset` and returned `updated` (float32, fov-sized)."""

    @abstractmethod
    def state(self) -> dict[str, NDArray[Any]]:
        """What `restore` needs to go on from here."""

    @abstractmethod
    def restore(self, state: dict[str, NDArray[Any]]) -> None:
        """Go on from a `state`."""

    def _decide(
        self, offset: ZYX, canvas: NDArray[np.float32], labels: NDArray[np.float32], tally: Tally
    ) -> tuple[bool, bool]:
        """(wanted, executed) of a move to `offset`, counted where the label is known."""
        z, y, x = (size // 2 + o for size, o in zip(canvas.shape, offset, strict=True))
        label, executed = labels[z, y, x], bool(canvas[z, y, x] >= self._threshold)
        wanted = bool(label >= WANTED_LABEL)
        if label >= 0:
            tally.count_move(wanted, executed)
        return wanted, executed


def fixed_offsets(deltas: ZYX) -> list[ZYX]:
    """The centre, then its neighbours at +-deltas: x slowest, z fastest, the order of the reference's list.

    Along an axis with delta 0 there is only one position, so flat networks have fewer than 27 offsets.
    """
    steps_z, steps_y, steps_x = ([0] if d == 0 else [-d, 0, d] for d in deltas)
    around = [(z, y, x) for x, y, z in product(steps_x, steps_y, steps_z) if (z, y, x) != CENTRE]
    return [CENTRE, *around]


class FixedMoves(Moves):
    """Each of a fixed list of offsets at most once, in order, if the canvas reaches the threshold when its turn is."""

    def __init__(self, network: Network) -> None:
        super().__init__(network)
        self._offsets = self._list()
        self._position = 0

    def _list(self) -> list[ZYX]:
        return fixed_offsets(self._deltas)

    def next(self, canvas: NDArray[np.float32], labels: NDArray[np.float32], tally: Tally) -> ZYX | None:
        while self._position < len(self._offsets):
            offset = self._offsets[self._position]
            self._position += 1
            if self._decide(offset, canvas, labels, tally)[1]:
                return offset
        return None

    def state(self) -> dict[str, NDArray[Any]]:
        return {"position": np.array(self._position)}

    def restore(self, state: dict[str, NDArray[Any]]) -> None:
        self._position = int(state["position"])


class NoStep(FixedMoves):
    """Only the centre."""

    def _list(self) -> list[ZYX]:
        return [CENTRE]


class MaxPredMoves(Moves):
    """The queue of inference: from each prediction to its best face voxels, as far as two steps from the centre.

    A move needs the canvas and also the label: moves out of the object are counted, never taken.
    """

    def __init__(self, network: Network) -> None:
        super().__init__(network)
        self._queue: deque[ZYX] = deque([CENTRE])
        self._done: set[ZYX] = set()

    def next(self, canvas: NDArray[np.float32], labels: NDArray[np.float32], tally: Tally) -> ZYX | None:
        while self._queue:
            offset = self._queue.popleft()
            if any(abs(o) > 2 * d for o, d in zip(offset, self._deltas, strict=True)):
                continue
            if self._cell(offset) in self._done:
                continue
            wanted, executed = self._decide(offset, canvas, labels, tally)
            if executed and (wanted or offset == CENTRE):
                return offset
        return None

    def ran(self, offset: ZYX, updated: NDArray[np.float32]) -> None:
        self._done.add(self._cell(offset))
        z, y, x = offset
        self._queue.extend(
            (z + dz, y + dy, x + dx) for dz, dy, dx in face_moves(updated, self._deltas, self._threshold)
        )

    def state(self) -> dict[str, NDArray[Any]]:
        return {
            "queue": np.array(self._queue, np.int64).reshape(-1, 3),
            "done": np.array(sorted(self._done), np.int64).reshape(-1, 3),
        }

    def restore(self, state: dict[str, NDArray[Any]]) -> None:
        self._queue = deque((z, y, x) for z, y, x in state["queue"].tolist())
        self._done = {(z, y, x) for z, y, x in state["done"].tolist()}

    def _cell(self, offset: ZYX) -> ZYX:
        z, y, x = ((o + d // 2) // max(d, 1) for o, d in zip(offset, self._deltas, strict=True))
        return z, y, x


POLICIES: dict[str, type[Moves]] = {"fixed": FixedMoves, "max_pred_moves": MaxPredMoves, "no_step": NoStep}
