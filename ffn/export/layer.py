"""Volumes as Neuroglancer precomputed layers in shards: what decides a layer's files, and its `info`.

    <layer>/info               type, levels, chunks and shards
    <layer>/8_8_8/0a.shard     chunks of one level, those of a box of it; boxes without anything have no file
    <layer>/*.partial/         shards that are being written

The format is xyz, this package's own arrays are zyx. Format: sharded "precomputed" volumes of google/neuroglancer.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ffn.errors import StageError, VolumeError
from ffn.export.downsample import Level, levels
from ffn.export.shards import Regions, Sharding, Tier, files_of, regions, tiers
from ffn.files import write_json
from ffn.geometry import ZYX, Box, xyz_from_zyx
from ffn.volumes import Volume, VoxelSize

Kind = Literal["image", "segmentation"]

_IMAGE_TYPES = ("uint8", "uint16", "float32")
_PROCESS, _ENCODED = 250_000_000, 0.2
"""Bytes of Python with its libraries, and of a voxel of labels that is encoded."""


@dataclass(frozen=True)
class LayerSpec:
    """All that decides the files of a layer, apart from the voxels.

    Attributes:
        name: Of its folder.
        kind: `image` is averaged in the lower resolutions, `segmentation` takes the most frequent label.
        dtype: Name of the NumPy type that is stored.
        pyramid: Its levels, full resolution first.
        chunk: Voxels that are fetched together, zyx.
        shardings: How the chunks of each level are put into files.
        tiers: Which levels are made together.
    """

    name: str
    kind: Kind
    dtype: str
    pyramid: tuple[Level, ...]
    chunk: ZYX
    shardings: tuple[Sharding, ...]
    tiers: tuple[Tier, ...]

    @classmethod
    def of(
        cls, name: str, kind: Kind, dtype: str, box: Box, voxel_size: VoxelSize, chunk: ZYX, mips: int
    ) -> "LayerSpec":
        """The layer of the voxels of `box` of a source volume, with `mips` lower resolutions."""
        pyramid = levels(box, voxel_size, mips)
        shardings, made = tiers(pyramid, chunk)
        return cls(name, kind, dtype, tuple(pyramid), chunk, tuple(shardings), tuple(made))

    @property
    def keys(self) -> list[str]:
        """Folders of the levels."""
        return ["_".join(str(n) for n in _plain(level.voxel_size)) for level in self.pyramid]

    @property
    def files(self) -> int:
        """How many files a layer has of which no box is empty."""
        return 1 + sum(files_of(level, sharding) for level, sharding in zip(self.pyramid, self.shardings, strict=True))

    @property
    def worker_bytes(self) -> int:
        """What a process holds at most: planes of a unit as wide as a chunk, what is encoded of it, and Python."""
        size = np.dtype(self.dtype).itemsize
        most = 0.0
        for tier in self.tiers:
            extent = self.pyramid[tier.levels[0]].box.shape
            z, y, x = (min(n, whole) for n, whole in zip(tier.box, extent, strict=True))
            encoded = z * y * x * (_ENCODED if self.kind == "segmentation" else 1.2 * size)
            most = max(most, 1.5 * min(self.chunk[0], z) * y * x * size + encoded)
        return _PROCESS + int(most)

    def regions(self, tier: Tier, unit: int) -> Regions:
        """What a unit writes, and what it makes for that."""
        return regions(self.pyramid, tier, unit)

    def info(self) -> dict[str, Any]:
        """The contents of `info`."""
        return {
            "@type": "neuroglancer_multiscale_volume",
            "type": self.kind,
            "data_type": self.dtype,
            "num_channels": 1,
            "scales": [
                {**self.scale(number), "sharding": self._sharding(number)} for number in range(len(self.pyramid))
            ],
        }

    def scale(self, number: int) -> dict[str, Any]:
        """What `info` says of one level, apart from its shards."""
        level = self.pyramid[number]
        labels = {"compressed_segmentation_block_size": [8, 8, 8]} if self.kind == "segmentation" else {}
        return {
            "key": self.keys[number],
            "size": xyz_from_zyx(level.box.shape),
            "voxel_offset": xyz_from_zyx(level.box.start),
            "resolution": _plain(level.voxel_size),
            "chunk_sizes": [xyz_from_zyx(self.chunk)],
            "encoding": "compressed_segmentation" if self.kind == "segmentation" else "raw",
            **labels,
        }

    def _sharding(self, number: int) -> dict[str, Any]:
        # Grey values would shrink by a sixth, and writing them take ten times as long.
        packed = "gzip" if self.kind == "segmentation" else "raw"
        return {**self.shardings[number].specification, "data_encoding": packed}


def stored_type(volume: Volume, kind: Kind) -> str:
    """The type of voxel that a layer will hold. Raises VolumeError where it cannot hold the volume's."""
    if kind == "image":
        if volume.dtype.name not in _IMAGE_TYPES:
            raise VolumeError(
                f"{volume.uri} holds {volume.dtype}; an image layer holds {', '.join(_IMAGE_TYPES)}. Convert it first."
            )
        return volume.dtype.name
    if volume.dtype.kind not in "uib":
        raise VolumeError(f"{volume.uri} holds {volume.dtype}; labels must be whole numbers.")
    return "uint64"


def create_layer(folder: Path, spec: LayerSpec) -> None:
    """Write `info`; where it is there already, nothing happens. Raises StageError where it describes another layer."""
    path, info = folder / "info", spec.info()
    if not path.exists():
        write_json(path, info)
        return
    try:
        there = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        there = None
    if there != info:
        raise StageError(
            f"{folder} holds a layer of another kind, place, size or chunk than this run's. Move the folder away and "
            "run the same command again."
        )


def _plain(voxel_size: VoxelSize) -> list[float]:
    """Nanometres xyz; whole numbers without a decimal point, as other programs name their scales."""
    return [int(n) if float(n).is_integer() else float(n) for n in xyz_from_zyx(voxel_size)]
