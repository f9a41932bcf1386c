"""Training examples: which one comes next in which lane, and what it holds.

All ranks' batch elements together are *lanes*: element `e` of rank `r` is lane `r * batch + e`. The lanes share one
stream of centres, dealt out in turn, so a run with 2 ranks of batch 1 sees the examples of 1 rank with batch 2.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ffn.config import Config
from ffn.errors import ConfigError, DataError, GeometryError, VolumeError
from ffn.geometry import ZYX, Box
from ffn.prepare.coordinates import CoordinateStream
from ffn.prepare.labels import soft_labels
from ffn.runs import RunPaths, image_uri, labels_uri
from ffn.training.augment import Orientation
from ffn.training.region import TrainingRegion
from ffn.volumes import coarsen, open_image, open_labels

_MOST_MISSES = 100_000


@dataclass(frozen=True)
class Example:
    """One patch to learn from; both arrays float32 zyx.

    `index` is its place in its lane's stream, `image` is normalised, `labels` is 0.95 in the object of the centre
    voxel and 0.05 elsewhere.
    """

    index: int
    image: NDArray[np.float32]
    labels: NDArray[np.float32]


def patch_size(config: Config) -> ZYX:
    """Voxels zyx loaded for an example: the fov and one step to each side, two for `max_pred_moves`."""
    reach = {"fixed": 1, "max_pred_moves": 2, "no_step": 1}[config.training.moves]
    z, y, x = (f + 2 * reach * d for f, d in zip(config.network.fov, config.network.deltas, strict=True))
    return z, y, x


class ExampleSource:
    """Loads examples of the training region of a prepared run."""

    def __init__(self, config: Config) -> None:
        train = config.data.train
        if train is None:
            raise ConfigError("data.train is empty: there is nothing to train on.")
        labels = labels_uri(config, train)
        if labels is None:
            raise ConfigError("data.train.labels is empty: training needs ground truth.")
        self._config = config
        self._size = patch_size(config)
        self._check_axes()
        image, truth = open_image(image_uri(config, train), box=train.bounds), open_labels(labels, box=train.bounds)
        self._image = TrainingRegion(coarsen(image, config.network.downsample, labels=False))
        self._labels = TrainingRegion(coarsen(truth, config.network.downsample, labels=True))
        self._check_shapes()

    def load(self, lane: "LaneStream", index: int) -> Example:
        """The lane's first example from place `index` on whose whole patch lies inside the region."""
        bounds = Box.of_shape(self._image.shape)
        for candidate in range(index, index + _MOST_MISSES):
            box = Box.centred(lane.stream.draw(candidate), self._size)
            if bounds.contains(box):
                return self._cut(candidate, box, lane.number(candidate))
        raise DataError(
            f"{_MOST_MISSES} training coordinates in a row lie too near the border for a patch of {self._size} voxels "
            f"(zyx) in a region of {self._image.shape}: use a smaller fov or deltas, or a larger training region."
        )

    def _cut(self, index: int, box: Box, number: int) -> Example:
        training, network = self._config.training, self._config.network
        turn = Orientation.draw(self._config.seed, number, training.permutable_axes, training.reflectable_axes)
        image = np.ascontiguousarray(turn.apply(self._image.read(box)), np.float32)
        image -= np.float32(network.image_mean)
        image /= np.float32(network.image_stddev)
        return Example(index, image, soft_labels(turn.apply(self._labels.read(box))))

    def _check_axes(self) -> None:
        swapped = ["zyx".index(axis) for axis in set(self._config.training.permutable_axes)]
        if len({self._size[axis] for axis in swapped}) > 1:
            raise ConfigError(
                f"training.permutable_axes {self._config.training.permutable_axes} names axes along which the fov "
                f"{self._config.network.fov} or the deltas {self._config.network.deltas} differ; only equal axes can "
                "be swapped."
            )

    def _check_shapes(self) -> None:
        if self._image.shape != self._labels.shape:
            raise VolumeError(
                f"The training image has {self._image.shape} voxels (zyx) and its labels {self._labels.shape}: "
                "give volumes of the same shape."
            )
        if any(p > n for p, n in zip(self._size, self._image.shape, strict=True)):
            raise GeometryError(
                f"A training example takes {self._size} voxels (zyx: fov and moves), more than the training region's "
                f"{self._image.shape}: use a smaller fov or deltas, or a larger region."
            )


@dataclass(frozen=True)
class LaneStream:
    """One lane's share of the stream of centres."""

    lane: int
    lanes: int
    stream: CoordinateStream

    @classmethod
    def of(cls, config: Config, lane: int, lanes: int) -> "LaneStream":
        return cls(lane, lanes, CoordinateStream(RunPaths.of(config).coordinates, config.seed, lane, lanes))

    def number(self, index: int) -> int:
        """The number of this lane's draw `index` among the draws of all lanes."""
        return index * self.lanes + self.lane
