"""Seeds for flood filling: the points farthest from any edge (the reference's PolicyPeaks).

Seeds belong to one sub-volume: edges, noise and the margin are counted from its border, so a volume that does not
fit into memory gets seeds sub-volume by sub-volume, exactly where inference wants them. About 24 bytes a voxel are
in use at the peak (0.4 GB for 250^3).
"""

from collections.abc import Iterator
from pathlib import Path

import edt
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ffn.blockwise import library_threads
from ffn.files import write_text
from ffn.geometry import ZYX
from ffn.prepare.edges import edge_mask
from ffn.volumes import coarse_shape

_NOISE_SEED = 42
_NOISE = 1e-4
_SPACING = 3
_SLAB = 32


def distance_to_edges(
    image: NDArray[np.generic],
    voxel_size: tuple[float, float, float] = (1.0, 1.0, 1.0),
    exclusion: NDArray[np.bool_] | None = None,
) -> NDArray[np.float32]:
    """Euclidean distance of each voxel to the nearest edge voxel; -1 where there is none or seeds are excluded.

    Args:
        image: [z, y, x], any real dtype; seeds of a normalised and of a raw image are the same up to the rounding
            of `edge_mask`, so pass the one that inference uses.
        voxel_size: Edges of a voxel along z, y, x, in any unit: only their ratios matter.
        exclusion: bool [z, y, x], where no seed may be; these voxels count as edges too.

    Returns:
        float32 [z, y, x] in shortest voxel edges. The border of the volume is not an edge.
    """
    is_edge = edge_mask(np.ascontiguousarray(image, np.float32))
    if exclusion is not None:
        is_edge |= exclusion
    steps = tuple(edge / min(voxel_size) for edge in voxel_size)
    distance = edt.edt(~is_edge, anisotropy=steps, black_border=False, order="C", parallel=library_threads())
    distance[~np.isfinite(distance)] = -1
    if exclusion is not None:
        distance[exclusion] = -1
    return distance


def peaks(
    image: NDArray[np.generic],
    voxel_size: tuple[float, float, float] = (1.0, 1.0, 1.0),
    exclusion: NDArray[np.bool_] | None = None,
    taken: NDArray[np.bool_] | None = None,
) -> NDArray[np.int64]:
    """Local maxima of `distance_to_edges` within 7x7x7 voxels, in ascending z, y, x order.

    A fixed noise of at most 1e-4 decides between equal distances, so the result depends on nothing but the arguments.

    Args:
        image: As for `distance_to_edges`.
        voxel_size: As for `distance_to_edges`.
        exclusion: As for `distance_to_edges`.
        taken: bool [z, y, x], where no seed may be either, but which makes no edges: voxels of segments.

    Returns:
        int64 [n, 3], z, y, x; n = 0 where everything is edge.
    """
    distance = distance_to_edges(image, voxel_size, exclusion)
    if taken is not None:
        distance[taken] = -1
    # Without a voxel away from all edges there is only noise to choose from.
    if not (distance > 0).any():
        return np.empty((0, 3), np.int64)
    response = with_noise(distance)
    del distance
    return np.concatenate([*_slab_peaks(response), np.empty((0, 3), np.int64)])


def peak_seeds(
    image: NDArray[np.generic],
    fov: ZYX,
    voxel_size: tuple[float, float, float] = (1.0, 1.0, 1.0),
    exclusion: NDArray[np.bool_] | None = None,
) -> NDArray[np.int64]:
    """The `peaks` around which a whole field of view fits into the volume.

    Args:
        image: [z, y, x].
        fov: Field of view z, y, x in voxels; a seed keeps fov//2 voxels to every face of the volume.
        voxel_size: As for `distance_to_edges`.
        exclusion: As for `distance_to_edges`.

    Returns:
        int64 [n, 3], z, y, x, ascending.
    """
    return with_room(peaks(image, voxel_size, exclusion), fov, image.shape)


def coarse_seeds(
    image: NDArray[np.generic],
    factors: ZYX,
    fov: ZYX,
    voxel_size: tuple[float, float, float] = (1.0, 1.0, 1.0),
    phase: ZYX = (0, 0, 0),
) -> NDArray[np.int64]:
    """The `peaks` of the image as voxels of the network, of which each covers `factors` image voxels.

    Thin objects have peaks only at the image's own resolution. With factors of one these are the `peak_seeds`.

    Args:
        image: [z, y, x], not pooled.
        factors: As for `ffn.volumes.coarsen`.
        fov: Field of view z, y, x in network voxels; a seed keeps fov//2 of them to every face.
        voxel_size: Of the image, as for `distance_to_edges`.
        phase: As for `ffn.volumes.coarsen`.

    Returns:
        int64 [n, 3], network voxels z, y, x, ascending, each once.
    """
    found = in_coarse_voxels(peaks(image, voxel_size), factors, phase)
    z, y, x = image.shape
    return with_room(found, fov, coarse_shape((z, y, x), factors, phase))


def in_coarse_voxels(found: NDArray[np.int64], factors: ZYX, phase: ZYX = (0, 0, 0)) -> NDArray[np.int64]:
    """Positions (int [n, 3]) in voxels of which each covers `factors` voxels, as in `ffn.volumes.coarsen`.

    Returns:
        int64 [m, 3], z, y, x, ascending, each once.
    """
    return np.unique((found + np.array(phase)) // np.array(factors), axis=0)


def with_room(found: NDArray[np.int64], fov: ZYX, shape: tuple[int, ...]) -> NDArray[np.int64]:
    """Those of the positions (int [n, 3]) that keep fov//2 voxels to every face of a volume of `shape`, in order."""
    margin = np.array(fov) // 2
    inside = (found >= margin) & (found + margin < np.array(shape))
    return found[inside.all(axis=1)]


def with_noise(values: NDArray[np.float32]) -> NDArray[np.float64]:
    """The values (of any shape) plus a noise below 1e-4 that is always the same, so that hardly any two are equal."""
    response = values.astype(np.float64)
    noise = np.random.RandomState(_NOISE_SEED)
    for start in range(0, len(response), _SLAB):
        slab = response[start : start + _SLAB]
        slab += noise.random_sample(slab.shape) * _NOISE
    return response


def write_seeds(path: Path, seeds: NDArray[np.int64]) -> None:
    """Write seeds as text, one `z,y,x` a line without a header, atomically."""
    write_text(path, "".join(f"{z},{y},{x}\n" for z, y, x in seeds.tolist()))


def _slab_peaks(response: NDArray[np.float64]) -> Iterator[NDArray[np.int64]]:
    depth = response.shape[0]
    inner = slice(_SPACING, -_SPACING)
    for start in range(_SPACING, depth - _SPACING, _SLAB):
        stop = min(start + _SLAB, depth - _SPACING)
        around = response[start - _SPACING : stop + _SPACING]
        highest = ndimage.maximum_filter(around, size=2 * _SPACING + 1, mode="nearest")
        is_peak = (around == highest) & (around > 0)
        yield np.argwhere(is_peak[inner, inner, inner]) + np.array([start, _SPACING, _SPACING])
