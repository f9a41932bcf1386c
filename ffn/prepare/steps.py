"""The steps of `ffn prepare`, for all volumes of a run; units count through one volume after the other.

label_sizes     how many voxels each label has in a unit
objects         which labels are large enough to learn from
classes         how much of the surroundings of each voxel belongs to its own object
class_counts    of volumes too large to list all centres of examples: how many each block gives
sample          of these: which
coordinates     the centres of each volume, shuffled by class
seeds           places far from edges, in each tile of the image
summary         the seeds of each volume in one list, and what was found
"""

from collections.abc import Iterator, Sequence
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ffn.blockwise import Columns, Entry, Result, Step
from ffn.config.reach import lom_radius
from ffn.files import atomic_path
from ffn.geometry import Box
from ffn.prepare.coordinates import require_centres, write_coordinates, write_sample
from ffn.prepare.merge import Counted, merged, summed
from ffn.prepare.partitions import (
    IGNORED,
    classes_by_count,
    label_sizes,
    large_ones,
    partition_box,
    write_classes,
)
from ffn.prepare.sample import drawn, shares
from ffn.prepare.units import VolumesReduce, VolumesTask, VoxelsTask
from ffn.prepare.volume import PARTITIONS, LabelledVolume
from ffn.volumes.store import shard_bytes

_DRAWN = "class_"
_COORDINATE_BYTES = 16
"""Memory for each voxel of a class while a list of them is shuffled."""
_LABEL_BYTES = 30
"""Memory for each voxel of a block and its surroundings while it is classified."""
_FILTERED = ("unlabelled", "near_boundary")
"""Why a voxel that has a class is no centre."""


class LabelSizes(VoxelsTask):
    """How many voxels each label has in a unit; labels ascending."""

    name = "label_sizes"

    def run(self, unit: int) -> Result:
        volume, box = self.box(unit)
        labels, voxels = summed(label_sizes(volume.labels, block) for _, block in volume.blocks_in(box))
        return Result({"labels": labels, "voxels": voxels})


class Objects(VolumesReduce):
    """A file of the labels, ascending, that are large enough; and the empty store of a volume that needs one."""

    name = "objects"

    def __init__(self, volumes: Sequence[LabelledVolume], sizes: LabelSizes, before: Step, folder: Path) -> None:
        super().__init__(volumes)
        self.sizes, self.before, self.folder = sizes, before, folder

    def path(self, index: int) -> Path:
        return self.folder / f"{index:02d}.labels"

    def labels(self, index: int) -> NDArray[np.uint64]:
        """The labels of a volume, read from the disk as they are asked for."""
        return np.memmap(self.path(index), np.uint64, "r")

    def run(self, unit: int) -> Result:
        ledger, facts = self.before.complete(), {}
        for index, volume in enumerate(self.volumes):

            def counted(units: range = self.sizes.units_in(index)) -> Iterator[Counted]:
                for columns in (ledger[unit].columns() for unit in units):
                    yield columns["labels"], columns["voxels"]

            with atomic_path(self.path(index)) as partial, partial.open("wb") as file:
                for large in large_ones(merged(counted(), self.folder), volume.config.prepare.min_size):
                    file.write(large.tobytes())
            facts[str(index)] = self.path(index).stat().st_size
            if volume.is_sampled:
                volume.store.created()
        return Result(facts=facts)

    def is_intact(self, entry: Entry) -> bool:
        stores = [volume.files.partitions_store for volume in self.volumes if volume.is_sampled]
        return all(_bytes(self.path(int(index))) == size for index, size in entry.facts.items()) and all(
            (store / "zarr.json").exists() for store in stores
        )


class Classes(VoxelsTask):
    """Partition classes: in the ledger, or as a shard of the store of a sampled volume.

    Columns of a listed volume: `classes` uint8 [z, y, x]. Of a sampled one: `centres` uint32 [blocks of the unit,
    classes], how many voxels may be centres of examples, and `left_out` int64 [2], how many may not although they have
    a class: those that are unlabelled, and those near a boundary.
    """

    name = "classes"

    def __init__(self, volumes: Sequence[LabelledVolume], objects: Objects) -> None:
        super().__init__(volumes)
        self.objects = objects
        self.unit_bytes = max(self._memory(volume) for volume in volumes)

    @staticmethod
    def _memory(volume: LabelledVolume) -> int:
        """Memory of a unit: its classes as they are and compressed, and a block of labels with its surroundings."""
        around = prod(n + 2 * r for n, r in zip(volume.limits.block, lom_radius(volume.config), strict=True))
        return 2 * prod(volume.units.block) + _LABEL_BYTES * around

    @cached_property
    def _kept(self) -> list[NDArray[np.uint64]]:
        return [self.objects.labels(index) for index in range(len(self.volumes))]

    @cached_property
    def _by_count(self) -> NDArray[np.uint8]:
        config = self.volumes[0].config
        return classes_by_count(config.prepare.thresholds, lom_radius(config))

    def run(self, unit: int) -> Result:
        volume, box = self.box(unit)
        index, _ = self.place(unit)
        values = np.full(box.shape, IGNORED, np.uint8)
        for _, block in volume.blocks_in(box):
            if (inside := block.intersection(volume.valid)) is not None:
                values[inside.relative_to(box.start).slices] = partition_box(
                    volume.labels, inside, self._kept[index], self._by_count, lom_radius(volume.config)
                )
        if not volume.is_sampled:
            return Result({"classes": values})
        size = volume.store.write_shard(box, values)
        return Result(_centre_counts(volume, box, values), {"bytes": size})

    def is_intact(self, entry: Entry) -> bool:
        volume, box = self.box(entry.unit)
        return not volume.is_sampled or shard_bytes(volume.store.shard_path(box)) == entry.facts["bytes"]

    def close(self) -> None:
        self.__dict__.pop("_kept", None)
        super().close()


def _centre_counts(volume: LabelledVolume, box: Box, values: NDArray[np.uint8]) -> Columns:
    counts, centres = [], volume.centres()
    for _, block in volume.blocks_in(box):
        here = np.zeros(IGNORED + 1, np.int64)
        if (inside := block.intersection(volume.inside)) is not None:
            usable = centres.usable(values[inside.relative_to(box.start).slices].copy(), inside.slices)
            here = np.bincount(usable.ravel(), minlength=IGNORED + 1)
        counts.append(here[: volume.classes])
    left_out = [centres.left_out[reason] for reason in _FILTERED]
    return {"centres": np.array(counts, np.uint32), "left_out": np.array(left_out, np.int64)}


class ClassCounts(VolumesReduce):
    """How many centres of each class each block of the sampled volumes gives; no unit where all are listed.

    Columns, with the number of the volume: `wanted` uint32 [blocks, classes], `available` int64 [classes], and
    `left_out` int64 [2].
    """

    name = "class_counts"

    def __init__(self, volumes: Sequence[LabelledVolume], classes: Classes, before: Step) -> None:
        super().__init__(volumes)
        self.classes, self.before = classes, before

    def __len__(self) -> int:
        return int(any(volume.is_sampled for volume in self.volumes))

    def run(self, unit: int) -> Result:
        ledger = self.before.complete()
        found: dict[str, NDArray[Any]] = {}
        for index, volume in enumerate(self.volumes):
            if not volume.is_sampled:
                continue
            counts = np.zeros((len(volume.blocks), volume.classes), np.uint32)
            left_out = np.zeros(2, np.int64)
            for number in self.classes.units_in(index):
                columns, (_, box) = ledger[number].columns(), self.classes.box(number)
                counts[[block for block, _ in volume.blocks_in(box)]] = columns["centres"]
                left_out += columns["left_out"]
            available = counts.sum(axis=0, dtype=np.int64)
            require_centres(_by_class(available), volume.margin)
            wanted = [shares(counts[:, value], volume.limits.per_class) for value in range(volume.classes)]
            found |= {
                f"wanted_{index}": np.array(wanted, np.uint32).T,
                f"available_{index}": available,
                f"left_out_{index}": left_out,
            }
        return Result(found)


class Sample(VoxelsTask):
    """The centres that a unit of a sampled volume gives, C-order indices by class."""

    name = "sample"

    def __init__(self, volumes: Sequence[LabelledVolume], before: Step) -> None:
        self.before = before
        super().__init__(volumes)

    def units_of(self, volume: LabelledVolume) -> int:
        return super().units_of(volume) if volume.is_sampled else 0

    @cached_property
    def _wanted(self) -> Columns:
        return self.before.complete()[0].columns()

    def run(self, unit: int) -> Result:
        volume, box = self.box(unit)
        wanted = self._wanted[f"wanted_{self.place(unit)[0]}"]
        found: dict[int, list[NDArray[np.uint64]]] = {}
        for number, block in volume.blocks_in(box):
            inside = block.intersection(volume.inside)
            if inside is None or not wanted[number].any():
                continue
            classes = volume.centres()[inside.slices].astype(np.uint8)
            for value, indices in drawn(classes, inside, volume.shape, wanted[number], volume.seed, number):
                found.setdefault(value, []).append(indices)
        return Result({f"{_DRAWN}{value:03d}": np.concatenate(parts) for value, parts in found.items()})

    def close(self) -> None:
        self.__dict__.pop("_wanted", None)
        super().close()


class Coordinates(VolumesTask):
    """The file of a volume's centres; of one that is not sampled, the file of its partitions too."""

    name = "coordinates"
    unit = "volumes"

    def __init__(
        self,
        volumes: Sequence[LabelledVolume],
        classes: tuple[Classes, Step],
        counts: Step,
        sample: tuple[Sample, Step],
    ) -> None:
        super().__init__(volumes)
        self.classes, self.counts, self.sample = classes, counts, sample
        listed = (Box.of_shape(volume.shape).voxels for volume in volumes if not volume.is_sampled)
        self.unit_bytes = _COORDINATE_BYTES * max(listed, default=0)

    def units_of(self, volume: LabelledVolume) -> int:
        return 1

    def run(self, unit: int) -> Result:
        volume = self.volumes[unit]
        if volume.is_sampled:
            self._write_sample(unit, volume)
        else:
            self._write_all(unit, volume)
        return Result(facts={path.name: _bytes(path) for path in (volume.files.partitions, volume.files.coordinates)})

    def is_intact(self, entry: Entry) -> bool:
        files = self.volumes[entry.unit].files
        return all(_bytes(path) == entry.facts[path.name] for path in (files.partitions, files.coordinates))

    def _write_all(self, index: int, volume: LabelledVolume) -> None:
        (task, step), prepare = self.classes, volume.config.prepare
        ledger = step.complete()

        def found() -> Iterator[tuple[Box, NDArray[np.uint8]]]:
            for unit in task.units_in(index):
                _, box = task.box(unit)
                if (inside := box.intersection(volume.valid)) is not None:
                    yield inside, ledger[unit].columns()["classes"][inside.relative_to(box.start).slices]

        write_classes(
            found(),
            volume.files.partitions,
            PARTITIONS,
            volume.shape,
            prepare.thresholds,
            lom_radius(volume.config),
            prepare.min_size,
            volume.voxel_size,
        )
        centres = volume.centres()
        write_coordinates(centres, volume.files.coordinates, volume.margin, volume.seed, centres.left_out)

    def _write_sample(self, index: int, volume: LabelledVolume) -> None:
        task, step = self.sample
        ledger, counts = step.complete(), self.counts.complete()[0].columns()
        parts = (
            {int(name.removeprefix(_DRAWN)): indices for name, indices in ledger[unit].columns().items()}
            for unit in task.units_in(index)
        )
        left_out = dict(zip(_FILTERED, counts[f"left_out_{index}"].tolist(), strict=True))
        available = _by_class(counts[f"available_{index}"])
        write_sample(parts, volume.files.coordinates, volume.shape, volume.margin, volume.seed, available, left_out)


def _by_class(counts: NDArray[np.int64]) -> dict[int, int]:
    return {value: int(counts[value]) for value in np.flatnonzero(counts).tolist()}


def _bytes(path: Path) -> int:
    """Size of a file; 0 where there is none."""
    return path.stat().st_size if path.is_file() else 0
