"""A volume with labels, to learn from or to judge on, as the steps of `ffn prepare` see it."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

from ffn.blockwise import Grid
from ffn.config import Config, Region
from ffn.config.reach import lom_radius, training_margin
from ffn.errors import GeometryError
from ffn.geometry import ZYX, Box, blocks, overlapping_tiles
from ffn.prepare.centres import Centres
from ffn.prepare.coordinates import centre_box
from ffn.prepare.partitions import BLOCK, IGNORED, valid_box
from ffn.prepare.sample import PER_CLASS
from ffn.runs import VolumeFiles, image_uri, labels_uri
from ffn.volumes import Volume, VoxelSize, check_pair, chunk_dividing, coarsen, open_image, open_labels, open_volume
from ffn.volumes.store import Store, StoreLayout, shard_of

PARTITIONS = "partitions"


@dataclass(frozen=True)
class Limits:
    """How large volumes and their pieces may be; all in voxels, zyx.

    Attributes:
        listed: A volume up to this size has all of its centres listed, and its partitions in one HDF5 file: at most
            5 GB on disk, 16 bytes of memory for each voxel of the largest class, and some minutes of one process. Twice
            that would no longer fit into the memory of many nodes. A larger volume has a sample and a store.
        per_class: Centres of a class in a sample, at most.
        block: What is classified at once, with its surroundings; the grid of the sample.
        shard: A file of the store, whole blocks; None = by the volume.
        tile: A region larger than this gets its seeds piece by piece: 512^3 voxels take about 3 GB.
        overlap: Of these pieces.
    """

    listed: int = 10**9
    per_class: int = PER_CLASS
    block: ZYX = BLOCK
    shard: ZYX | None = None
    tile: ZYX = (512, 512, 512)
    overlap: ZYX = (64, 64, 64)


@dataclass(frozen=True)
class LabelledVolume:
    """A region that the configuration has at `key`; its data are opened when they are read first.

    Attributes:
        config: Of the run.
        key: What the configuration calls the region.
        region: What it says of it.
        files: What is made of it.
        seed: Decides the order of its coordinates.
        with_seeds: Whether places from which flood fills could start are wanted.
        limits: By which it is cut.
        shape: Network voxels.
        image_shape: Voxels as they are stored.
        voxel_size: Of a network voxel, nanometres; None = not known.
    """

    config: Config
    key: str
    region: Region
    files: VolumeFiles
    seed: int
    with_seeds: bool
    limits: Limits
    shape: ZYX
    image_shape: ZYX
    voxel_size: VoxelSize | None

    @classmethod
    def of(
        cls, config: Config, key: str, region: Region, files: VolumeFiles, seed: int, with_seeds: bool, limits: Limits
    ) -> "LabelledVolume":
        """Look at the headers of a region's data.

        Raises VolumeError where image and labels do not belong together, GeometryError where no training example fits.
        """
        with _open_image(config, region) as fine_image, _open_labels(config, region) as fine_labels:
            check_pair(fine_image, fine_labels)
            image = coarsen(fine_image, config.network.downsample, labels=False)
            labels = coarsen(fine_labels, config.network.downsample, labels=True)
            _check_size(key, image.shape, training_margin(config))
            valid_box(labels.shape, lom_radius(config))
            voxel_size = labels.voxel_size or image.voxel_size
            return cls(config, key, region, files, seed, with_seeds, limits, labels.shape, fine_image.shape, voxel_size)

    def __getstate__(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @property
    def is_sampled(self) -> bool:
        """Whether it is too large for a list of all centres."""
        return Box.of_shape(self.shape).voxels > self.limits.listed

    @property
    def cut(self) -> dict[str, Any]:
        """How it is cut, as far as that decides what is made of it."""
        if not self.is_sampled:
            return {}
        return {"block": self.limits.block, "shard": self.layout.shard, "per_class": self.limits.per_class}

    @property
    def blocks(self) -> Grid:
        """What is classified at once."""
        return Grid(Box.of_shape(self.shape), self.limits.block)

    @property
    def units(self) -> Grid:
        """The units of the steps that go through all voxels: a block, or a shard of the store."""
        return Grid(Box.of_shape(self.shape), self.layout.shard) if self.is_sampled else self.blocks

    def blocks_in(self, unit: Box) -> Iterator[tuple[int, Box]]:
        """The blocks that a unit is made of, with their numbers in the volume."""
        for box in blocks(unit, self.limits.block):
            z, y, x = (a // n for a, n in zip(box.start, self.limits.block, strict=True))
            yield self.blocks.number((z, y, x)), box

    @property
    def layout(self) -> StoreLayout:
        block = self.limits.block
        shard = self.limits.shard or shard_of(self.shape, block)
        return StoreLayout(self.shape, "uint8", chunk_dividing(block), shard, self.voxel_size, fill=IGNORED)

    @cached_property
    def store(self) -> Store:
        """Where the partitions of a sampled volume go."""
        return Store(self.files.partitions_store, self.layout)

    @cached_property
    def labels(self) -> Volume:
        """uint64, in network voxels."""
        return coarsen(_open_labels(self.config, self.region), self.config.network.downsample, labels=True)

    @cached_property
    def fine_image(self) -> Volume:
        """uint8, as it is stored."""
        return _open_image(self.config, self.region)

    @cached_property
    def partitions(self) -> Volume:
        """The classes, once they are made."""
        store, file = self.files.partitions_store, self.files.partitions
        return open_volume(str(store) if self.is_sampled else f"{file}:{PARTITIONS}")

    def centres(self) -> Centres:
        """The classes of the voxels that may be centres of examples, and a fresh count of the others."""
        unknown = self.region.label_zero == "unknown"
        voxel_size = self.voxel_size or (1.0, 1.0, 1.0)
        return Centres(self.partitions, self.labels, self.config.prepare.min_boundary_nm, voxel_size, unknown)

    @property
    def valid(self) -> Box:
        """The voxels that have a class."""
        return valid_box(self.shape, lom_radius(self.config))

    @property
    def margin(self) -> ZYX:
        return training_margin(self.config)

    @property
    def inside(self) -> Box:
        """The voxels around which an example fits."""
        return centre_box(self.shape, self.margin)

    @property
    def classes(self) -> int:
        """Partition classes, 255 not counted."""
        return len(self.config.prepare.thresholds) + 2

    @property
    def tiles(self) -> list[Box]:
        """The pieces of the image that get seeds, each for itself."""
        if not self.with_seeds:
            return []
        return overlapping_tiles(Box.of_shape(self.image_shape), self.limits.tile, self.limits.overlap)

    @property
    def made(self) -> list[Path]:
        """Everything that preparing may leave behind."""
        files = self.files
        return [files.partitions, files.partitions_store, files.coordinates, files.seeds]

    def close(self) -> None:
        """Let go of open files; they are opened again when they are needed."""
        for name in ("labels", "fine_image", "partitions"):
            with suppress(KeyError):
                self.__dict__.pop(name).close()


def _open_image(config: Config, region: Region) -> Volume:
    return open_image(image_uri(config, region), box=region.bounds, voxel_size=config.data.voxel_size)


def _open_labels(config: Config, region: Region) -> Volume:
    return open_labels(str(labels_uri(config, region)), box=region.bounds, voxel_size=config.data.voxel_size)


def _check_size(key: str, shape: ZYX, margin: ZYX) -> None:
    for axis, size, reach in zip("zyx", shape, margin, strict=True):
        if size <= 2 * reach:
            raise GeometryError(
                f"{key} has {size} network voxels along {axis}, but a training patch (field of view and its moves) "
                f"has {2 * reach + 1}. Use a larger region, or a smaller network.fov or network.deltas."
            )
