"""How far a job is."""

from types import SimpleNamespace

import numpy as np
import pytest

from ffn.inference.canvas import COUNTERS
from ffn.inference.tally import Tally, TileTally


class Steps:
    """A progress that remembers what it was told."""

    def __init__(self) -> None:
        self.done = 0

    def advance(self, count: int, note: str) -> None:
        self.done += count
        self.note = note


class Counted:
    """Labels of which half are taken; how many were looked at."""

    def __init__(self) -> None:
        self.looks = 0

    def __getitem__(self, places):
        self.looks = max(self.looks, len(places[0]))
        return (places[2] % 2).astype(np.uint32)


@pytest.mark.parametrize("count", [4, 1_000_000])
def test_seeds_inside_segments_count_as_settled_and_few_are_looked_at(count):
    labels, steps = Counted(), Steps()
    canvas = SimpleNamespace(counters=dict.fromkeys(COUNTERS, 0), labels=labels, next_seed=0)
    tally = TileTally(Tally(steps), canvas, 1000, 2)
    seeds = np.zeros((count, 3), np.int64)
    seeds[:, 2] = np.arange(count)
    tally.begin(0, seeds)
    canvas.counters.update(segments=1, fovs=7, voxels_segmented=90)
    tally.update()
    assert steps.done == pytest.approx(250, abs=1)  # half of the seeds of the first of two policies
    assert steps.note.endswith(" FOVs/s, 1 segments")
    assert labels.looks <= 10_000
    tally.begin(1, seeds)
    tally.finish()
    assert steps.done == 1000
