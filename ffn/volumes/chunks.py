"""Chunks of labels as HDF5 stores them, made outside of HDF5: many processes compress, one writes."""

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ffn.errors import GeometryError
from ffn.geometry import ZYX, Box, blocks

GZIP_LEVEL = 1
_LARGEST = 64


@dataclass(frozen=True)
class PackedChunk:
    """A whole chunk of a volume, shuffled and compressed.

    Attributes:
        start: First voxel, zyx.
        shape: zyx voxels, also where the volume ends earlier.
        data: As HDF5's filters `shuffle` and `gzip` leave it.
    """

    start: ZYX
    shape: ZYX
    data: bytes


def chunk_within(chunk: ZYX, shape: Sequence[int]) -> ZYX:
    """The chunk of a volume of this shape: no larger than the volume itself."""
    z, y, x = (min(c, n) for c, n in zip(chunk, shape, strict=True))
    return z, y, x


def chunk_dividing(block: ZYX) -> ZYX:
    """The largest chunk up to 64 voxels an axis of which blocks of a volume of this shape are made up: so each is
    written once and whole."""
    z, y, x = (max(n for n in range(1, min(size, _LARGEST) + 1) if size % n == 0) for size in block)
    return z, y, x


def pack(values: np.ndarray, start: ZYX, chunk: ZYX, shape: Sequence[int]) -> Iterator[PackedChunk]:
    """The chunks that `values` fill; chunks of zeros only, the volume's fill value, are left out.

    Args:
        values: zyx, more than a byte a voxel, beginning and ending at borders of chunks or where the volume ends.
        start: Where they begin in the volume.
        chunk: zyx shape of its chunks.
        shape: Of the volume.

    Raises GeometryError for values that fill a chunk in part.
    """
    whole = Box(start, tuple(a + n for a, n in zip(start, values.shape, strict=True)))
    for a, b, n, end in zip(whole.start, whole.stop, chunk, shape, strict=True):
        if a % n or (b % n and b != end):
            raise GeometryError(f"The voxels {whole} are no whole chunks {chunk} of a volume of the shape {shape}.")
    for part in blocks(whole, chunk):
        inside = values[part.relative_to(start).slices]
        if inside.any():
            full = np.zeros(chunk, values.dtype)
            full[Box.of_shape(part.shape).slices] = inside
            # All first bytes, then all second ones: those of labels are mostly equal.
            shuffled = full.reshape(-1, 1).view(np.uint8).T.tobytes()
            yield PackedChunk(part.start, chunk, zlib.compress(shuffled, GZIP_LEVEL))
