"""Which chunks of a layer lie in one file, and which files one process writes together.

The chunks of a level are numbered along a Morton curve, and those whose numbers differ in the lowest bits only are one
file, a shard: a box of chunks, since each bit halves a box along one axis. Levels are made in tiers. A tier reads one
level, or the volume itself, and makes several levels from it in one go, while they are in memory: a unit of the tier is
a box of voxels that is one shard of the tier's first level, and whole shards of each of its other levels. Where boxes
of a level would be smaller than a chunk, the next tier begins.

Format: `neuroglancer_uint64_sharded_v1` of google/neuroglancer, volumes in "precomputed" format.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Any

import tensorstore as ts

from ffn.export.downsample import Level, source_box
from ffn.geometry import ZYX, Box, xyz_from_zyx

_EDGES = ((1 << 27, 256), (1 << 36, 512))
"""Up to this many voxels of a level a shard has as many voxels as a cube of this edge: few files, and enough units for
all processes."""
_LARGEST_EDGE = 1024
_MINISHARD_BITS = 9
"""Chunks in one index of a shard, as a power of two: a reader fetches a whole index before its first chunk."""
_MOST_FILES = 8
"""Shards of one level that a unit writes, at most: smaller ones would make too many files."""


@dataclass(frozen=True)
class Sharding:
    """The shards of one level.

    Attributes:
        bits: Lowest bits of a chunk's number that tell chunks of one shard apart.
        total: Bits of a chunk's number.
        box: Voxels of a shard, zyx.
    """

    bits: int
    total: int
    box: ZYX

    @property
    def specification(self) -> dict[str, Any]:
        """As `info` states it."""
        within = min(self.bits, _MINISHARD_BITS)
        return {
            "@type": "neuroglancer_uint64_sharded_v1",
            "hash": "identity",
            "preshift_bits": within,
            "minishard_bits": self.bits - within,
            "shard_bits": self.total - self.bits,
            "minishard_index_encoding": "gzip",
        }


@dataclass(frozen=True)
class Tier:
    """Levels that are made together.

    Attributes:
        levels: Their numbers, one behind the other.
        box: Voxels of a unit, counted in voxels of the first of them, zyx.
        whole: Axes zyx along which the one unit takes all there is.
        counts: Units along each axis, zyx.
    """

    levels: range
    box: ZYX
    whole: tuple[bool, bool, bool]
    counts: ZYX

    def __len__(self) -> int:
        return prod(self.counts)

    def place(self, unit: int) -> ZYX:
        """Of a unit on the grid of units, zyx."""
        _, rows, columns = self.counts
        return unit // (rows * columns), unit // columns % rows, unit % columns


@dataclass(frozen=True)
class Regions:
    """What a unit works on, by level; boxes on the levels' own grids.

    Attributes:
        written: Whole shards, cut at the level's border; levels of which the unit has none are missing.
        made: What is needed of each level for that and for the levels behind it.
    """

    written: dict[int, Box]
    made: dict[int, Box]


def tiers(pyramid: Sequence[Level], chunk: ZYX) -> tuple[list[Sharding], list[Tier]]:
    """How each level of a layer with these chunks is sharded, and the tiers in the order in which they are made."""
    shardings: list[Sharding] = []
    found: list[Tier] = []
    while len(shardings) < len(pyramid):
        first = len(shardings)
        shape = pyramid[first].box.shape
        edge = next((edge for most, edge in _EDGES if prod(shape) <= most), _LARGEST_EDGE)
        start = next(s for s in _candidates(shape, chunk) if prod(s.box) <= edge**3 or s.bits == 0)
        whole = (start.box[0] >= shape[0], start.box[1] >= shape[1], start.box[2] >= shape[2])
        shardings.append(start)
        while len(shardings) < len(pyramid):
            number = len(shardings)
            shape, scale = pyramid[number].box.shape, _scale(pyramid, first, number)
            fitting = (s for s in _candidates(shape, chunk) if _fits(s, shape, start.box, scale, whole))
            if (sharding := next(fitting, None)) is None:
                break
            shardings.append(sharding)
        made = range(first, len(shardings))
        found.append(Tier(made, start.box, whole, _counts(pyramid, made, start.box, whole)))
    return shardings, found


def regions(pyramid: Sequence[Level], tier: Tier, unit: int) -> Regions:
    """What a unit of a tier writes, and what it makes for that."""
    place = tier.place(unit)
    written: dict[int, Box] = {}
    made: dict[int, Box] = {}
    for number in reversed(tier.levels):
        level = pyramid[number]
        start, stop = list(level.box.start), list(level.box.stop)
        for axis, scale in enumerate(_scale(pyramid, tier.levels[0], number)):
            if not tier.whole[axis]:
                size = tier.box[axis] // scale
                start[axis] += place[axis] * size
                stop[axis] = min(start[axis] + size, stop[axis])
        parts = []
        if all(a < b for a, b in zip(start, stop, strict=True)):
            written[number] = Box(tuple(start), tuple(stop))  # type: ignore[arg-type]
            parts.append(written[number])
        if number + 1 in made:
            parts.append(source_box(made[number + 1], pyramid[number + 1].step, level.box))
        if parts:
            made[number] = _hull(parts)
    return Regions(written, made)


def files_of(level: Level, sharding: Sharding) -> int:
    """Shards of a level of which none is empty."""
    return prod(-(-n // size) for n, size in zip(level.box.shape, sharding.box, strict=True))


def chunk_number(place: ZYX, counts: ZYX) -> int:
    """The compressed Morton code of a chunk at this place of a grid with so many chunks, both zyx.

    Source: google/neuroglancer, "precomputed" volumes, compressed Morton code: one bit of x, y, z in turn from the
    lowest, without the bits that no place of the axis has.
    """
    number = bit = 0
    for power in range(max(counts).bit_length()):
        for index, count in zip(xyz_from_zyx(place), xyz_from_zyx(counts), strict=True):
            if 1 << power < count:
                number |= (int(index) >> power & 1) << bit
                bit += 1
    return number


def _counts(pyramid: Sequence[Level], made: range, box: ZYX, whole: tuple[bool, bool, bool]) -> ZYX:
    counts = [1, 1, 1]
    for number in made:
        for axis, scale in enumerate(_scale(pyramid, made[0], number)):
            if not whole[axis]:
                # A level that begins with a part of a voxel may have one voxel more, which lies in another shard.
                counts[axis] = max(counts[axis], -(-pyramid[number].box.shape[axis] * scale // box[axis]))
    return counts[0], counts[1], counts[2]


def _scale(pyramid: Sequence[Level], first: int, number: int) -> ZYX:
    """Voxels of the level `first` along an edge of a voxel of the level `number`, zyx."""
    z, y, x = (prod(level.step[axis] for level in pyramid[first + 1 : number + 1]) for axis in range(3))
    return z, y, x


def _fits(sharding: Sharding, shape: ZYX, unit: ZYX, scale: ZYX, whole: tuple[bool, bool, bool]) -> bool:
    """Whether units of this size hold whole shards of a level of this shape and scale, and not too many."""
    files = 1
    for n, extent, size, factor, single in zip(sharding.box, shape, unit, scale, whole, strict=True):
        if not single and size % (n * factor):
            return False
        files *= -(-extent // n) if single else size // (n * factor)
    return files <= _MOST_FILES


def _hull(boxes: Sequence[Box]) -> Box:
    start = tuple(min(values) for values in zip(*(box.start for box in boxes), strict=True))
    stop = tuple(max(values) for values in zip(*(box.stop for box in boxes), strict=True))
    return Box(start, stop)


def _candidates(shape: ZYX, chunk: ZYX) -> Iterator[Sharding]:
    """All ways to shard a level of this shape, the fewest files first."""
    total = sum((-(-n // size) - 1).bit_length() for n, size in zip(shape, chunk, strict=True))
    for bits in range(total, -1, -1):
        yield Sharding(bits, total, _shard_box(shape, chunk, bits, total))


@lru_cache(maxsize=1024)
def _shard_box(shape: ZYX, chunk: ZYX, bits: int, total: int) -> ZYX:
    """Voxels of a shard, zyx, as tensorstore says."""
    scale = {
        "size": xyz_from_zyx(shape),
        "chunk_size": xyz_from_zyx(chunk),
        "resolution": [1, 1, 1],
        "encoding": "raw",
        "sharding": {**Sharding(bits, total, chunk).specification, "data_encoding": "raw"},
    }
    spec = {
        "driver": "neuroglancer_precomputed",
        "kvstore": "memory://",
        "multiscale_metadata": {"type": "image", "data_type": "uint8", "num_channels": 1},
        "scale_metadata": scale,
    }
    layout = ts.open(spec, context=ts.Context(), create=True).result().chunk_layout
    x, y, z = (size or 1 for size in (layout.write_chunk.shape or ())[:3])
    return z, y, x
