"""Making one unit of a layer: a part of the volume, read a few planes at a time, in all levels that it covers.

Chunks are encoded and planes pooled while they are in memory, and the pooled planes go the same way one level up.
Shards are written whole under other names and then get theirs, so a unit that is done twice, also by two processes at a
time, leaves the same files.
"""

import gzip
import re
import struct
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import tensorstore as ts

from ffn.errors import VolumeError
from ffn.export.downsample import downsample, source_box
from ffn.export.layer import LayerSpec
from ffn.export.shards import Regions, Tier, chunk_number
from ffn.files import PARTIAL, remove, sync, temporary_path
from ffn.geometry import Box
from ffn.volumes import Volume
from ffn.volumes.store import os_errors, tensorstore_context

Source = Callable[[Box], np.ndarray]
"""Reads a box of a level, counted on its grid."""

_GZIP_LEVEL = 4
"""tensorstore's own is 9, which takes seven times as long for one percent."""


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
    with temporary_path(folder / "shards") as partial:
        partial.mkdir()
        writers = {level: _ShardWriter(partial, spec, level) for level in found.written}
        rows = _chain(spec, number, region, found, writers)
        for box in _slabs(region, spec.pyramid[number].box.start[0], spec.chunk[0]):
            rows.push(read(box))
        for writer in writers.values():
            writer.commit()
        return _moved(partial, folder)


def remove_unfinished(folder: Path) -> None:
    """Remove what writers left that were killed; nobody may be writing any more."""
    for leftover in folder.glob(f"*{PARTIAL}"):
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
