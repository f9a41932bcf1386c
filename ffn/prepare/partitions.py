"""How much of the surroundings of each voxel belongs to its own object, as a class.

Training draws its examples class by class (`ffn.prepare.coordinates`), so that thin and thick parts of objects are
seen equally often. Large objects would otherwise fill nearly all examples.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import fastremap
import numpy as np
from numpy.typing import NDArray

from ffn.errors import DataError, GeometryError
from ffn.geometry import ZYX, Box, blocks
from ffn.prepare.merge import Counted, merged
from ffn.progress import Progress
from ffn.volumes import VoxelSize, create_hdf5

IGNORED = 255
DEFAULT_THRESHOLDS = (0.025, 0.05, 0.075, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
BLOCK = (128, 128, 128)


class Readable(Protocol):
    """An array or an open volume: a shape, and reading by slices."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, key: tuple[slice, slice, slice], /) -> NDArray[np.generic]: ...


def partition_labels(
    labels: Readable,
    thresholds: Sequence[float] = DEFAULT_THRESHOLDS,
    lom_radius: ZYX = (24, 24, 24),
    min_size: int = 10_000,
    exclusion: NDArray[np.bool_] | None = None,
) -> NDArray[np.uint8]:
    """All of `partition_blocks` as one array, uint8 of the shape of `labels`. Arguments as there."""
    partitions = np.full(labels.shape, IGNORED, np.uint8)
    kept = large_labels(labels, min_size)
    for box, values in partition_blocks(labels, kept, thresholds, lom_radius, exclusion):
        partitions[box.slices] = values
    return partitions


def write_partitions(
    labels: Readable,
    output: Path,
    dataset: str,
    thresholds: Sequence[float] = DEFAULT_THRESHOLDS,
    lom_radius: ZYX = (24, 24, 24),
    min_size: int = 10_000,
    voxel_size: VoxelSize | None = None,
) -> dict[int, int]:
    """Write the classes of `partition_blocks` to `dataset` of a new HDF5 file, atomically, a block in memory at a time.

    Arguments as in `partition_labels`, returns what `write_classes` does.
    """
    inside = valid_box(labels.shape, lom_radius)
    found = partition_blocks(labels, large_labels(labels, min_size), thresholds, lom_radius)
    with Progress("partitions", inside.voxels, "voxels") as progress:

        def watched() -> Iterator[tuple[Box, NDArray[np.uint8]]]:
            for box, values in found:
                yield box, values
                progress.advance(box.voxels)

        return write_classes(watched(), output, dataset, labels.shape, thresholds, lom_radius, min_size, voxel_size)


def write_classes(
    found: Iterable[tuple[Box, NDArray[np.uint8]]],
    output: Path,
    dataset: str,
    shape: Sequence[int],
    thresholds: Sequence[float],
    lom_radius: ZYX,
    min_size: int,
    voxel_size: VoxelSize | None,
) -> dict[int, int]:
    """Write classes to `dataset` of a new HDF5 file, atomically, a block in memory at a time.

    The data set keeps `lom_radius_zyx`, `thresholds`, `min_size` and `partition_counts` (rows of class and voxels) as
    attributes.

    Args:
        found: As from `partition_blocks`; together they are the `valid_box`.
        output: File.
        dataset: Name in the file.
        shape: Of the volume.
        thresholds, lom_radius, min_size: By which they were found.
        voxel_size: Nanometres.

    Returns:
        Number of voxels of each class, in ascending order, 255 included.
    """
    counts: Counter[int] = Counter({IGNORED: int(np.prod(shape)) - valid_box(shape, lom_radius).voxels})
    with create_hdf5(output, dataset, shape, np.uint8, voxel_size, fill=IGNORED) as volume:
        for box, values in found:
            volume.write(box, values)
            classes, voxels = np.unique(values, return_counts=True)
            counts.update(dict(zip(classes.tolist(), voxels.tolist(), strict=True)))
        present = {value: counts[value] for value in sorted(counts) if counts[value] > 0}
        volume.annotate(
            lom_radius_zyx=lom_radius,
            thresholds=list(thresholds),
            min_size=min_size,
            partition_counts=list(present.items()),
        )
    return present


def large_labels(labels: Readable, min_size: int, block: ZYX = BLOCK) -> NDArray[np.uint64]:
    """Labels other than 0 with at least `min_size` voxels in the whole volume, ascending, read block by block.

    Raises DataError where there is no label but 0, or none that is large enough.
    """
    sizes = (label_sizes(labels, box) for box in blocks(Box.of_shape(labels.shape), block))
    return np.concatenate(list(large_ones(merged(sizes), min_size)))


def label_sizes(labels: Readable, box: Box) -> Counted:
    """The labels other than 0 in `box`, ascending, and how many voxels each has there."""
    found, voxels = fastremap.unique(np.asarray(labels[box.slices]), return_counts=True)
    known = found != 0
    return found[known].astype(np.uint64), voxels[known].astype(np.int64)


def large_ones(sizes: Iterable[Counted], min_size: int) -> Iterator[NDArray[np.uint64]]:
    """Those of the labels that have `min_size` voxels; `sizes` are those of the whole volume, each label once.

    Raises DataError, at the end, where there is no label, or none that is large enough.
    """
    objects = kept = largest = 0
    for labels, voxels in sizes:
        large = labels[voxels >= min_size]
        objects, kept, largest = objects + len(labels), kept + len(large), max(largest, int(voxels.max(initial=0)))
        yield large
    if objects == 0:
        raise DataError(
            "The label volume is empty: all its voxels are 0 (unknown). Training needs a volume with labelled objects."
        )
    if kept == 0:
        raise DataError(
            f"None of the {objects} labelled objects has min_size = {min_size} voxels (the largest has {largest}). "
            "Lower min_size or use a larger label volume."
        )


def valid_box(shape: Sequence[int], lom_radius: ZYX) -> Box:
    """The voxels around which a cube of half size `lom_radius` fits into the volume; GeometryError if there is none."""
    for axis, size, radius in zip("zyx", shape, lom_radius, strict=True):
        if size <= 2 * radius:
            raise GeometryError(
                f"The label volume has {size} voxels along {axis}, but lom_radius {radius} needs at least "
                f"{2 * radius + 1}. Use a larger volume or a smaller lom_radius."
            )
    return Box(lom_radius, tuple(s - r for s, r in zip(shape, lom_radius, strict=True)))  # type: ignore[arg-type]


def partition_blocks(
    labels: Readable,
    kept: NDArray[np.uint64],
    thresholds: Sequence[float],
    lom_radius: ZYX,
    exclusion: Readable | None = None,
    block: ZYX = BLOCK,
) -> Iterator[tuple[Box, NDArray[np.uint8]]]:
    """Yield the partition classes of the valid voxels, block by block; outside of these blocks the class is 255.

    With D = 2 lom_radius + 1 voxels along each axis, a voxel of a kept object whose cube of D voxels around it is
    filled to the fraction f by the same object gets i + 1 for the first threshold i with f < thresholds[i], and
    len(thresholds) + 1 if there is none. Voxels of other objects and of the background are 0; voxels with an excluded
    voxel anywhere in their cube are 255. Each object is counted only inside its own bounding box within the block
    and its halo of `lom_radius`, so the cost is the sum of these boxes and memory is that of one block.

    Args:
        labels: Integer [z, y, x], 0 = unknown.
        kept: The labels to classify (`large_labels`).
        thresholds: Ascending fractions.
        lom_radius: Half size of the cube, z, y, x in voxels.
        exclusion: Optional bool [z, y, x].
        block: Voxels of a block, z, y, x.

    Yields:
        Pairs of a box of voxels of the volume and its classes, uint8 [z, y, x].
    """
    classes = classes_by_count(thresholds, lom_radius)
    for box in blocks(valid_box(labels.shape, lom_radius), block):
        around = _dilated(box, lom_radius)
        values = partition_box(labels, box, kept, classes, lom_radius)
        if exclusion is not None:
            masked = np.asarray(exclusion[around.slices]).astype(np.uint8)
            values[_counts_in_cube(masked, (0, 0, 0), box.shape, lom_radius) > 0] = IGNORED
        yield box, values


def partition_box(
    labels: Readable, box: Box, kept: NDArray[np.uint64], classes: NDArray[np.uint8], lom_radius: ZYX
) -> NDArray[np.uint8]:
    """The classes of the voxels of one box, which lies in the `valid_box`.

    Args:
        labels: As for `partition_blocks`.
        box: What to classify.
        kept: As for `partition_blocks`; may be mapped from a file.
        classes: As from `classes_by_count`.
        lom_radius: As for `partition_blocks`.
    """
    return _classify(np.asarray(labels[_dilated(box, lom_radius).slices]), kept, classes, lom_radius)


def classes_by_count(thresholds: Sequence[float], lom_radius: ZYX) -> NDArray[np.uint8]:
    """The class of every possible number of voxels in the cube."""
    voxels = np.prod([2 * radius + 1 for radius in lom_radius], dtype=np.int64)
    fractions = np.arange(voxels + 1) / voxels
    return (np.searchsorted(np.asarray(thresholds, np.float64), fractions, side="right") + 1).astype(np.uint8)


def _dilated(box: Box, radius: ZYX) -> Box:
    start = tuple(a - r for a, r in zip(box.start, radius, strict=True))
    stop = tuple(b + r for b, r in zip(box.stop, radius, strict=True))
    return Box(start, stop)  # type: ignore[arg-type]


def _classify(
    labels: NDArray[np.generic], kept: NDArray[np.uint64], classes: NDArray[np.uint8], radius: ZYX
) -> NDArray[np.uint8]:
    """Classes of the voxels at least `radius` away from the faces of `labels`."""
    from scipy import ndimage  # takes a tenth of a second to load; plans need this module, not its work

    core_shape = tuple(size - 2 * r for size, r in zip(labels.shape, radius, strict=True))
    core_slices = tuple(slice(r, r + size) for r, size in zip(radius, core_shape, strict=True))
    values = np.zeros(core_shape, np.uint8)
    here = fastremap.unique(labels[core_slices])
    first, last = (np.searchsorted(kept, here.astype(np.uint64), side) for side in ("left", "right"))
    present = here[first < last]
    if len(present) == 0:
        return values
    numbers = {0: 0} | {label: i for i, label in enumerate(present.tolist(), start=1)}
    compact = fastremap.remap(fastremap.mask_except(labels, present.tolist()), numbers).astype(np.int32)
    core = compact[core_slices]
    inner_boxes = ndimage.find_objects(core, max_label=len(present))
    outer_boxes = ndimage.find_objects(compact, max_label=len(present))
    for i, (inner, outer) in enumerate(zip(inner_boxes, outer_boxes, strict=True), start=1):
        start = tuple(a.start + r - b.start for a, b, r in zip(inner, outer, radius, strict=True))
        shape = tuple(a.stop - a.start for a in inner)
        counts = _counts_in_cube((compact[outer] == i).view(np.uint8), _minus(start, radius), shape, radius)
        is_object = core[inner] == i
        values[inner][is_object] = classes[counts[is_object]]
    return values


def _minus(start: Sequence[int], radius: ZYX) -> ZYX:
    return tuple(a - r for a, r in zip(start, radius, strict=True))  # type: ignore[return-value]


def _counts_in_cube(mask: NDArray[np.uint8], first: ZYX, shape: Sequence[int], radius: ZYX) -> NDArray[np.int32]:
    """Set voxels in the cube whose lowest corner is `first` + i, for all i within `shape`; outside of mask is 0."""
    counts = mask.astype(np.int32)
    for axis in range(3):
        width = 2 * radius[axis] + 1
        sums = np.cumsum(counts, axis=axis, dtype=np.int32)
        sums = np.concatenate([np.zeros_like(sums.take([0], axis)), sums], axis=axis)
        low = np.arange(shape[axis]) + first[axis]
        last = mask.shape[axis]
        counts = sums.take(np.clip(low + width, 0, last), axis) - sums.take(np.clip(low, 0, last), axis)
    return counts
