"""One example worked through: the canvas, and the field of view that moves over it.

The canvas is the object map in logits: pad value everywhere, the initial activation at the centre. Each turn image,
map and labels are cropped at the next offset, and the network's answer overwrites the map there.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ffn.config import Config
from ffn.geometry import ZYX, Box
from ffn.model.logits import logit
from ffn.training.examples import Example
from ffn.training.metrics import Tally
from ffn.training.moves import POLICIES

Crops = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]


class Walk:
    """The turns of one example, until its movement policy has no more offset."""

    def __init__(self, config: Config, example: Example) -> None:
        network = config.network
        self.example = example
        self._fov = network.fov
        self._middle: ZYX = _middle_of(example.image.shape)
        judged = [f + 2 * d for f, d in zip(network.fov, network.deltas, strict=True)]
        self._judged = Box.centred(self._middle, judged).slices
        self.canvas: NDArray[np.float32] = np.full(example.image.shape, logit(network.pad_value), np.float32)
        self.canvas[self._middle] = logit(network.init_activation)
        self._moves = POLICIES[config.training.moves](network)
        self._offset: ZYX = (0, 0, 0)
        self._here: tuple[slice, slice, slice] = self.canvas_slices((0, 0, 0))

    def crops(self, tally: Tally) -> Crops | None:
        """Views of image, map and labels (float32, fov-sized) where the network is to run next.

        None when the example is finished; its canvas has then been judged against its labels.
        """
        offset = self._moves.next(self.canvas, self.example.labels, tally)
        if offset is None:
            tally.count_voxels(self.canvas[self._judged], self.example.labels[self._judged])
            return None
        self._offset, self._here = offset, self.canvas_slices(offset)
        return self.example.image[self._here], self.canvas[self._here], self.example.labels[self._here]

    def update(self, updated: NDArray[np.float32]) -> None:
        """Overwrite the map where `crops` last looked (float32 logits, fov-sized)."""
        self.canvas[self._here] = updated
        self._moves.ran(self._offset, updated)

    def canvas_slices(self, offset: ZYX) -> tuple[slice, slice, slice]:
        """Where a field of view lies whose centre is `offset` voxels from the example's."""
        return Box.centred(self._middle, self._fov).shifted(offset).slices

    def state(self) -> dict[str, NDArray[Any]]:
        """What `restore` needs between two turns; the example itself is read again."""
        return {"canvas": self.canvas.copy(), **self._moves.state()}

    def restore(self, state: dict[str, NDArray[Any]]) -> None:
        """Go on from a `state` of the same example."""
        self.canvas[...] = state["canvas"]
        self._moves.restore(state)


def _middle_of(shape: tuple[int, ...]) -> ZYX:
    z, y, x = (int(size) // 2 for size in shape)
    return z, y, x
