"""A sub-volume made ready for its flood fill: image, masks and given segments as they are seen, and where to begin."""

from dataclasses import dataclass
from functools import cached_property

import fastremap
import numpy as np
from numpy.typing import NDArray

from ffn.config import Config, Network
from ffn.errors import DataError, GeometryError
from ffn.geometry import ZYX, Box
from ffn.inference.canvas import Canvas
from ffn.inference.fine import FineLabels
from ffn.inference.framing import Framing
from ffn.inference.masks import Forbidden, forbidden
from ffn.inference.options import FloodOptions
from ffn.inference.seeds import FineImage, SeedView, seed_policy
from ffn.volumes import Volume, VoxelSize, check_pair, coarse_voxel_size, open_image, open_labels, pool


@dataclass(frozen=True)
class Scene:
    """What one flood fill works on.

    Attributes:
        config: Of the run.
        image: URI of the grey values.
        box: The sub-volume in image voxels, zyx.
        framing: How the flood fill sees it.
        canvas: The flood fill.
        masks: Not turned and without a rim, in network voxels.
        given_ids: Ids that the segments 1, 2, ... of the canvas have in `inference.init_segmentation`.
        voxel_size: Of the image, nanometres zyx; None = unknown.
    """

    config: Config
    image: str
    box: Box
    framing: Framing
    canvas: Canvas
    masks: Forbidden
    given_ids: NDArray[np.uint64]
    voxel_size: VoxelSize | None

    @classmethod
    def of(cls, config: Config, image: str, box: Box, turn: int) -> "Scene":
        """A box of an image, turned one of the ways.

        Raises VolumeError where the image, a mask or the given segments cannot be read.
        """
        with open_image(image, voxel_size=config.data.voxel_size) as volume:
            view = volume.view(box)
            framing = Framing.of(config, turn, view.shape, view.voxel_size)
            masks = forbidden(config, volume, box, framing.phase)
            canvas = _canvas(config, framing, _normalised(framing.pooled(view), config.network), masks)
            given_ids = _give(config, volume, box, framing, canvas)
            return cls(config, image, box, framing, canvas, masks, given_ids, volume.voxel_size)

    @cached_property
    def stages(self) -> int:
        """How many seed policies there are, each of which sees what the ones before it left."""
        return len(seed_policy(self.config.inference).stages)

    def seeds(self, stage: int) -> NDArray[np.int64]:
        """Where the canvas shall begin, int64 [n, 3]: the seeds of one policy, in its order."""
        listed = seed_policy(self.config.inference).stages[stage](self._view())
        return self.framing.seeds(listed)

    def seeds_at(self, places: tuple[ZYX, ...]) -> NDArray[np.int64]:
        """The same for given places, zyx voxels of the image.

        Raises GeometryError where one lies outside the sub-volume or too near its faces, DataError where one is masked
        or taken.
        """
        for place in places:
            self._require_free(place)
        return np.array([self._seen(place) for place in places], np.int64).reshape(-1, 3)

    def _seen(self, place: ZYX) -> NDArray[np.int64]:
        inside = np.array(place, np.int64) - self.box.start + self.framing.phase
        return self.framing.seen(inside // np.array(self.framing.factors))

    def _require_free(self, place: ZYX) -> None:
        shown = ",".join(map(str, place))
        if not all(a <= p < b for p, a, b in zip(place, self.box.start, self.box.stop, strict=True)):
            raise GeometryError(f"The seed {shown} (z,y,x) lies outside the box {self.box}. Move it or the box.")
        seen, canvas = self._seen(place), self.canvas
        room = zip(seen.tolist(), canvas.image.shape, canvas.options.reach, strict=True)
        if not all(r <= p < n - r for p, n, r in room):
            raise GeometryError(
                f"The seed {shown} (z,y,x) is too near a face of the box {self.box}: a field of view around it would "
                "reach outside. Take a larger box, or set inference.mirror."
            )
        masks = (canvas.no_move, canvas.no_seed)
        if any(mask is not None and mask[tuple(seen)] for mask in masks):
            raise DataError(f"The seed {shown} (z,y,x) lies on a mask of the section inference. Move the seed.")
        if taken := int(canvas.labels[tuple(seen)]):
            raise DataError(
                f"The seed {shown} (z,y,x) lies in segment {self.given_ids[taken - 1]} of inference.init_segmentation."
            )

    def _view(self) -> SeedView:
        framing, network = self.framing, self.config.network
        edges = coarse_voxel_size(self.voxel_size, framing.factors) or (1.0, 1.0, 1.0)
        fine = None
        if framing.factors != (1, 1, 1):
            with open_image(self.image, box=self.box, voxel_size=self.config.data.voxel_size) as volume:
                fine = FineImage(_normalised(volume, network), framing.factors, framing.phase)
        return SeedView(
            image=framing.plain(self.canvas.image),
            labels=framing.plain(self.canvas.labels),
            exclusion=self.masks.no_seed,
            voxel_size=edges,
            fov=(1, 1, 1) if self.config.inference.mirror else network.fov,
            fine=fine,
            box=self.box,
        )


def _canvas(config: Config, framing: Framing, grey: NDArray[np.float32], masks: Forbidden) -> Canvas:
    options = FloodOptions.of(config.network, config.inference).turned(framing.orientation)
    image, factors = framing.turned(grey), framing.orientation.reordered(framing.factors)
    z, y, x = image.shape
    return Canvas(
        image,
        options,
        fine=None if factors == (1, 1, 1) else FineLabels((z, y, x), factors, options.segment),
        no_move=None if masks.no_move is None else framing.turned(masks.no_move),
        no_seed=None if masks.no_seed is None else framing.turned(masks.no_seed),
        probability=np.zeros(image.shape, np.uint8) if config.inference.save_probability else None,
    )


def _give(config: Config, image: Volume, box: Box, framing: Framing, canvas: Canvas) -> NDArray[np.uint64]:
    """Put the segments of `inference.init_segmentation` into the canvas; returns their ids there."""
    uri = config.inference.init_segmentation
    if uri is None:
        return np.empty(0, np.uint64)
    with open_labels(uri) as volume:
        check_pair(image, volume)
        labels = volume.read(box)
    ids = fastremap.unique(labels)
    ids = ids[ids > 0].astype(np.uint64)
    # By a table: sorting the voxels would take three times what the flood fill itself holds.
    numbers = {0: 0, **{number: place for place, number in enumerate(ids.tolist(), 1)}}
    local = fastremap.remap(labels, numbers).astype(np.uint32)
    del labels
    canvas.given = len(ids)
    canvas.labels[...] = framing.turned(_pooled(local, framing))
    if canvas.fine is not None:
        canvas.fine.labels[...] = framing.turned_fine(local)
    if canvas.probability is not None:
        canvas.probability[canvas.labels > 0] = 255
    return ids


def _pooled(labels: NDArray[np.uint32], framing: Framing) -> NDArray[np.uint32]:
    if framing.factors == (1, 1, 1):
        return labels
    after = (
        n * f - p - s for n, f, p, s in zip(framing.shape, framing.factors, framing.phase, labels.shape, strict=True)
    )
    return pool(np.pad(labels, list(zip(framing.phase, after, strict=True)), mode="edge"), framing.factors, labels=True)


def _normalised(volume: Volume, network: Network) -> NDArray[np.float32]:
    grey = volume[...].astype(np.float32)
    grey -= np.float32(network.image_mean)
    grey /= np.float32(network.image_stddev)
    return grey
