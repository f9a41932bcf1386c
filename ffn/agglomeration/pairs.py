"""Which pairs of segments are tried, in which order, and what that costs at most.

All that meet are in a file, `pairs.h5`, in the order in which they are tried: columns `a`, `b`, `distance_nm`, `zyx`
(voxels of the region) and `voxels` (of both segments). A large volume has more of them than will ever be tried.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from ffn.agglomeration.decision_points import DecisionPoint, DecisionPoints, decision_points, segment_sizes
from ffn.config import Config
from ffn.errors import StageError
from ffn.geometry import ZYX
from ffn.volumes import Volume, VoxelSize, create_plain_hdf5


@dataclass(frozen=True)
class Pair:
    """A candidate: where its segments meet, and the voxels of each in the whole volume."""

    point: DecisionPoint
    voxels_a: int
    voxels_b: int


@dataclass(frozen=True, eq=False)
class Pairs:
    """Candidates as columns, those to be tried first in front.

    Attributes:
        points: Where they meet.
        voxels: int64 [n, 2].
    """

    points: DecisionPoints
    voxels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.points)

    def listed(self, most: int | None = None) -> list[Pair]:
        """The first of them."""
        rows = range(len(self) if most is None else min(most, len(self)))
        return [Pair(self.points[row], int(self.voxels[row, 0]), int(self.voxels[row, 1])) for row in rows]

    def between(self, a: int, b: int) -> Pair | None:
        """The pair of these two segments."""
        rows = np.flatnonzero((self.points.a == min(a, b)) & (self.points.b == max(a, b)))
        return self._at(rows).listed()[0] if len(rows) else None

    def meets(self, segment: int) -> bool:
        """Whether a segment is in any pair."""
        return bool(((self.points.a == segment) | (self.points.b == segment)).any())

    def ranked(self) -> "Pairs":
        """The nearest first; of equally near ones those whose smaller segment is larger, then those of lower ids."""
        points = self.points
        return self._at(np.lexsort((points.b, points.a, -self.voxels.min(axis=1), points.distance_nm)))

    def _at(self, rows: NDArray[np.int64]) -> "Pairs":
        found = self.points
        points = DecisionPoints(found.a[rows], found.b[rows], found.distance_nm[rows], found.zyx[rows])
        return Pairs(points, self.voxels[rows])


def find_pairs(config: Config, labels: Volume, voxel_size: VoxelSize) -> Pairs:
    """All pairs of large enough segments that meet, ranked."""
    settings, block = config.agglomeration, config.assembly.block
    smallest = settings.min_segment_size * math.prod(config.network.downsample)
    ids, voxels = segment_sizes(labels.read, labels.shape, block)
    ids, voxels = ids[voxels >= smallest], voxels[voxels >= smallest]
    points = decision_points(labels.read, labels.shape, settings.max_distance_nm, voxel_size, block, ids)
    sizes = np.stack([voxels[np.searchsorted(ids, end)] for end in (points.a, points.b)], axis=1)
    return Pairs(points, sizes).ranked()


def write_pairs(path: Path, pairs: Pairs) -> None:
    """Write all pairs."""
    points = pairs.points
    columns = {"a": points.a, "b": points.b, "distance_nm": points.distance_nm, "zyx": points.zyx}
    with create_plain_hdf5(path) as file:
        for name, values in {**columns, "voxels": pairs.voxels}.items():
            file.create_dataset(name, data=values, chunks=True, maxshape=(None, *values.shape[1:]), compression="gzip")


def read_pairs(path: Path, most: int | None) -> tuple[int, list[Pair]]:
    """How many pairs `write_pairs` wrote, and the first of them. Raises StageError where it is something else."""
    try:
        with h5py.File(path, "r", locking=False) as file:
            count = len(file["a"])
            a, b, distance, zyx, voxels = (file[name][:most] for name in ("a", "b", "distance_nm", "zyx", "voxels"))
    except (OSError, KeyError) as error:
        raise StageError(f"{path} cannot be read ({error}); delete it and run the same command again.") from error
    return count, Pairs(DecisionPoints(a, b, distance, zyx), voxels).listed()


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
