"""Flood filling: objects grown one after another from seeds by moving the field of view (Januszewski et al. 2018).

One object (`_grow`):

    pop a position -> crop image and object map -> network -> hold down rejected voxels -> write back -> queue moves

A flood fill is a generator: it yields what the network shall look at and is sent the answer. So it knows nothing of
batches, devices and other sub-volumes (`ffn.inference.drive`), and whenever it waits, its state can be saved.

The object map of the current object is a float32 canvas of logits, NaN where nothing has been predicted. When the
object is finished, what reaches the segment threshold and is still free becomes a segment; only the box that was
visited is read and wiped, so the cost of a seed does not depend on the size of the sub-volume. (The reference also
marks seeds that failed; nothing ever reads that mark, so there is none here.)

Where network voxels are larger than the image's, `fine` keeps the labels of these as well.
"""

import math
from collections import Counter
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ffn.geometry import ZYX
from ffn.inference.fine import FineLabels
from ffn.inference.joining import Overlaps, part_of
from ffn.inference.movement import FaceMaxMovement, Movement, UnseenMovement
from ffn.inference.options import FloodOptions
from ffn.inference.probability import quantised


class Look(NamedTuple):
    """What the network shall evaluate: float32 [z, y, x] of the field of view. Both change after the answer."""

    image: NDArray[np.float32]
    object_map: NDArray[np.float32]


Flood = Generator[Look, NDArray[np.float32], None]
"""Yields a look, is sent the updated map for it: float32 [z, y, x], an array that may be written to."""

COUNTERS = (
    "seeds",
    "seeds_too_close",
    "objects_started",
    "objects_weak",
    "objects_small",
    "segments",
    "fovs",
    "seed_got_too_weak",
    "skip_threshold",
    "skip_invalid_pos",
    "skip_restricted_pos",
    "voxels_segmented",
    "voxels_overlapping",
)
"""What is counted. `objects_weak` were lost at the seed, `objects_small` below the minimum size; `seed_got_too_weak`
stopped with moves left; `skip_*` are positions refused for their map value, for lack of room or another segment, or by
a mask."""


@dataclass(frozen=True)
class Segment:
    """One finished object: its origin (z,y,x relative to the sub-volume), work and size."""

    id: int
    seed: ZYX
    fovs: int
    voxels: int
    overlaps: Overlaps
    """(id, voxels) of earlier segments that the object reached into; those voxels stayed theirs."""


@dataclass
class Growth:
    """The object that is being grown: visited centres lie within low..high (both inclusive)."""

    seed: ZYX
    movement: Movement
    low: ZYX
    high: ZYX
    fovs: int = 0
    looking_at: ZYX | None = None
    """Where the network has been asked and not yet answered."""


@dataclass
class Canvas:
    """A sub-volume being segmented.

    Args:
        image: float32 [z, y, x], normalised grey values.
        options: Levels and sizes.
        fine: Labels in image voxels; None where these are the network's voxels.
        no_move: bool [z, y, x], where no field of view may be centred; None = everywhere it may.
        no_seed: bool [z, y, x], where no object may start either.
        given: Segments that are there from the beginning, which the caller puts into `labels` as 1 to `given`.
        probability: uint8 [z, y, x] that takes the quantised map of each segment's voxels; None = not wanted.
    """

    image: NDArray[np.float32]
    options: FloodOptions
    fine: FineLabels | None = None
    no_move: NDArray[np.bool_] | None = None
    no_seed: NDArray[np.bool_] | None = None
    given: int = 0
    probability: NDArray[np.uint8] | None = None
    counters: Counter[str] = field(default_factory=lambda: Counter(dict.fromkeys(COUNTERS, 0)))
    segments: list[Segment] = field(default_factory=list)
    next_seed: int = 0
    growth: Growth | None = None

    def __post_init__(self) -> None:
        self.labels = np.zeros(self.image.shape, np.uint32)
        self.object_map = np.full(self.image.shape, np.nan, np.float32)
        fov = self.options.fov
        self._shown = np.empty(fov, np.float32)
        self._mask, self._other_mask = np.empty(fov, np.bool_), np.empty(fov, np.bool_)

    def segment_all(self, seeds: NDArray[np.int64]) -> Flood:
        """Grow an object from each seed in turn, continuing at `next_seed` and `growth` where a saved state stopped.

        Args:
            seeds: int [n, 3], z,y,x.
        """
        while self.next_seed < len(seeds):
            if self.growth is None:
                z, y, x = (int(n) for n in seeds[self.next_seed])
                self.growth = self._start((z, y, x))
            if self.growth is not None:
                yield from self._grow(self.growth)
                self._keep_or_reject(self.growth)
                self._wipe(self.growth)
                self.growth = None
            self.next_seed += 1

    def follow(self, seed: ZYX) -> Flood:
        """Grow one object and leave its map, within `growth`; that stays None where the seed is refused."""
        self.growth = self._start(seed)
        if self.growth is not None:
            yield from self._grow(self.growth)

    def finished_labels(self) -> NDArray[np.uint32]:
        """uint32 [z, y, x] in image voxels: ids from 1 in order of creation, 0 elsewhere."""
        return self.labels if self.fine is None else self.fine.labels

    def box_around(self, low: ZYX, high: ZYX) -> tuple[slice, slice, slice]:
        """All voxels seen by fields of view centred within low..high."""
        z, y, x = (slice(a - r, b + r + 1) for a, b, r in zip(low, high, self.options.reach, strict=True))
        return z, y, x

    def _start(self, seed: ZYX) -> Growth | None:
        self.counters["seeds"] += 1
        if not self._has_room(seed) or self._is_restricted(seed, self.no_move, self.no_seed):
            return None
        near = tuple(slice(max(p - d, 0), p + d + 1) for p, d in zip(seed, self.options.min_boundary_dist, strict=True))
        if self.labels[near].any():
            self.counters["seeds_too_close"] += 1
            return None
        self.counters["objects_started"] += 1
        self.object_map[seed] = self.options.init
        return Growth(seed, self.movement(seed), low=seed, high=seed)

    def movement(self, seed: ZYX) -> Movement:
        """How the object of a seed will be followed: the reference's way, or only where enough is unseen."""
        chosen = self.options
        if chosen.min_unseen == 0:
            return FaceMaxMovement(seed, chosen.deltas, chosen.move)
        return UnseenMovement(seed, chosen.deltas, chosen.move, self._unseen, self._least, chosen.offers_compared)

    def _unseen(self, position: ZYX) -> int:
        """Voxels of the field of view that have not been predicted; offers beyond the faces count those inside."""
        low = tuple(max(p - r, 0) for p, r in zip(position, self.options.reach, strict=True))
        high = tuple(p + r + 1 for p, r in zip(position, self.options.reach, strict=True))
        around = self.object_map[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
        return int(np.count_nonzero(np.isnan(around)))

    def _least(self, position: ZYX) -> int:
        """What has to be unseen; less where no later field of view could come from beyond."""
        chosen = self.options
        places = zip(position, self.image.shape, chosen.reach, chosen.deltas, strict=True)
        at_face = any(p - r < d or n - r - 1 - p < d for p, n, r, d in places)
        share = chosen.min_unseen_at_faces if at_face else chosen.min_unseen
        return math.ceil(share * math.prod(chosen.fov))

    def _has_room(self, position: ZYX) -> bool:
        fits = all(r <= p < n - r for p, n, r in zip(position, self.image.shape, self.options.reach, strict=True))
        if fits and self.labels[position] == 0:
            return True
        self.counters["skip_invalid_pos"] += 1
        return False

    def _may_visit(self, position: ZYX) -> bool:
        # The map may have changed since the move was queued.
        if self.object_map[position] >= self.options.move:
            return self._has_room(position) and not self._is_restricted(position, self.no_move)
        self.counters["skip_threshold"] += 1
        return False

    def _is_restricted(self, position: ZYX, *masks: NDArray[np.bool_] | None) -> bool:
        restricted = any(mask is not None and mask[position] for mask in masks)
        self.counters["skip_restricted_pos"] += restricted
        return restricted

    def _grow(self, growth: Growth) -> Flood:
        while (position := growth.movement.pop(self._may_visit)) is not None:
            if not self.object_map[growth.seed] >= self.options.move:
                self.counters["seed_got_too_weak"] += 1
                return
            growth.looking_at = position
            before = self.object_map[self.box_around(position, position)]
            after = yield self._look(position, before)
            self._update(before, after)
            growth.looking_at = None
            growth.movement.push(after, position)
            growth.low = _each(min, growth.low, position)
            growth.high = _each(max, growth.high, position)
            growth.fovs += 1
            self.counters["fovs"] += 1

    def _look(self, position: ZYX, before: NDArray[np.float32]) -> Look:
        shown, unseen = self._shown, self._mask
        np.copyto(shown, before)
        np.isnan(shown, out=unseen)
        np.copyto(shown, self.options.pad, where=unseen)
        return Look(self.image[self.box_around(position, position)], shown)

    def _update(self, before: NDArray[np.float32], after: NDArray[np.float32]) -> None:
        """Write a prediction into the object map, of which `before` is a view; both then hold the same."""
        if self.options.disco >= 0:
            reached = np.greater_equal(after, self.options.move, out=self._mask)
            if np.count_nonzero(reached) / reached.size > self.options.disco:
                self._hold_down(before, after)
        before[...] = after

    def _hold_down(self, before: NDArray[np.float32], after: NDArray[np.float32]) -> None:
        """Undo increases of voxels that had been predicted (not NaN) as outside, so objects rather split than merge."""
        risen, outside = self._mask, self._other_mask
        np.less(before, 0, out=outside)
        np.greater(after, before, out=risen)
        np.logical_and(risen, outside, out=risen)
        np.copyto(after, before, where=risen)

    def _keep_or_reject(self, growth: Growth) -> None:
        if growth.fovs == 0 or not self.object_map[growth.seed] >= self.options.move:
            self.counters["objects_weak"] += 1
            return
        box = self.box_around(growth.low, growth.high)
        labels = self.labels[box]
        reached = self.object_map[box] >= self.options.segment
        free = reached & (labels == 0)
        voxels = int(np.count_nonzero(free))
        ids, counts = np.unique(labels[reached & (labels != 0)], return_counts=True)
        overlaps = tuple(zip(ids.tolist(), counts.tolist(), strict=True))
        # What an earlier object lacks may be small, if only the object that found it is not.
        joins = part_of(overlaps, voxels, self.options.join_share, self.given) is not None
        if (np.count_nonzero(reached) if joins else voxels) < self.options.min_segment_size:
            self.counters["objects_small"] += 1
            return
        segment = Segment(self.given + len(self.segments) + 1, growth.seed, growth.fovs, voxels, overlaps)
        labels[free] = segment.id
        if self.probability is not None:
            self.probability[box][free] = quantised(self.object_map[box][free])
        if self.fine is not None:
            self.fine.claim(segment.id, box, self.object_map[box])
        self.segments.append(segment)
        self.counters["segments"] += 1
        self.counters["voxels_segmented"] += voxels
        self.counters["voxels_overlapping"] += int(counts.sum())

    def _wipe(self, growth: Growth) -> None:
        self.object_map[self.box_around(growth.low, growth.high)] = np.nan


def _each(choose: Callable[[int, int], int], a: ZYX, b: ZYX) -> ZYX:
    return choose(a[0], b[0]), choose(a[1], b[1]), choose(a[2], b[2])
