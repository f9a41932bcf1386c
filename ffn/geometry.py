"""Boxes and tilings in voxels. Everything is z,y,x; `xyz` in a name marks the only places where it is not."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

from ffn.errors import GeometryError

ZYX = tuple[int, int, int]


def parse_zyx(text: str) -> ZYX:
    """Three non-negative integers written `24,24,24`, in the order z,y,x."""
    parts = text.split(",")
    if len(parts) != 3 or not all(re.fullmatch(r"\s*\d+\s*", part) for part in parts):
        raise GeometryError(f"'{text}' is not three whole numbers Z,Y,X such as 24,24,24.")
    z, y, x = (int(part) for part in parts)
    return z, y, x


def xyz_from_zyx(values: Sequence[float]) -> list[float]:
    """Reverse a z,y,x triple for the formats that want x,y,z."""
    return list(reversed(values))


@dataclass(frozen=True, order=True)
class Box:
    """A half-open box of voxels: `start` is inside, `stop` is outside. Both zyx."""

    start: ZYX
    stop: ZYX

    def __post_init__(self) -> None:
        if any(b <= a for a, b in zip(self.start, self.stop, strict=True)):
            raise GeometryError(f"Box {self} is empty: each stop must be greater than its start.")

    def __str__(self) -> str:
        return ",".join(f"{a}:{b}" for a, b in zip(self.start, self.stop, strict=True))

    @classmethod
    def parse(cls, text: str) -> "Box":
        """Read `Z0:Z1,Y0:Y1,X0:X1`."""
        match = re.fullmatch(r"\s*(\d+):(\d+)\s*,\s*(\d+):(\d+)\s*,\s*(\d+):(\d+)\s*", text)
        if match is None:
            raise GeometryError(f"'{text}' is not a box Z0:Z1,Y0:Y1,X0:X1 such as 0:40,0:48,170:250.")
        n = [int(group) for group in match.groups()]
        return cls((n[0], n[2], n[4]), (n[1], n[3], n[5]))

    @classmethod
    def of_shape(cls, shape: Sequence[int]) -> "Box":
        """The box from the origin with the given zyx shape."""
        return cls((0, 0, 0), (int(shape[0]), int(shape[1]), int(shape[2])))

    @classmethod
    def centred(cls, centre: Sequence[int], size: Sequence[int]) -> "Box":
        """The box of odd `size` whose middle voxel is `centre`."""
        start = tuple(c - s // 2 for c, s in zip(centre, size, strict=True))
        return cls(start, tuple(a + s for a, s in zip(start, size, strict=True)))  # type: ignore[arg-type]

    @property
    def shape(self) -> ZYX:
        return tuple(b - a for a, b in zip(self.start, self.stop, strict=True))  # type: ignore[return-value]

    @property
    def voxels(self) -> int:
        z, y, x = self.shape
        return z * y * x

    @property
    def slices(self) -> tuple[slice, slice, slice]:
        z, y, x = (slice(a, b) for a, b in zip(self.start, self.stop, strict=True))
        return z, y, x

    def shifted(self, offset: Sequence[int]) -> "Box":
        """The same box moved by `offset` (zyx)."""
        return Box(
            tuple(a + o for a, o in zip(self.start, offset, strict=True)),  # type: ignore[arg-type]
            tuple(b + o for b, o in zip(self.stop, offset, strict=True)),  # type: ignore[arg-type]
        )

    def relative_to(self, origin: Sequence[int]) -> "Box":
        """The same voxels counted from `origin` (zyx)."""
        return self.shifted([-o for o in origin])

    def contains(self, other: "Box") -> bool:
        """Whether `other` lies wholly inside this box."""
        starts = all(a <= c for a, c in zip(self.start, other.start, strict=True))
        return starts and all(d <= b for b, d in zip(self.stop, other.stop, strict=True))

    def intersection(self, other: "Box") -> "Box | None":
        """The common voxels, or None where there are none."""
        start = tuple(max(a, c) for a, c in zip(self.start, other.start, strict=True))
        stop = tuple(min(b, d) for b, d in zip(self.stop, other.stop, strict=True))
        if any(b <= a for a, b in zip(start, stop, strict=True)):
            return None
        return Box(start, stop)  # type: ignore[arg-type]

    def widened(self, rim: Sequence[int], limits: "Box") -> "Box":
        """The box and `rim` voxels (zyx) more at each face, without what lies outside `limits`, in which the box is."""
        start = tuple(max(a - r, c) for a, r, c in zip(self.start, rim, limits.start, strict=True))
        stop = tuple(min(b + r, d) for b, r, d in zip(self.stop, rim, limits.stop, strict=True))
        return Box(start, stop)  # type: ignore[arg-type]


def _starts(start: int, stop: int, size: int, overlap: int) -> list[int]:
    if stop - start <= size:
        return [start]
    stride = size - overlap
    starts = list(range(start, stop - overlap, stride))
    return [min(s, stop - size) for s in starts]


def overlapping_tiles(box: Box, size: ZYX, overlap: ZYX) -> list[Box]:
    """Cut `box` into tiles of `size` that share at least `overlap` voxels with their neighbours, z slowest.

    A last tile that would stick out is moved back so that every tile has the full size (or the whole
    extent of the box where that is smaller). Raises GeometryError if a tile has no voxel of its own.
    """
    for axis, s, o in zip("zyx", size, overlap, strict=True):
        if o >= s:
            raise GeometryError(f"Overlap {o} along {axis} must be smaller than the sub-volume's size {s}.")
    per_axis = [_starts(a, b, s, o) for a, b, s, o in zip(box.start, box.stop, size, overlap, strict=True)]
    tiles = []
    for start in product(*per_axis):
        stop = tuple(min(a + s, b) for a, s, b in zip(start, size, box.stop, strict=True))
        tiles.append(Box(start, stop))  # type: ignore[arg-type]
    return tiles


def blocks(box: Box, size: ZYX) -> Iterator[Box]:
    """Cut `box` along a grid of `size` anchored at zero: each block is whole grid cells, clipped by the box."""
    grids = [range(a // s, -(-b // s)) for a, b, s in zip(box.start, box.stop, size, strict=True)]
    for index in product(*grids):
        start = tuple(i * s for i, s in zip(index, size, strict=True))
        stop = tuple(a + s for a, s in zip(start, size, strict=True))
        block = box.intersection(Box(start, stop))  # type: ignore[arg-type]
        if block is not None:
            yield block
