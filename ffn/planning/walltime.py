"""Wall time of jobs that look at a volume once: it grows with the voxels."""

from collections.abc import Sequence
from math import ceil, prod
from typing import Literal

from ffn.config import Config, Region
from ffn.planning.extent import region_shape

Stage = Literal["synth", "prepare", "evaluate"]

_VOXELS_PER_S: dict[Stage, float] = {"synth": 0.6e6, "prepare": 2e6, "evaluate": 40e6}
"""Measured with 128 x 512 x 512 voxels of the embedded volume and two cores of a server."""
_MARGIN = 4
"""For slower cores and file systems."""
_START_MIN = 10
_STEP_MIN = 5
UNKNOWN_MIN = 45
"""Where the size of the volume is not known yet."""


def stage_minutes(config: Config, stage: Stage) -> int:
    """Minutes to ask for, of a job of this stage."""
    voxels = _voxels(config, stage)
    if voxels is None:
        return UNKNOWN_MIN
    minutes = _START_MIN + _MARGIN * voxels / _VOXELS_PER_S[stage] / 60
    return ceil(minutes / _STEP_MIN) * _STEP_MIN


def _voxels(config: Config, stage: Stage) -> int | None:
    if stage == "synth":
        return prod(config.synthetic.shape)
    regions: Sequence[Region] = list(config.data.labelled.values()) if stage == "prepare" else [config.data.test]
    shapes = [region_shape(config, region) for region in regions]
    return sum(prod(shape) for shape in shapes if shape is not None) if None not in shapes else None
