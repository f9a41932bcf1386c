"""Training examples: which one comes next in which lane, and what it holds.

All workers' batch elements together are *lanes*: element `e` of worker `w` is lane `w * batch + e`. The lanes share one
stream of examples, dealt out in turn, so a run with 2 ranks of batch 1 sees the examples of 1 rank with batch 2. An
example is a pure function of its number in that stream.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ffn.config import Augmentation, Config
from ffn.errors import ConfigError, DataError
from ffn.geometry import ZYX, Box
from ffn.model.orientation import Orientation, equal_axes
from ffn.prepare.labels import soft_labels
from ffn.prepare.run import VALIDATION_SEED, labelled_files
from ffn.progress import log
from ffn.training.augment import Augmenter
from ffn.training.region import CACHE_BYTES
from ffn.training.volume import ExampleVolume

_MOST_MISSES = 100_000
_PURPOSE = 0x701


@dataclass(frozen=True)
class Example:
    """One patch to learn from; both arrays float32 zyx.

    `index` is its place in its lane's stream, `image` is normalised, `labels` is 0.95 in the object of the centre
    voxel, 0.05 elsewhere, and -1 where nothing is known.
    """

    index: int
    image: NDArray[np.float32]
    labels: NDArray[np.float32]


def patch_size(config: Config) -> ZYX:
    """Voxels zyx loaded for an example: the fov and one step to each side, two for `max_pred_moves`."""
    reach = {"fixed": 1, "max_pred_moves": 2, "no_step": 1}[config.training.moves]
    z, y, x = (f + 2 * reach * d for f, d in zip(config.network.fov, config.network.deltas, strict=True))
    return z, y, x


@dataclass(frozen=True)
class LaneStream:
    """One lane's share of the stream of examples: every `lanes`-th, from number `lane` on."""

    lane: int
    lanes: int

    def number(self, index: int) -> int:
        """The number of this lane's draw `index` among the draws of all lanes."""
        return index * self.lanes + self.lane


class ExampleSource:
    """Loads examples of a prepared run. Not for use from several threads at once.

    Attributes:
        available: Different centres of examples.
        left_out: Draws so far whose patch sticks out of its volume: none where the run was prepared for its moves.
    """

    def __init__(self, config: Config, held_out: bool = False) -> None:
        """The examples to learn from, or the `held_out` ones of data.validation, which are never changed.

        Raises ConfigError where the configuration has none of them, or they cannot be turned as it says.
        """
        keys = ["data.validation"] if held_out else list(config.data.volumes)
        files = labelled_files(config)
        if not keys or keys[0] not in files:
            what = "data.validation is empty: there is nothing to judge on."
            raise ConfigError(what if held_out else "data.train is empty: there is nothing to train on.")
        self.left_out = 0
        self._config, self._size, self._changed = config, patch_size(config), not held_out
        self._augmenter = Augmenter(Augmentation() if held_out else config.augmentation, config.seed)
        self._volumes, cache_bytes = [], CACHE_BYTES
        for key in keys:
            seed = VALIDATION_SEED if held_out else config.seed
            self._volumes.append(ExampleVolume(config, key, *files[key], seed, cache_bytes))
            self._volumes[-1].require_room(self._size)
            cache_bytes -= self._volumes[-1].held_bytes
        self.available = sum(sum(volume.centres.counts.values()) for volume in self._volumes)
        self._permutable = self._permutable_axes()
        weights = [1.0] if held_out else [volume.weight for volume in config.data.volumes.values()]
        self._shares = np.cumsum(weights) / np.sum(weights)

    @classmethod
    def for_validation(cls, config: Config) -> "ExampleSource":
        """The held-out examples of data.validation as they are in the volume, the same for every seed of a run."""
        return cls(config, held_out=True)

    def load(self, lane: LaneStream, index: int) -> Example:
        """The lane's first example from place `index` on whose whole patch lies inside its volume.

        Raises DataError where there is none, or where there are fewer centres than lanes.
        """
        if lane.lanes > self.available:
            raise DataError(
                f"{', '.join(volume.key for volume in self._volumes)}: there are {self.available} centres of examples, "
                f"fewer than the {lane.lanes} examples that are worked on at once (ranks x training.virtual_workers x "
                "training.batch). Use more labelled data, fewer ranks or workers, or a smaller batch."
            )
        for candidate in range(index, index + _MOST_MISSES):
            number = lane.number(candidate)
            volume = self._volumes[self._choose(number)]
            box = Box.centred(volume.centres.draw(number), self._size)
            if Box.of_shape(volume.image.shape).contains(box):
                return self._cut(volume, candidate, box, number)
            self._leave_out(volume)
        raise DataError(
            f"{_MOST_MISSES} training coordinates in a row lie too near the border for a patch of {self._size} voxels "
            f"(zyx) in a region of {self._volumes[0].image.shape}: use a smaller fov or deltas, or a larger training "
            "region."
        )

    def _choose(self, number: int) -> int:
        """Which volume the example comes from: drawn by the volumes' weights."""
        if len(self._volumes) == 1:
            return 0
        draw = np.random.default_rng([self._config.seed, _PURPOSE, number]).random()
        return int(np.searchsorted(self._shares, draw, side="right"))

    def _leave_out(self, volume: ExampleVolume) -> None:
        if self.left_out == 0:
            log(f"{volume.key}: examples whose patch of {self._size} voxels (zyx) sticks out are left out.")
        self.left_out += 1

    def _cut(self, volume: ExampleVolume, index: int, box: Box, number: int) -> Example:
        image, labels = self._augmenter.cut(volume.image, volume.labels, box, number)
        if self._changed:
            mirrored = self._config.training.reflectable_axes
            turn = Orientation.draw(self._config.seed, number, self._permutable, mirrored)
            image, labels = turn.apply(image), turn.apply(labels)
        image = np.array(image, np.float32, order="C")
        image -= np.float32(self._config.network.image_mean)
        image /= np.float32(self._config.network.image_stddev)
        return Example(index, image, soft_labels(labels, volume.zero_is_unknown))

    def _permutable_axes(self) -> list[str]:
        chosen, network = self._config.training.permutable_axes, self._config.network
        if chosen == "auto":
            return equal_axes(network, self._volumes[0].image.voxel_size)
        if len({self._size["zyx".index(axis)] for axis in chosen}) > 1:
            raise ConfigError(
                f"training.permutable_axes {chosen} names axes along which the fov {network.fov} or the deltas "
                f"{network.deltas} differ; only equal axes can be swapped."
            )
        return list(chosen)
