"""Volumes as Neuroglancer precomputed layers in shards, made unit by unit by any number of processes.

    <layer>/info               type, levels, chunks and shards
    <layer>/8_8_8/0a.shard     chunks of one level, those of a box of it; boxes without anything have no file
    <layer>/*.partial/         shards that are being written

A unit (see `ffn.export.shards`) is read a few planes at a time: its chunks are encoded and its planes pooled while they
are in memory, and the pooled planes go the same way one level up. Shards are written whole under other names and then
get theirs, so a unit that is done twice, also by two processes at a time, leaves the same files.

The format is xyz; this module is where zyx ends. Format: sharded "precomputed" volumes of google/neuroglancer.
"""

import gzip
import json
import re
import struct
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tensorstore as ts

from ffn.errors import StageError, VolumeError
from ffn.export.downsample import Level, downsample, levels, source_box
from ffn.export.shards import Regions, Sharding, Tier, chunk_number, regions, tiers
from ffn.files import remove, sync, write_json
from ffn.geometry import ZYX, Box, xyz_from_zyx
from ffn.volumes import Volume, VoxelSize
from ffn.volumes.store import os_errors, tensorstore_context

Kind = Literal["image", "segmentation"]
Source = Callable[[Box], np.ndarray]
"""Reads a box of a level, counted on its grid."""

_IMAGE_TYPES = ("uint8", "uint16", "float32")
_GZIP_LEVEL = 4
"""tensorstore's own is 9, which takes six times as long for one percent."""
_LEFTOVERS = "*.partial"


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
        """Of one level what `info` says, apart from its shards."""
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


def write_unit(folder: Path, spec: LayerSpec, tier: Tier, unit: int, source: Volume) -> dict[str, int]:
    """Make one unit: read its voxels, and write the shards of all levels that are its own.

    Args:
        folder: Of the layer, with its `info`.
        spec: Of the layer.
        tier: One of the layer's; those before it are complete.
        unit: Number of the unit in the tier.
        source: The volume that the layer shows; read by the first tier only.

    Returns:
        Bytes of each file, by its path in the folder. A shard without anything has no file.

    Raises VolumeError for negative labels, OSError when the disk is full.
    """
    found = spec.regions(tier, unit)
    if not found.made:
        return {}
    first = tier.levels[0]
    read: Source
    if first == 0:
        number, region = 0, found.made[0]
        read = _Voxels(spec, source)
    else:
        number = first - 1
        region = source_box(found.made[first], spec.pyramid[first].step, spec.pyramid[number].box)
        read = LevelReader(folder, spec, number)
    partial = folder / f"{uuid.uuid4().hex}.partial"
    partial.mkdir()
    try:
        writers = {level: _ShardWriter(partial, spec, level) for level in found.written}
        rows = _chain(spec, number, region, found, writers)
        for box in _slabs(region, spec.pyramid[number].box.start[0], spec.chunk[0]):
            rows.push(read(box))
        for writer in writers.values():
            writer.commit()
        return _moved(partial, folder)
    except OSError:
        if partial.exists():
            raise
        # The step that ends the stage has removed it: all units are complete, this one by another process.
        return {}
    finally:
        remove(partial)


def remove_leftovers(folder: Path) -> None:
    """Remove what writers left that were killed; all units must be complete."""
    for leftover in folder.glob(_LEFTOVERS):
        remove(leftover)


class LevelReader:
    """A level of a layer that is on the disk, read by its own voxels."""

    def __init__(self, folder: Path, spec: LayerSpec, number: int) -> None:
        spec_of = {
            "driver": "neuroglancer_precomputed",
            "kvstore": f"file://{folder.resolve()}/",
            "scale_index": number,
        }
        self._array = ts.open(spec_of, context=tensorstore_context(), read=True, open=True).result()

    def __call__(self, box: Box) -> np.ndarray:
        """Voxels of `box`, zyx."""
        return np.ascontiguousarray(self._array[(*_slices_xyz(box), 0)].read(order="F").result().T)


class _Voxels:
    """The volume that a layer shows, as it is stored, by the voxels of the layer's full resolution."""

    def __init__(self, spec: LayerSpec, volume: Volume) -> None:
        self._spec, self._volume = spec, volume

    def __call__(self, box: Box) -> np.ndarray:
        values = self._volume.read(box.relative_to(self._spec.pyramid[0].box.start))
        if values.dtype.kind == "i" and values.min() < 0:
            raise VolumeError(f"{self._volume.uri} has the negative label {values.min()}; labels must be 0 or greater.")
        return values.astype(self._spec.dtype, copy=False)


class _Rows:
    """A level of a unit while its planes come in: whole rows of chunks are written, whole cells pooled and passed on.

    Args:
        spec: Of the layer.
        number: Of the level.
        region: Its planes that will come in.
        written: The part of it that is written, or None.
        writer: Takes that.
        above: The next level, which is made from this one, or None.
    """

    def __init__(
        self,
        spec: LayerSpec,
        number: int,
        region: Box,
        written: Box | None,
        writer: "_ShardWriter | None",
        above: "_Rows | None",
    ) -> None:
        self._spec, self._level, self._region = spec, spec.pyramid[number], region
        self._step = spec.pyramid[number + 1].step if above is not None else (1, 1, 1)
        self._written, self._writer, self._above = written, writer, above
        self._pieces: list[np.ndarray] = []
        self._begin = region.start[0]
        self._next_written = written.start[0] if written is not None else region.stop[0]
        self._next_pooled = above._region.start[0] if above is not None else 0

    def push(self, planes: np.ndarray) -> None:
        """Take in the next planes of the region, zyx."""
        self._pieces.append(planes)
        end = self._begin + sum(map(len, self._pieces))
        self._write(end)
        self._pool(end)
        # What is done with, no longer a part of any piece.
        needed = min(self._next_written, self._next_pooled * self._step[0] if self._above is not None else end, end)
        while self._pieces and self._begin < needed:
            first = self._pieces.pop(0)
            gone = min(needed - self._begin, len(first))
            self._begin += gone
            if gone < len(first):
                self._pieces.insert(0, first[gone:].copy())

    def _write(self, end: int) -> None:
        written, writer = self._written, self._writer
        if written is None or writer is None:
            return
        origin, chunk = self._level.box.start[0], self._spec.chunk[0]
        while self._next_written < written.stop[0]:
            stop = min(origin + ((self._next_written - origin) // chunk + 1) * chunk, written.stop[0])
            if stop > end:
                return
            row = Box((self._next_written, *written.start[1:]), (stop, *written.stop[1:]))
            writer.put(row, self._inside(row))
            self._next_written = stop
        self._next_written = self._region.stop[0]

    def _pool(self, end: int) -> None:
        above = self._above
        if above is None:
            return
        stop = above._region.stop[0]
        if end < self._region.stop[0]:
            stop = min(end // self._step[0], stop)
        while self._next_pooled < stop:
            # The cells within one piece, or the one that reaches into the next piece: joining pieces takes memory.
            within = self._piece_end(self._next_pooled * self._step[0]) // self._step[0]
            cells = Box(
                (self._next_pooled, *above._region.start[1:]),
                (min(max(within, self._next_pooled + 1), stop), *above._region.stop[1:]),
            )
            source = source_box(cells, self._step, self._level.box)
            labels = self._spec.kind == "segmentation"
            self._next_pooled = cells.stop[0]
            above.push(downsample(self._inside(source), source, cells, self._step, labels))

    def _piece_end(self, plane: int) -> int:
        """Where the piece with this plane ends."""
        end = self._begin
        for piece in self._pieces:
            end += len(piece)
            if plane < end:
                break
        return end

    def _inside(self, box: Box) -> np.ndarray:
        """The voxels of a box that came in: a view where they came in together."""
        parts, begin = [], self._begin
        for piece in self._pieces:
            here = Box((begin, *self._region.start[1:]), (begin + len(piece), *self._region.stop[1:]))
            if (part := box.intersection(here)) is not None:
                parts.append(piece[part.relative_to(here.start).slices])
            begin += len(piece)
        return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _chain(spec: LayerSpec, number: int, region: Box, found: Regions, writers: Mapping[int, "_ShardWriter"]) -> _Rows:
    """The level that is read, with those behind it."""
    regions_of = {number: region, **found.made}
    rows: _Rows | None = None
    for level in sorted(regions_of, reverse=True):
        rows = _Rows(spec, level, regions_of[level], found.written.get(level), writers.get(level), rows)
    assert rows is not None
    return rows


def _slabs(region: Box, origin: int, chunk: int) -> Iterator[Box]:
    """The region in slabs of about one row of chunks: its planes are wide, and only some can be held."""
    start = region.start[0]
    while start < region.stop[0]:
        stop = origin + ((start - origin + chunk // 2) // chunk + 1) * chunk
        stop = min(stop, region.stop[0])
        yield Box((start, *region.start[1:]), (stop, *region.stop[1:]))
        start = stop


class _ShardWriter:
    """The shards of one level that a unit writes; they are on the disk after `commit`.

    Chunks are encoded by tensorstore in memory and compressed here, since tensorstore has no milder compression for
    them; then it puts them into shards, which therefore take them as they are.
    """

    def __init__(self, folder: Path, spec: LayerSpec, number: int) -> None:
        self._level, self._chunk = spec.pyramid[number], spec.chunk
        self._compressed = spec.kind == "segmentation"
        self._folder = folder / spec.keys[number]
        context = tensorstore_context()
        scale = spec.scale(number)
        chunk_size = scale.pop("chunk_sizes")[0]
        self._encoder = ts.open(
            {
                "driver": "neuroglancer_precomputed",
                "kvstore": "memory://",
                "multiscale_metadata": {"type": spec.kind, "data_type": spec.dtype, "num_channels": 1},
                "scale_metadata": {**scale, "chunk_size": chunk_size},
            },
            context=context,
            create=True,
        ).result()
        self._encoded = ts.KvStore.open(f"memory://{spec.keys[number]}/", context=context).result()
        self._transaction = ts.Transaction()
        shards = ts.KvStore.open(
            {
                "driver": "neuroglancer_uint64_sharded",
                "base": f"file://{self._folder.resolve()}/",
                "metadata": {**spec.shardings[number].specification, "data_encoding": "raw"},
            },
            context=context,
        ).result()
        self._shards = shards.with_transaction(self._transaction)

    def put(self, box: Box, values: np.ndarray) -> None:
        """Take in the voxels of whole chunks; chunks of zeros are left out."""
        # Row by row: tensorstore holds a copy of what it encodes.
        for start in range(0, box.shape[1], self._chunk[1]):
            rows = slice(start, start + self._chunk[1])
            z, y, x = box.slices
            part = (x, slice(y.start + start, min(y.start + rows.stop, y.stop)), z, 0)
            self._encoder[part].write(values[:, rows].T).result()
            self._take_encoded()

    def _take_encoded(self) -> None:
        for name in self._encoded.list().result():
            content = self._encoded.read(name).result().value
            if self._compressed:
                content = gzip.compress(content, _GZIP_LEVEL, mtime=0)
            self._shards.write(struct.pack(">Q", self._number(name.decode())), content).result()
        self._encoded.delete_range(ts.KvStore.KeyRange()).result()

    def commit(self) -> None:
        """Write the shards. Raises OSError when the disk is full."""
        with os_errors(self._folder):
            self._transaction.commit_sync()

    def _number(self, name: str) -> int:
        """Of a chunk by its name, such as 64-128_0-64_0-57 (xyz)."""
        first_xyz = [int(start) for start in re.findall(r"(\d+)-\d+", name)]
        counts, places = [], []
        for axis, start in enumerate(reversed(first_xyz)):
            counts.append(-(-self._level.box.shape[axis] // self._chunk[axis]))
            places.append((start - self._level.box.start[axis]) // self._chunk[axis])
        return chunk_number((places[0], places[1], places[2]), (counts[0], counts[1], counts[2]))


def _moved(partial: Path, folder: Path) -> dict[str, int]:
    """Give all shards below `partial` their names in `folder`; returns their bytes."""
    sizes = {}
    for path in sorted(partial.glob("*/*.shard")):
        name = path.relative_to(partial).as_posix()
        sizes[name] = path.stat().st_size
        (folder / name).parent.mkdir(exist_ok=True)
        path.replace(folder / name)
    for key in {Path(name).parent for name in sizes}:
        sync(folder / key)
    return sizes


def _slices_xyz(box: Box) -> tuple[slice, slice, slice]:
    z, y, x = box.slices
    return x, y, z


def _plain(voxel_size: VoxelSize) -> list[float]:
    """Nanometres xyz; whole numbers without a decimal point, as other programs name their scales."""
    return [int(n) if float(n).is_integer() else float(n) for n in xyz_from_zyx(voxel_size)]
