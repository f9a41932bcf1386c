"""Which pairs of segments are tried, in which order, and what that costs at most."""

import math
from dataclasses import dataclass

from ffn.agglomeration.decision_points import DecisionPoint, decision_points, segment_sizes
from ffn.config import Config
from ffn.geometry import ZYX
from ffn.volumes import Volume, VoxelSize


@dataclass(frozen=True)
class Pair:
    """A candidate: where its segments meet, and the voxels of each in the whole volume."""

    point: DecisionPoint
    voxels_a: int
    voxels_b: int


def find_pairs(config: Config, labels: Volume, voxel_size: VoxelSize) -> list[Pair]:
    """All pairs of large enough segments that meet, those to be tried first in front.

    The nearer come first; of equally near ones those whose smaller segment is larger, then those with lower ids.
    """
    settings, block = config.agglomeration, config.assembly.block
    smallest = settings.min_segment_size * math.prod(config.network.downsample)
    ids, voxels = segment_sizes(labels.read, labels.shape, block)
    large = voxels >= smallest
    size = dict(zip(ids[large].tolist(), voxels[large].tolist(), strict=True))
    points = decision_points(labels.read, labels.shape, settings.max_distance_nm, voxel_size, block, ids[large])
    pairs = [Pair(point, size[point.a], size[point.b]) for point in points]
    return sorted(pairs, key=_rank)


def largest_fill(config: Config) -> int:
    """Evaluations of the network that one fill takes at most: a step is taken to each place on the grid of steps."""
    return math.prod(
        1 if delta == 0 else math.ceil((2 * radius + 1 - fov) / delta) + 1
        for radius, fov, delta in zip(config.radii.filled, config.network.fov, config.deltas, strict=True)
    )


def network_voxel(place: ZYX, factors: ZYX) -> ZYX:
    """The network voxel that holds an image voxel."""
    z, y, x = (p // f for p, f in zip(place, factors, strict=True))
    return z, y, x


def _rank(pair: Pair) -> tuple[float, int, int, int]:
    return pair.point.distance_nm, -min(pair.voxels_a, pair.voxels_b), pair.point.a, pair.point.b
