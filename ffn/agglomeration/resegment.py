"""A segment of a pair filled again from inside itself, as if neither of the two had been found yet.

+---------------------------+    image and labels around the decision point (+). Segments a and b are cleared, all
|  cccc   aaaaaaa bbbbbbbb  |    others (c) stay taken. A seed (*) is set where a is thickest; what grows from it
|  ccccc  aa*aaaa+bbbbbbbb  |    is compared, near the point, with a and b as they were. A seed from which too
|   cccc   aaaaa   bbbbbb   |    little of a comes back is given up, and the thickest place elsewhere in a is tried
+---------------------------+
"""

from dataclasses import dataclass

import edt
import numpy as np
from numpy.typing import NDArray

from ffn.agglomeration.flood import Asking, flood
from ffn.config import Agglomeration, Radii
from ffn.geometry import ZYX, Box
from ffn.inference.options import FloodOptions
from ffn.model.logits import logit
from ffn.volumes import VoxelSize


@dataclass(frozen=True)
class Scene:
    """What is around a decision point, in network voxels.

    Attributes:
        image: float32 [z, y, x], normalised grey values.
        labels: uint64 [z, y, x], 0 = background.
        point: The decision point, counted from the corner of these arrays.
        voxel_size: Nanometres, zyx.
    """

    image: NDArray[np.float32]
    labels: NDArray[np.uint64]
    point: ZYX
    voxel_size: VoxelSize

    def around(self, place: ZYX, radius: ZYX) -> tuple[slice, slice, slice]:
        """The voxels of the box that reaches `radius` from a place."""
        size = tuple(2 * r + 1 for r in radius)
        inside = Box.centred(place, size).intersection(Box.of_shape(self.image.shape))
        if inside is None:
            raise AssertionError(f"{place} lies outside {self.image.shape}")
        return inside.slices


@dataclass(frozen=True)
class Resegmentation:
    """What came back of a segment.

    Attributes:
        seed: Of the fill that is reported, from the corner of the scene; None where there was no place for one.
        attempts: Seeds that were tried.
        fovs: Evaluations of the network in all attempts.
        recovered: Part of the segment's voxels in the analysed region that reached the segment threshold.
        voxels: That reached it, in the whole scene, without those of other segments.
        deleted: Voxels deleted on the way (`Filled.deleted`).
        max_edt_nm: Half thickness of the segment at its thickest place where a seed may be.
        reached: bool [z, y, x] of the analysed region: where the map reached `object_threshold`, without those.
    """

    seed: ZYX | None
    attempts: int
    fovs: int
    recovered: float
    voxels: int
    deleted: int
    max_edt_nm: float
    reached: NDArray[np.bool_]


def resegment(
    scene: Scene,
    segment: int,
    other: int,
    settings: Agglomeration,
    radii: Radii,
    options: FloodOptions,
) -> Asking[Resegmentation]:
    """Fill `segment` again, with `other` out of the way.

    Args:
        scene: Around the point where the two meet.
        segment: Id of the one to fill.
        other: Id of the one that it may belong to.
        settings: Attempts and levels.
        radii: Of its network.
        options: Of the flood fill.
    """
    original = scene.labels == segment
    taken = (scene.labels != 0) & ~original & (scene.labels != other)
    region = scene.around(scene.point, radii.compared)
    here = int(np.count_nonzero(original[region]))
    depth = _depth(scene, original, settings, options)
    levels = logit(settings.deleted_from), logit(settings.deleted_to)
    best = Resegmentation(None, 0, 0, 0.0, 0, 0, float(depth.max(initial=0)), np.zeros_like(original[region]))
    fovs, attempts = 0, 0
    while attempts < settings.max_retry_iters and here > 0:
        seed = _highest(depth)
        if depth[seed] <= 0:
            break
        filled = yield from flood(scene.image, taken, seed, options, *levels)
        attempts, fovs = attempts + 1, fovs + filled.fovs
        inside = (filled.logits >= options.segment) & ~taken
        recovered = int(np.count_nonzero(inside[region] & original[region])) / here
        if best.seed is None or recovered > best.recovered:
            reached = (filled.logits[region] >= logit(settings.object_threshold)) & ~taken[region]
            voxels = int(np.count_nonzero(inside))
            best = Resegmentation(seed, 0, 0, recovered, voxels, filled.deleted, best.max_edt_nm, reached)
        if recovered >= settings.segment_recovery_fraction:
            break
        depth[scene.around(seed, radii.excluded)] = 0
    return Resegmentation(
        best.seed, attempts, fovs, best.recovered, best.voxels, best.deleted, best.max_edt_nm, best.reached
    )


def _depth(
    scene: Scene, original: NDArray[np.bool_], settings: Agglomeration, options: FloodOptions
) -> NDArray[np.float32]:
    """How deep each voxel lies in the segment, nanometres; 0 where no seed may be."""
    depth: NDArray[np.float32] = edt.edt(
        np.ascontiguousarray(original), anisotropy=scene.voxel_size, black_border=False, order="C", parallel=1
    )
    allowed = np.zeros(depth.shape, np.bool_)
    allowed[tuple(slice(r, max(n - r, r)) for r, n in zip(options.reach, depth.shape, strict=True))] = True
    if any(settings.seed_distance):
        allowed[scene.around(scene.point, settings.seed_distance)] = False
    depth[~allowed | ~original] = 0
    # Infinite where nothing but the segment is in sight.
    extent = max(n * edge for n, edge in zip(depth.shape, scene.voxel_size, strict=True))
    np.minimum(depth, extent, out=depth)
    return depth


def _highest(depth: NDArray[np.float32]) -> ZYX:
    z, y, x = np.unravel_index(int(np.argmax(depth)), depth.shape)
    return int(z), int(y), int(x)
