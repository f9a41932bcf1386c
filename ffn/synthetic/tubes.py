"""Tubular cells: branching random centre lines that avoid each other, painted as chains of balls."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ffn.synthetic.fields import VoxelSize

_SMALLEST_FRACTION = 0.4
_CANDIDATES = 10
_TURN = 0.35
_BRANCHING_PER_STEP = 0.012
_MOST_BRANCHES = 3


@dataclass
class _Tip:
    """A growing end; position and radius in nm, zyx."""

    position: NDArray[np.float64]
    heading: NDArray[np.float64]
    radius: float


class TubePainter:
    """Grows one cell after the other into the free voxels (0) of `labels`, int32 [z, y, x]."""

    def __init__(self, labels: NDArray[np.int32], voxel_size: VoxelSize, random: np.random.Generator) -> None:
        self._labels = labels
        self._step = np.array(voxel_size)
        self._extent = np.array(labels.shape) * self._step
        self._random = random
        self._ball = self._unit_ball(80)

    def grow(self, label: int, radius_nm: float) -> None:
        """Grow a cell through the volume, with varicosities and branches, until it leaves or finds no room."""
        start = self._roomy_point(radius_nm)
        heading = self._direction()
        tips = [_Tip(start, heading, radius_nm), _Tip(start, -heading, radius_nm)]
        branches = 0
        while tips:
            tip = tips.pop()
            phase, swelling = self._random.uniform(0, 2 * np.pi), self._random.uniform(0.1, 0.35)
            wavelength = self._random.uniform(8, 16) * radius_nm
            travelled = 0.0
            while self._advance(tip, label, smallest=_SMALLEST_FRACTION * radius_nm):
                travelled += self._stride(tip)
                self._paint(
                    tip.position,
                    tip.radius * (1 + swelling * np.sin(phase + travelled / wavelength * 2 * np.pi)),
                    label,
                )
                if branches < _MOST_BRANCHES and self._random.random() < _BRANCHING_PER_STEP:
                    branches += 1
                    aside = _unit(tip.heading + 1.2 * self._direction())
                    tips.append(_Tip(tip.position.copy(), aside, tip.radius * self._random.uniform(0.6, 0.9)))

    def _advance(self, tip: _Tip, label: int, smallest: float) -> bool:
        """Move the tip one stride on, towards free space; False when it has left or is walled in."""
        while True:
            turns = self._random.standard_normal((_CANDIDATES, 3)) * _TURN
            turns[0] = 0
            headings = _unit(tip.heading + turns)
            probes = tip.position + headings * (1.6 * tip.radius)
            room = self._room(probes, 1.1 * tip.radius, label)
            straight = headings @ tip.heading
            best = int(np.argmax(room + 0.3 * straight))
            if room[best] > 0.8:
                break
            tip.radius *= 0.85
            if tip.radius < smallest:
                return False
        tip.heading = headings[best]
        tip.position = tip.position + tip.heading * self._stride(tip)
        outside = np.maximum(-tip.position, tip.position - self._extent).max()
        return bool(outside < tip.radius)

    def _stride(self, tip: _Tip) -> float:
        """Half a radius, but no less than half a voxel: smaller steps would only cost time."""
        return max(tip.radius, float(self._step.min())) / 2

    def _room(self, centres: NDArray[np.float64], radius: float, label: int) -> NDArray[np.float64]:
        """Fraction of the ball around each centre that is free or the cell's own; outside of the volume is free."""
        points = np.floor((centres[:, None] + self._ball * radius) / self._step).astype(int)
        inside = ((points >= 0) & (points < self._labels.shape)).all(axis=-1)
        z, y, x = np.moveaxis(np.where(inside[..., None], points, 0), -1, 0)
        there = self._labels[z, y, x]
        return ((there == 0) | (there == label) | ~inside).mean(axis=1)

    def _roomy_point(self, radius: float) -> NDArray[np.float64]:
        candidates = self._random.uniform(0, self._extent, (64, 3))
        return candidates[int(np.argmax(self._room(candidates, 1.5 * radius, -1)))]

    def _paint(self, centre: NDArray[np.float64], radius: float, label: int) -> None:
        low = np.clip(np.floor((centre - radius) / self._step).astype(int), 0, None)
        high = np.minimum(np.ceil((centre + radius) / self._step).astype(int) + 1, self._labels.shape)
        if (high <= low).any():
            return
        z, y, x = (
            ((np.arange(a, b) + 0.5) * step - c) ** 2
            for a, b, step, c in zip(low, high, self._step, centre, strict=True)
        )
        window = self._labels[low[0] : high[0], low[1] : high[1], low[2] : high[2]]
        window[(z[:, None, None] + y[:, None] + x <= radius**2) & (window == 0)] = label

    def _direction(self) -> NDArray[np.float64]:
        return _unit(self._random.standard_normal(3))

    def _unit_ball(self, count: int) -> NDArray[np.float64]:
        radii = self._random.uniform(0, 1, (count, 1)) ** (1 / 3)
        return _unit(self._random.standard_normal((count, 3))) * radii


def _unit(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
