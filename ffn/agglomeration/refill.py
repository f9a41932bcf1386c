"""Pairs of a run, from their decision points to the records of what was found.

    pair 0   fill of a ─┐ ─> record ─┐
             fill of b ─┘            │
    pair 1   fill of a ─┐ ─> record ─┼─> in the order of the pairs
             fill of b ─┘            │
    ...

All fills that run side by side share the batches of the network (`ffn.inference.drive`). A fill's answers depend on its
own looks only, so the records are the same whatever the batch size.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import asdict, replace
from functools import cache, partial

import numpy as np

from ffn.agglomeration.pairs import Pair, network_voxel
from ffn.agglomeration.records import Record
from ffn.agglomeration.resegment import Resegmentation, Scene, resegment
from ffn.agglomeration.score import scores_of, verdict_of, withheld
from ffn.config import Config
from ffn.geometry import ZYX, Box
from ffn.inference.canvas import Flood
from ffn.inference.drive import BatchedNetwork, drive
from ffn.inference.options import FloodOptions
from ffn.volumes import Volume, VoxelSize, coarse_voxel_size, coarsen


class Refill:
    """Fills pairs of a segmented region again.

    Args:
        config: Its `agglomeration`, `network` and `inference` sections are used.
        image: Grey values of the region.
        labels: Its segmentation.
        voxel_size: Nanometres, zyx.
    """

    def __init__(self, config: Config, image: Volume, labels: Volume, voxel_size: VoxelSize) -> None:
        self._settings, self._radii = config.agglomeration, config.radii
        options = FloodOptions.of(config.network, config.inference)
        # The faces of what is filled again are no faces of the volume: objects go on beyond.
        self._options = replace(options, min_unseen_at_faces=options.min_unseen)
        self._mean, self._stddev = np.float32(config.network.image_mean), np.float32(config.network.image_stddev)
        self._factors = config.network.downsample
        most = config.agglomeration.max_smaller_segment
        self._largest = None if most is None else most * math.prod(self._factors)
        self._image = coarsen(image, self._factors, labels=False)
        self._labels = coarsen(labels, self._factors, labels=True)
        self._voxel_size = coarse_voxel_size(voxel_size, self._factors) or voxel_size

    def scene(self, place: ZYX) -> tuple[Scene, ZYX]:
        """What is around an image voxel of the region, and the network voxel at which that begins.

        Near the faces of the region it is moved inside, so that it has the full size wherever the region has it.
        """
        point = network_voxel(place, self._factors)
        start, stop = [], []
        for p, radius, extent in zip(point, self._radii.filled, self._image.shape, strict=True):
            size = min(2 * radius + 1, extent)
            start.append(min(max(p - radius, 0), extent - size))
            stop.append(start[-1] + size)
        box = Box((start[0], start[1], start[2]), (stop[0], stop[1], stop[2]))
        grey = (self._image.read(box).astype(np.float32) - self._mean) / self._stddev
        z, y, x = (p - a for p, a in zip(point, box.start, strict=True))
        return Scene(grey, self._labels.read(box).astype(np.uint64), (z, y, x), self._voxel_size), box.start

    def floods(self, pair: Pair, found: Callable[[Record], None]) -> tuple[Flood, Flood]:
        """Both fills of a pair; the one that ends last calls `found`."""
        point = pair.point
        opened = cache(lambda: self.scene(point.zyx))
        ends: dict[int, Resegmentation] = {}

        def one(segment: int, other: int) -> Flood:
            scene, corner = opened()
            ends[segment] = yield from resegment(scene, segment, other, self._settings, self._radii, self._options)
            if len(ends) == 2:
                found(self._record(pair, scene, corner, ends[point.a], ends[point.b]))

        return one(point.a, point.b), one(point.b, point.a)

    def _record(self, pair: Pair, scene: Scene, corner: ZYX, a: Resegmentation, b: Resegmentation) -> Record:
        point = pair.point
        region = scene.around(scene.point, self._radii.compared)
        here = scene.labels[region]
        scores = scores_of(a, b, here == point.a, here == point.b)
        verdict = verdict_of(a, b, scores, self._settings)
        return {
            "a": point.a,
            "b": point.b,
            **asdict(withheld(verdict, min(pair.voxels_a, pair.voxels_b), self._largest)),
            "zyx": list(point.zyx),
            "distance_nm": point.distance_nm,
            "voxels_a": pair.voxels_a,
            "voxels_b": pair.voxels_b,
            **asdict(scores),
            "max_edt_nm_a": a.max_edt_nm,
            "max_edt_nm_b": b.max_edt_nm,
            "seed_a_zyx": self._in_image(a, corner),
            "seed_b_zyx": self._in_image(b, corner),
            "attempts_a": a.attempts,
            "attempts_b": b.attempts,
            "fovs": a.fovs + b.fovs,
        }

    def _in_image(self, fill: Resegmentation, corner: ZYX) -> list[int] | None:
        if fill.seed is None:
            return None
        return [(s + c) * f + f // 2 for s, c, f in zip(fill.seed, corner, self._factors, strict=True)]


def refill_pairs(
    refill: Refill, pairs: Iterable[Pair], network: BatchedNetwork, concurrent: int, found: Callable[[Record], None]
) -> None:
    """Fill pairs again.

    Args:
        refill: Of the run.
        pairs: Different ones; each is begun when there is room for it.
        network: Evaluates the fields of view.
        concurrent: Fills that run side by side.
        found: Called with the record of each pair, in their order.
    """
    waiting: dict[int, Record] = {}
    handed_on = 0

    def ended(number: int, record: Record) -> None:
        nonlocal handed_on
        waiting[number] = record
        while handed_on in waiting:
            found(waiting.pop(handed_on))
            handed_on += 1

    floods = (flood for number, pair in enumerate(pairs) for flood in refill.floods(pair, partial(ended, number)))
    drive(floods, network, concurrent)
