"""The store between stages: one array of zarr version 3 in shards, with OME-NGFF 0.5 metadata, written by tensorstore.

    segmentation.zarr/zarr.json        a multiscale image of one level: axes, nanometres, place (where these are known)
    segmentation.zarr/0/zarr.json      the array: type, shards, chunks
    segmentation.zarr/0/c/1/0/2        a shard: many compressed chunks and an index of them

A shard is a file that one process writes whole, under a name of its own that then becomes the shard's by an atomic
rename. A shard of nothing but the fill value has no file. Any program that reads zarr version 3 opens a store as it is.

Formats: zarr-specs, version 3 with the codec `sharding_indexed`; OME-NGFF 0.5.
"""

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from math import prod
from multiprocessing import parent_process
from pathlib import Path
from typing import Any

import numpy as np
import tensorstore as ts

from ffn.errors import GeometryError, StageError
from ffn.files import write_json
from ffn.geometry import ZYX, Box
from ffn.volumes.base import VoxelSize
from ffn.volumes.chunks import chunk_dividing

LEVEL = "0"
"""Name of the full resolution in a store."""
_ZSTD_LEVEL = 3
_EDGES = ((1 << 27, 128), (1 << 33, 256), (1 << 42, 512))
"""Up to this many voxels a shard has about this edge: few files, and enough units for all processes."""
_LARGEST_EDGE = 1024
_LEFTOVER = "*.__lock"
"""What a killed writer of tensorstore may leave beside a shard."""


@dataclass(frozen=True)
class StoreLayout:
    """How an array is stored; all zyx.

    Attributes:
        shape: Voxels.
        dtype: Name of the NumPy type.
        chunk: Voxels compressed together.
        shard: Voxels of a file, a multiple of the chunk.
        voxel_size: Nanometres; None = not known.
        offset: Voxel of the source volume at which the array begins.
        fill: Value of voxels that are not stored.
    """

    shape: ZYX
    dtype: str
    chunk: ZYX
    shard: ZYX
    voxel_size: VoxelSize | None
    offset: ZYX = (0, 0, 0)
    fill: int = 0

    @classmethod
    def of_blocks(
        cls,
        shape: ZYX,
        dtype: str,
        block: ZYX,
        voxel_size: VoxelSize | None,
        offset: ZYX = (0, 0, 0),
        shard: ZYX | None = None,
        fill: int = 0,
    ) -> "StoreLayout":
        """The layout of an array that is made block by block: shards are whole blocks, by default as suits its size."""
        return cls(shape, dtype, chunk_dividing(block), shard or shard_of(shape, block), voxel_size, offset, fill)


def shard_of(shape: Sequence[int], block: ZYX) -> ZYX:
    """The shard (zyx) of a volume of this shape: whole blocks, with an edge that follows the number of voxels."""
    voxels = prod(shape)
    edge = next((edge for most, edge in _EDGES if voxels <= most), _LARGEST_EDGE)
    z, y, x = (size * max(edge // size, 1) for size in block)
    return z, y, x


class Store:
    """A store that is being written, shard by shard.

    Args:
        path: Folder of the store.
        layout: Of its array.
    """

    def __init__(self, path: Path, layout: StoreLayout) -> None:
        self.path, self.layout = path, layout

    @property
    def uri(self) -> str:
        """By which `open_volume` knows the array."""
        return f"{self.path}/{LEVEL}"

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "layout": self.layout}

    def created(self) -> "Store":
        """This store, with its metadata written; where they are there already, nothing happens.

        Raises StageError where they describe another array.
        """
        with os_errors(self.path):
            try:
                self._open(create=True)
            except ValueError as error:
                if not (self.path / LEVEL / "zarr.json").exists():
                    raise
                raise StageError(
                    f"{self.path} is a store of another layout than {self.layout.dtype} {self.layout.shape} in shards "
                    f"of {self.layout.shard} ({in_words(error)}). Move it away and run the same command again."
                ) from error
        if not (group := self.path / "zarr.json").exists():
            write_json(group, self._group())
        return self

    def write_shard(self, box: Box, values: np.ndarray) -> int:
        """Write one whole shard.

        Args:
            box: Its voxels, as far as the array goes.
            values: zyx, of the array's type.

        Returns:
            Bytes of its file; 0 where all voxels have the fill value and there is none.

        Raises GeometryError where the box is not a shard, OSError when the disk is full.
        """
        path = self.shard_path(box)
        if values.shape != box.shape or values.dtype != self.layout.dtype:
            raise GeometryError(f"The shard {box} takes {self.layout.dtype}, not {values.dtype} {values.shape}.")
        with os_errors(path):
            self._array[box.slices].write(values).result()
        return shard_bytes(path)

    def shard_path(self, box: Box) -> Path:
        """The file of a shard. Raises GeometryError where the box is not one whole shard."""
        start, shard = box.start, self.layout.shard
        stop = tuple(min(a + n, end) for a, n, end in zip(start, shard, self.layout.shape, strict=True))
        if any(a % n for a, n in zip(start, shard, strict=True)) or box.stop != stop:
            raise GeometryError(f"The voxels {box} are not one whole shard of {shard} in {self.layout.shape}.")
        return self.path.joinpath(LEVEL, "c", *(str(a // n) for a, n in zip(start, shard, strict=True)))

    def remove_leftovers(self) -> None:
        """Remove what writers left that were killed; nobody may be writing any more."""
        for leftover in (self.path / LEVEL).rglob(_LEFTOVER):
            leftover.unlink(missing_ok=True)

    @cached_property
    def _array(self) -> Any:
        return self._open(create=False)

    def _open(self, create: bool) -> Any:
        layout = self.layout
        inner = [{"name": "bytes", "configuration": {"endian": "little"}}, _codec("zstd", level=_ZSTD_LEVEL)]
        index = [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}]
        metadata = {
            "shape": layout.shape,
            "data_type": layout.dtype,
            "fill_value": np.dtype(layout.dtype).type(layout.fill).item(),  # JSON has a type of its own for booleans
            "dimension_names": ["z", "y", "x"],
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": layout.shard}},
            "codecs": [_codec("sharding_indexed", chunk_shape=layout.chunk, codecs=inner, index_codecs=index)],
            "attributes": self._attributes(),
        }
        spec = {"driver": "zarr3", "kvstore": f"file://{self.path.resolve() / LEVEL}/", "metadata": metadata}
        return ts.open(spec, context=tensorstore_context(), create=create, open=True).result()

    def _attributes(self) -> dict[str, Any]:
        layout = self.layout
        known = {} if layout.voxel_size is None else {"voxel_size_nm": list(layout.voxel_size)}
        return {"offset_zyx": list(layout.offset), **known}

    def _group(self) -> dict[str, Any]:
        group = {"zarr_format": 3, "node_type": "group"}
        if self.layout.voxel_size is None:
            # OME-NGFF has no words for a size that is not known: a scale of 1 would be read as one.
            return {**group, "attributes": {}}
        size = list(self.layout.voxel_size)
        place = [n * edge for n, edge in zip(self.layout.offset, size, strict=True)]
        transformations = [{"type": "scale", "scale": size}, {"type": "translation", "translation": place}]
        multiscale = {
            "name": self.path.stem,
            "axes": [{"name": axis, "type": "space", "unit": "nanometer"} for axis in "zyx"],
            "datasets": [{"path": LEVEL, "coordinateTransformations": transformations}],
        }
        return {**group, "attributes": {"ome": {"version": "0.5", "multiscales": [multiscale]}}}


def shard_bytes(path: Path) -> int:
    """Bytes of a shard's file; 0 where there is none."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def tensorstore_context() -> Any:
    """What tensorstore may use: all cores, or one in a worker process, of which there is one for each core.

    No locks: file systems of clusters often have none. Files get their names by atomic renames from unique ones, and a
    shard is written by one process, or by several with the same contents.
    """
    context: dict[str, Any] = {"file_io_locking": {"mode": "none"}}
    if parent_process() is not None:
        context |= {"data_copy_concurrency": {"limit": 1}}
    return ts.Context(context)


def _codec(name: str, **configuration: Any) -> dict[str, Any]:
    return {"name": name, "configuration": configuration}


@contextmanager
def os_errors(path: Path) -> Iterator[None]:
    """Errors of the operating system as OSError, with their number: tensorstore has them in the text of others."""
    try:
        yield
    except (ValueError, IndexError, RuntimeError) as error:
        if (found := re.search(r"os_error_code='(\d+)'", str(error))) is None:
            raise
        raise OSError(int(found[1]), os.strerror(int(found[1])), str(path)) from error


def in_words(error: Exception) -> str:
    """What tensorstore says, without the codes and the specification around it."""
    return re.sub(r"^[A-Z_]+: ", "", str(error).split(" [", 1)[0])
