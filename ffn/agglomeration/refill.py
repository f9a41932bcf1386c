"""One pair of a run, from its decision point to the record of what was found."""

from dataclasses import asdict
from typing import Any

import numpy as np

from ffn.agglomeration.flood import NetworkCall
from ffn.agglomeration.pairs import Pair, network_voxel
from ffn.agglomeration.resegment import Resegmentation, Scene, resegment
from ffn.agglomeration.score import scores_of, verdict_of
from ffn.config import Config
from ffn.geometry import ZYX, Box
from ffn.inference.options import FloodOptions
from ffn.volumes import Volume, VoxelSize, coarse_voxel_size, coarsen


class Refill:
    """Fills pairs of a segmented region again.

    Args:
        config: Its `agglomeration`, `network` and `inference` sections are used.
        image: Grey values of the region.
        labels: Its segmentation.
        voxel_size: Nanometres, zyx.
        network: One evaluation of the network.
    """

    def __init__(
        self, config: Config, image: Volume, labels: Volume, voxel_size: VoxelSize, network: NetworkCall
    ) -> None:
        self._settings, self._network = config.agglomeration, network
        self._options = FloodOptions.of(config.network, config.inference)
        self._mean, self._stddev = np.float32(config.network.image_mean), np.float32(config.network.image_stddev)
        self._factors = config.network.downsample
        self._image = coarsen(image, self._factors, labels=False)
        self._labels = coarsen(labels, self._factors, labels=True)
        self._voxel_size = coarse_voxel_size(voxel_size, self._factors) or voxel_size

    def scene(self, place: ZYX) -> tuple[Scene, ZYX]:
        """What is around an image voxel of the region, and the network voxel at which that begins.

        Near the faces of the region it is moved inside, so that it has the full size wherever the region has it.
        """
        point = network_voxel(place, self._factors)
        start, stop = [], []
        for p, radius, extent in zip(point, self._settings.radius, self._image.shape, strict=True):
            size = min(2 * radius + 1, extent)
            start.append(min(max(p - radius, 0), extent - size))
            stop.append(start[-1] + size)
        box = Box((start[0], start[1], start[2]), (stop[0], stop[1], stop[2]))
        grey = (self._image.read(box).astype(np.float32) - self._mean) / self._stddev
        z, y, x = (p - a for p, a in zip(point, box.start, strict=True))
        return Scene(grey, self._labels.read(box).astype(np.uint64), (z, y, x), self._voxel_size), box.start

    def __call__(self, pair: Pair) -> dict[str, Any]:
        """Fill both segments of a pair; the record is of JSON's types, its places are image voxels of the region."""
        point = pair.point
        scene, corner = self.scene(point.zyx)
        a = resegment(scene, point.a, point.b, self._settings, self._options, self._network)
        b = resegment(scene, point.b, point.a, self._settings, self._options, self._network)
        region = scene.around(scene.point, self._settings.analysis_radius)
        here = scene.labels[region]
        scores = scores_of(a, b, here == point.a, here == point.b)
        return {
            "a": point.a,
            "b": point.b,
            **asdict(verdict_of(a, b, scores, self._settings)),
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
