"""A box cut into the blocks that units work on."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod

from ffn.geometry import ZYX, Box


@dataclass(frozen=True)
class Grid(Sequence[Box]):
    """The blocks of a box, z slowest, by number; nothing is held but the two sizes.

    Attributes:
        box: Voxels to cut, zyx.
        block: Voxels of a block, zyx, counted from the corner of the box; the last ones of an axis may be smaller.
    """

    box: Box
    block: ZYX

    @property
    def counts(self) -> ZYX:
        """Blocks along each axis, zyx."""
        z, y, x = (-(-n // size) for n, size in zip(self.box.shape, self.block, strict=True))
        return z, y, x

    def __len__(self) -> int:
        return prod(self.counts)

    def __iter__(self) -> Iterator[Box]:
        return (self[number] for number in range(len(self)))

    def __getitem__(self, number: int) -> Box:  # type: ignore[override]  # no slices
        if not 0 <= number < len(self):
            raise IndexError(f"block {number} of {len(self)}")
        _, rows, columns = self.counts
        place = (number // (rows * columns), number // columns % rows, number % columns)
        start = tuple(a + i * n for a, i, n in zip(self.box.start, place, self.block, strict=True))
        stop = tuple(min(a + n, end) for a, n, end in zip(start, self.block, self.box.stop, strict=True))
        return Box(start, stop)  # type: ignore[arg-type]

    def meeting(self, box: Box) -> Iterator[tuple[int, Box]]:
        """The blocks that share voxels with `box`: their numbers, and these voxels."""
        sides = zip(box.start, box.stop, self.box.start, self.block, self.counts, strict=True)
        ranges = (range(max((a - o) // n, 0), min((b - 1 - o) // n + 1, most)) for a, b, o, n, most in sides)
        for z, y, x in product(*ranges):
            shared = self[number := self.number((z, y, x))].intersection(box)
            if shared is not None:
                yield number, shared

    def number(self, place: ZYX) -> int:
        """The number of the block at this place of the grid, zyx counted in blocks."""
        _, rows, columns = self.counts
        return (place[0] * rows + place[1]) * columns + place[2]


def part_of(count: int, part: int, parts: int) -> range:
    """The units of one of `parts` jobs: contiguous, equally many but for one, in all of them each unit once."""
    return range(count * part // parts, count * (part + 1) // parts)
