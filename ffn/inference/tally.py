"""How far a job is: its sub-volumes may be filled side by side, but there is one line of progress."""

import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ffn.inference.canvas import Canvas
from ffn.progress import Progress

_SAMPLE = 10_000
"""Seeds looked at after each segment: some policies list every voxel."""


@dataclass(frozen=True)
class Throughput:
    """What a process reached.

    Attributes:
        tiles: Sub-volumes that it filled.
        concurrent: Most of them that were filled side by side.
        fovs: Fields of view that it evaluated.
        seconds: From the first image to the last marker, without the loading of the network.
    """

    tiles: int
    concurrent: int
    fovs: int
    seconds: float


class Tally:
    """Voxels settled and fields of view evaluated in all sub-volumes of a job, and how many of these were finished."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._began = time.monotonic()
        self.fovs = self.segments = self.tiles = 0

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return max(time.monotonic() - self._began, 1e-9)

    @property
    def fovs_per_s(self) -> float:
        return self.fovs / self.seconds

    def expect(self, voxels: int) -> None:
        """There are so many voxels more to do than was thought, or fewer."""
        self._progress.expect(voxels)

    def settle(self, voxels: int) -> None:
        """Show progress; `voxels` need no more work since the last call."""
        note = f"{self.fovs_per_s:.1f} FOVs/s, {self.segments} segments"
        self._progress.advance(voxels, note)


class TileTally:
    """What one sub-volume adds to the tally of its job.

    Args:
        job: The tally of the job.
        canvas: The flood fill.
        voxels: Of the sub-volume.
        stages: Seed policies, each of which counts for as many voxels.
    """

    def __init__(self, job: Tally, canvas: Canvas, voxels: int, stages: int) -> None:
        self._job, self._canvas = job, canvas
        self._whole, self._stages, self._settled = voxels, stages, 0
        self._fovs = canvas.counters["fovs"]
        self._segments = 0
        self._stage, self._seeds = 0, np.empty((0, 3), np.int64)

    def begin(self, stage: int, seeds: NDArray[np.int64]) -> None:
        """The seeds of a policy come next."""
        self._stage, self._seeds = stage, seeds

    def update(self) -> None:
        """Count what has changed since the last call."""
        counters, job = self._canvas.counters, self._job
        job.fovs += counters["fovs"] - self._fovs
        self._fovs = counters["fovs"]
        settled = self._settled
        if counters["segments"] != self._segments:
            job.segments += counters["segments"] - self._segments
            self._segments = counters["segments"]
            settled = int((self._stage + self._share()) / self._stages * self._whole)
        job.settle(settled - self._settled)
        self._settled = settled

    def finish(self) -> None:
        """Count the rest: the sub-volume is done."""
        self.update()
        self._job.settle(self._whole - self._settled)
        self._settled = self._whole

    def _share(self) -> float:
        """Of the policy's seeds, those that need no more work: tried, or inside a segment (by a sample of them)."""
        tried, ahead = self._canvas.next_seed, self._seeds[self._canvas.next_seed :]
        sample = ahead[:: len(ahead) // _SAMPLE + 1]
        covered = np.count_nonzero(self._canvas.labels[tuple(sample.T)]) / max(len(sample), 1) * len(ahead)
        return (tried + covered) / max(len(self._seeds), 1)
