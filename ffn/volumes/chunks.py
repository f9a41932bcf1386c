"""Chunks: what is stored and compressed together."""

from collections.abc import Sequence

from ffn.geometry import ZYX

_LARGEST = 64


def chunk_within(chunk: ZYX, shape: Sequence[int]) -> ZYX:
    """The chunk of a volume of this shape: no larger than the volume itself."""
    z, y, x = (min(c, n) for c, n in zip(chunk, shape, strict=True))
    return z, y, x


def chunk_dividing(block: ZYX) -> ZYX:
    """The largest chunk up to 64 voxels an axis of which blocks of a volume of this shape are made up: so each is
    written once and whole."""
    z, y, x = (max(n for n in range(1, min(size, _LARGEST) + 1) if size % n == 0) for size in block)
    return z, y, x
