"""Lanes: the batch elements, each working through its own examples at its own pace.

A lane holds one example and its canvas, the object map in logits: pad value everywhere, the initial activation at the
centre. Each turn it crops image, map and labels at its next offset; the network's answer overwrites the map there.
When its moves are used up it is judged and silently takes its next example, so the batch is always full.
"""

from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ffn.config import Config
from ffn.geometry import ZYX, Box
from ffn.model.logits import logit
from ffn.training.examples import Example, ExampleSource, LaneStream
from ffn.training.metrics import Tally
from ffn.training.moves import POLICIES


class Lane:
    """One batch element; a reader thread loads its next example while the network works on this one."""

    def __init__(self, config: Config, source: ExampleSource, stream: LaneStream, reader: ThreadPoolExecutor) -> None:
        network = config.network
        self._network, self._policy = network, POLICIES[config.training.moves]
        self._fov: ZYX = network.fov
        self._judged = [f + 2 * d for f, d in zip(network.fov, network.deltas, strict=True)]
        self._pad, self._seed = logit(network.pad_value), logit(network.init_activation)
        self._source, self._stream, self._reader = source, stream, reader
        self._loading: Future[Example] | None = None
        self._offset: ZYX = (0, 0, 0)
        self._begin(0)

    def crop(self, tally: Tally) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        """Views of image, map and labels (float32, fov-sized) where the network is to run next."""
        while (offset := self._moves.next(self._canvas, self._example.labels, tally)) is None:
            tally.count_voxels(self._middle(self._canvas), self._middle(self._example.labels))
            self._begin(self._example.index + 1)
        self._offset = offset
        here = self._here()
        return self._example.image[here], self._canvas[here], self._example.labels[here]

    def update(self, updated: NDArray[np.float32]) -> None:
        """Overwrite the map where `crop` last looked (float32 logits, fov-sized)."""
        self._canvas[self._here()] = updated
        self._moves.ran(self._offset, updated)

    def state(self) -> dict[str, NDArray[Any]]:
        """What `restore` needs between two steps; the example itself is read again."""
        return {"index": np.array(self._example.index), "canvas": self._canvas.copy(), **self._moves.state()}

    def restore(self, state: dict[str, NDArray[Any]]) -> None:
        """Go on from a `state` of the same lane."""
        self._loading = None
        self._begin(int(state["index"]))
        self._canvas[...] = state["canvas"]
        self._moves.restore(state)

    def _begin(self, index: int) -> None:
        loading = self._loading or self._reader.submit(self._source.load, self._stream, index)
        self._example = loading.result()
        self._loading = self._reader.submit(self._source.load, self._stream, self._example.index + 1)
        self._canvas: NDArray[np.float32] = np.full(self._example.image.shape, self._pad, np.float32)
        self._canvas[Box.centred(_middle_of(self._canvas), (1, 1, 1)).slices] = self._seed
        self._moves = self._policy(self._network)

    def _here(self) -> tuple[slice, slice, slice]:
        return Box.centred(_middle_of(self._canvas), self._fov).shifted(self._offset).slices

    def _middle(self, patch: NDArray[np.float32]) -> NDArray[np.float32]:
        return patch[Box.centred(_middle_of(patch), self._judged).slices]


def _middle_of(patch: NDArray[np.float32]) -> list[int]:
    return [int(size) // 2 for size in patch.shape]


class Lanes:
    """The lanes of one rank, and the batch they fill: float32 [batch, z, y, x, 1] image, map and labels."""

    def __init__(self, lanes: Iterable[Lane], fov: ZYX) -> None:
        self._lanes = list(lanes)
        shape = (len(self._lanes), *fov, 1)
        self.image, self.object_map, self.labels = (np.empty(shape, np.float32) for _ in range(3))

    @classmethod
    def of(cls, config: Config, source: ExampleSource, rank: int, ranks: int, reader: ThreadPoolExecutor) -> "Lanes":
        """The lanes of one of `ranks` ranks; see `ffn.training.examples` for the numbering."""
        batch = config.training.batch
        streams = [LaneStream(rank * batch + element, ranks * batch) for element in range(batch)]
        return cls([Lane(config, source, stream, reader) for stream in streams], config.network.fov)

    def fill(self, tally: Tally) -> None:
        """Fill the batch with every lane's next field of view."""
        for element, lane in enumerate(self._lanes):
            crops = lane.crop(tally)
            for batch, crop in zip((self.image, self.object_map, self.labels), crops, strict=True):
                batch[element, ..., 0] = crop

    def update(self, updated: NDArray[np.float32]) -> None:
        """Hand the network's answers (float32 [batch, z, y, x, 1]) back to the lanes."""
        for lane, logits in zip(self._lanes, updated[..., 0], strict=True):
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
