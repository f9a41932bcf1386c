"""Lanes: the batch elements, each working through its own examples at its own pace.

When a lane's example is used up it silently takes its next one, so the batch is always full. Workers have `batch` lanes
each; the lanes of all workers are numbered through, and a rank that stands in for several workers has theirs. So the
examples seen depend on the number of workers and not on how they are spread over ranks.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ffn.config import Config
from ffn.geometry import ZYX
from ffn.training.examples import Example, ExampleSource, LaneStream
from ffn.training.metrics import Tally
from ffn.training.step import Batch
from ffn.training.walk import Crops, Walk

_ALL = LaneStream(0, 1)


class Lane:
    """One batch element; a reader thread loads its next example while the network works on this one."""

    def __init__(self, config: Config, source: ExampleSource, stream: LaneStream, reader: ThreadPoolExecutor) -> None:
        self._config, self._source, self._stream, self._reader = config, source, stream, reader
        self._loading: Future[Example] = self._load(stream, 0)
        self._begin()

    def crops(self, tally: Tally) -> Crops:
        """Views of image, map and labels (float32, fov-sized) where the network is to run next."""
        while (crops := self._walk.crops(tally)) is None:
            self._begin()
        return crops

    def update(self, updated: NDArray[np.float32]) -> None:
        """Overwrite the map where `crops` last looked (float32 logits, fov-sized).

        An example or an answer that holds no numbers cannot be worked on: the lane then takes its next example. The
        answer alone does not tell, for some kernels make a 0 of what is no number.
        """
        if self._sound and np.isfinite(updated).all():
            self._walk.update(updated)
        else:
            self._begin()

    def state(self) -> dict[str, NDArray[Any]]:
        """What `restore` needs between two steps: the example's number among those of all lanes, and the next draw."""
        return {"number": np.array(self._number), "next": np.array(self._next), **self._walk.state()}

    def restore(self, state: dict[str, NDArray[Any]]) -> None:
        """Go on from a `state`, also one of another number of lanes; with only a `next`, begin there."""
        self._next = int(state["next"])
        if "number" in state:
            self._number = int(state["number"])
            self._take(self._load(_ALL, self._number).result())
            self._walk.restore(state)
        else:
            self._loading = self._load(self._stream, self._next)
            self._begin()

    def _begin(self) -> None:
        example = self._loading.result()
        self._number, self._next = self._stream.number(example.index), example.index + 1
        self._take(example)

    def _take(self, example: Example) -> None:
        self._loading = self._load(self._stream, self._next)
        self._walk, self._sound = Walk(self._config, example), bool(np.isfinite(example.image).all())

    def _load(self, stream: LaneStream, index: int) -> Future[Example]:
        return self._reader.submit(self._source.load, stream, index)


class Lanes:
    """The lanes of one rank, and the arrays they fill, in parts of `training.microbatch` lanes or a few less."""

    def __init__(self, lanes: Sequence[Lane], fov: ZYX, microbatch: int) -> None:
        self._lanes = list(lanes)
        parts = -(-len(self._lanes) // microbatch)
        size = -(-len(self._lanes) // parts)
        self._parts = [self._lanes[start : start + size] for start in range(0, len(self._lanes), size)]
        self._batch = [np.empty((size, *fov, 1), np.float32) for _ in range(3)]

    def __len__(self) -> int:
        return len(self._lanes)

    @classmethod
    def of(cls, config: Config, source: ExampleSource, rank: int, ranks: int, reader: ThreadPoolExecutor) -> "Lanes":
        """The lanes of one of `ranks` ranks."""
        training = config.training
        own = training.virtual_workers * training.batch
        streams = [LaneStream(rank * own + number, ranks * own) for number in range(own)]
        lanes = [Lane(config, source, stream, reader) for stream in streams]
        return cls(lanes, config.network.fov, training.microbatch)

    @property
    def parts(self) -> int:
        """How many parts the lanes go through the network in."""
        return len(self._parts)

    def batches(self, tally: Tally) -> Iterator[Batch]:
        """Each part's next fields of view; hand the network's answer to `update` before taking the next part."""
        for part in self._parts:
            self._current = part
            for element, lane in enumerate(part):
                for array, crop in zip(self._batch, lane.crops(tally), strict=True):
                    array[element, ..., 0] = crop
            yield Batch(*(array[: len(part)] for array in self._batch))

    def update(self, updated: NDArray[np.float32]) -> None:
        """The network's answer (float32 [part, z, y, x, 1]) to the last batch."""
        for lane, logits in zip(self._current, updated[..., 0], strict=True):
            lane.update(logits)

    def state(self) -> dict[str, NDArray[Any]]:
        """All lanes' states in one flat dictionary."""
        states = enumerate(lane.state() for lane in self._lanes)
        return {f"lane{element}/{key}": value for element, state in states for key, value in state.items()}

    def restore(self, state: dict[str, NDArray[Any]]) -> None:
        """Go on from a `state` of the same number of lanes."""
        for element, lane in enumerate(self._lanes):
            prefix = f"lane{element}/"
            lane.restore({key.removeprefix(prefix): v for key, v in state.items() if key.startswith(prefix)})
