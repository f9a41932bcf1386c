"""What is inside the cells: mitochondria, vacuoles and vesicles, drawn into the image only."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ffn.synthetic.fields import VoxelSize

_TRIALS = 40
_MITOCHONDRION_NM3 = 3.5e7
_VACUOLE_NM3 = 5e7
_VESICLE_CLUSTER_NM3 = 6e7
_ROOM_NM = 55.0
_GAP_NM = 22.0
_RIM_NM = 22.0


def draw_organelles(
    random: np.random.Generator,
    grey: NDArray[np.float32],
    labels: NDArray[np.uint64],
    wall: NDArray[np.float32],
    voxel_size: VoxelSize,
    first_tube: int,
) -> None:
    """Draw the organelles of all tubular cells into `grey`.

    Args:
        random: Decides places, sizes and directions.
        grey: float32 [z, y, x], 0 = black, 1 = white; changed in place.
        labels: uint64 [z, y, x], ids from 1.
        wall: float32 [z, y, x], nm to the nearest other cell.
        voxel_size: nm, z, y, x.
        first_tube: Cells with smaller ids have no organelles.
    """
    voxel = float(np.prod(voxel_size))
    drawing = _Drawing(random, grey, labels, wall, voxel_size)
    for label, places in _roomy_voxels(labels, wall, first_tube):
        volume = len(places) * voxel
        for _ in range(random.poisson(volume / _MITOCHONDRION_NM3)):
            drawing.mitochondrion(label, drawing.roomiest(places))
        for _ in range(random.poisson(volume / _VACUOLE_NM3)):
            drawing.vacuole(label, places[random.integers(len(places))])
        for _ in range(random.poisson(volume / _VESICLE_CLUSTER_NM3)):
            drawing.vesicles(label, places[random.integers(len(places))])


def _roomy_voxels(
    labels: NDArray[np.uint64], wall: NDArray[np.float32], first: int
) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """For each cell from `first` on its voxels (rows of z, y, x) with room for an organelle around them."""
    flat = np.flatnonzero((wall > _ROOM_NM) & (labels >= first))
    if len(flat) == 0:
        return
    owners = labels.ravel()[flat]
    order = np.argsort(owners, kind="stable")
    ids, starts = np.unique(owners[order], return_index=True)
    for label, members in zip(ids.tolist(), np.split(flat[order], starts[1:]), strict=True):
        yield label, np.stack(np.unravel_index(members, labels.shape), axis=1)


class _Drawing:
    def __init__(
        self,
        random: np.random.Generator,
        grey: NDArray[np.float32],
        labels: NDArray[np.uint64],
        wall: NDArray[np.float32],
        voxel_size: VoxelSize,
    ) -> None:
        self._random, self._grey, self._labels, self._wall = random, grey, labels, wall
        self._step = np.array(voxel_size)

    def roomiest(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """The one of a few random places that is farthest from the wall."""
        tried = places[self._random.integers(len(places), size=_TRIALS)]
        return tried[int(np.argmax(self._wall[tuple(tried.T)]))]

    def mitochondrion(self, label: int, centre: NDArray[np.int64]) -> None:
        """A dark elongated body along the cell, with a darker membrane and cristae."""
        short = min(float(self._wall[tuple(centre)]) * self._random.uniform(0.55, 0.8), 130.0)
        long = short * self._random.uniform(1.8, 3.2)
        region, local, inside = self._window(label, centre, long)
        axis = self._direction_of(local, inside)
        along = local @ axis
        across = np.sqrt(np.clip((local**2).sum(axis=-1) - along**2, 0, None))
        depth = (1 - np.sqrt((along / long) ** 2 + (across / short) ** 2)) * short
        depth = np.minimum(depth, self._wall[region] - _GAP_NM)
        folds = np.sin(along / self._random.uniform(9, 13) + 2 * np.sin(across / 40))
        body = self._random.uniform(0.28, 0.4) + 0.05 * folds
        self._blend(region, inside & (depth > 0), np.where(depth < _RIM_NM, 0.2, body), depth)

    def vacuole(self, label: int, centre: NDArray[np.int64]) -> None:
        """A round light lumen with a thin dark membrane."""
        radius = min(float(self._wall[tuple(centre)]) - _GAP_NM, self._random.uniform(45, 90))
        region, local, inside = self._window(label, centre, radius)
        depth = radius - np.sqrt((local**2).sum(axis=-1))
        self._blend(region, inside & (depth > 0), np.where(depth < 14, 0.36, 0.92), depth)

    def vesicles(self, label: int, centre: NDArray[np.int64]) -> None:
        """A cloud of small dark dots."""
        for _ in range(self._random.integers(8, 30)):
            place = np.rint(centre + self._random.normal(0, 70, 3) / self._step).astype(int)
            if (place < 0).any() or (place >= self._grey.shape).any() or self._wall[tuple(place)] < 40:
                continue
            region, local, inside = self._window(label, place, 24)
            depth = 24 - np.sqrt((local**2).sum(axis=-1))
            self._blend(region, inside & (depth > 0), np.full(depth.shape, 0.4), depth)

    def _window(
        self, label: int, centre: NDArray[np.int64], reach: float
    ) -> tuple[tuple[slice, ...], NDArray[np.float64], NDArray[np.bool_]]:
        """Slices around `centre`, nm from it (last axis z, y, x), and which voxels are inside the cell."""
        half = np.ceil(reach / self._step).astype(int)
        low, high = np.clip(centre - half, 0, None), np.minimum(centre + half + 1, self._grey.shape)
        region = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        axes = [(np.arange(a, b) - c) * s for a, b, c, s in zip(low, high, centre, self._step, strict=True)]
        local = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
        inside = (self._labels[region] == label) & (self._wall[region] > _GAP_NM)
        return region, local, inside

    def _direction_of(self, local: NDArray[np.float64], inside: NDArray[np.bool_]) -> NDArray[np.float64]:
        """The direction in which the part of the cell in the window is longest."""
        points = local[inside]
        _, vectors = np.linalg.eigh(np.cov(points.T) + 1e-3 * np.eye(3))
        return vectors[:, -1]

    def _blend(
        self,
        region: tuple[slice, ...],
        where: NDArray[np.bool_],
        values: NDArray[np.float64],
        depth: NDArray[np.float64],
    ) -> None:
        """Draw `values`, fading over the outermost voxel so that the outline is smooth."""
        opacity = np.clip(depth / self._step.min(), 0, 1)
        target = self._grey[region]
        target[where] += (opacity * (values - target))[where].astype(np.float32)
