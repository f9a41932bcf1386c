"""Many flood fills share one network: their looks become batches.

    flood 0 ─┐                     ┌─> answer to flood 0
    flood 1 ─┼─ looks ─> batch ────┼─> answer to flood 1      a second batch is prepared from the other floods
    ...      │         (executor)  │                          while the first is on the device
    flood n ─┘                     └─> ...

An object is followed one step after the other, so a single flood fill never fills a batch. A flood's answers depend on
its own looks only: whatever the batch size and however many floods run side by side, each ends in the same labels.
"""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ffn.inference.canvas import Flood, Look

Answers = Callable[[], Sequence[NDArray[np.float32]]]
"""Waits for a batch and gives the updated maps in the order of its looks."""

_IN_FLIGHT = 2


class BatchedNetwork(Protocol):
    """A network that is asked for several fields of view at once."""

    batch_size: int

    def start(self, looks: Sequence[Look]) -> Answers:
        """Begin to evaluate up to `batch_size` looks, which may change as soon as this returns."""
        ...


def side_by_side(concurrent: int, batch_size: int) -> int:
    """Floods that run side by side: as many as `inference.concurrent` says, or, where that is 0, twice the batch."""
    return concurrent or (2 * batch_size if batch_size > 1 else 1)


def drive(floods: Iterable[Flood], network: BatchedNetwork, concurrent: int = 1) -> None:
    """Run flood fills to their ends.

    Args:
        floods: Each is started when there is room for it, so that only `concurrent` of them hold memory.
        network: Answers their looks.
        concurrent: Floods that run side by side; twice the batch size keeps a device busy.
    """
    coming, running = iter(floods), 0
    ready: deque[tuple[Flood, Look]] = deque()
    flying: deque[tuple[list[Flood], Answers]] = deque()
    while True:
        while running < concurrent and (flood := next(coming, None)) is not None:
            if (look := next(flood, None)) is not None:
                ready.append((flood, look))
                running += 1
        if not ready and not flying:
            return
        if ready and len(flying) < _IN_FLIGHT and (len(ready) >= network.batch_size or not flying):
            batch = [ready.popleft() for _ in range(min(network.batch_size, len(ready)))]
            flying.append(([flood for flood, _ in batch], network.start([look for _, look in batch])))
            continue
        asked, answers = flying.popleft()
        for flood, answer in zip(asked, answers(), strict=True):
            try:
                ready.append((flood, flood.send(answer)))
            except StopIteration:
                running -= 1
