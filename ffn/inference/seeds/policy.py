"""From the configuration to stages: one for each policy, in the order in which they are tried.

    inference.seed_policy: [PolicyPeaks, PolicyFillEmptySpace]

    stage 0: PolicyPeaks(view)           ─> seeds ─> flood fill ─┐
    stage 1: PolicyFillEmptySpace(view)  <─ labels so far <──────┘

A stage is a pure function, so what a run has to remember is the number of the stage, its seeds, and how many of them
were tried.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from ffn.config import Inference
from ffn.config.seeds import (
    PolicyDenseSeeds,
    PolicyFillEmptySpace,
    PolicyGrid2d,
    PolicyGrid3d,
    PolicyImagePeaks2DDisk,
    PolicyImagePeaks3D2D,
    PolicyInvertOrigins,
    PolicyMax,
    PolicyMaxPeaks,
    PolicyPeaks,
    PolicyPeaks2d,
    SeedSettings,
)
from ffn.inference.seeds.everywhere import bright, brightest_first, grid_2d, grid_3d
from ffn.inference.seeds.maxima import (
    bright_peaks,
    empty_space,
    far_from_edges,
    far_from_edges_2d,
    image_peaks_3d_2d,
    image_peaks_disk,
)
from ffn.inference.seeds.origins import inverted_origins
from ffn.inference.seeds.view import Seeds, SeedView
from ffn.prepare.seeds import with_room

Stage = Callable[[SeedView], Seeds]

_FINDERS: dict[type[SeedSettings], Callable[[SeedView, Any], Seeds]] = {
    PolicyPeaks: far_from_edges,
    PolicyPeaks2d: far_from_edges_2d,
    PolicyFillEmptySpace: empty_space,
    PolicyMax: brightest_first,
    PolicyMaxPeaks: bright_peaks,
    PolicyImagePeaks3D2D: image_peaks_3d_2d,
    PolicyImagePeaks2DDisk: image_peaks_disk,
    PolicyGrid3d: grid_3d,
    PolicyGrid2d: grid_2d,
    PolicyInvertOrigins: inverted_origins,
    PolicyDenseSeeds: bright,
}


@dataclass(frozen=True)
class SeedPolicy:
    """Stages that each list seeds, when the stages before are finished."""

    stages: tuple[Stage, ...]


def seed_policy(settings: Inference) -> SeedPolicy:
    """The policy of `inference.seed_policy`; `inference.reverse_seeds` turns the order within each stage around."""
    return SeedPolicy(tuple(partial(_seeds, policy, settings.reverse_seeds) for policy in settings.seed_policy))


def _seeds(settings: SeedSettings, reverse: bool, view: SeedView) -> Seeds:
    """Seeds of one policy, without those that would be refused at once: too near a face, taken or excluded."""
    found = with_room(_FINDERS[type(settings)](view, settings), view.fov, view.image.shape)
    found = found[~view.refused[tuple(found.T)]]
    return found[::-1].copy() if settings.reverse != reverse else found
