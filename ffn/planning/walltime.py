"""Wall time of the job that makes the embedded volume: it grows with the voxels."""

from math import ceil, prod

from ffn.config import Config

_VOXELS_PER_S = 0.6e6
"""Measured with 128 x 512 x 512 voxels on two cores of a server."""
_MARGIN = 4
"""For slower cores and file systems."""
_START_MIN = 10
_STEP_MIN = 5


def synth_minutes(config: Config) -> int:
    """Minutes to ask for."""
    minutes = _START_MIN + _MARGIN * prod(config.synthetic.shape) / _VOXELS_PER_S / 60
    return ceil(minutes / _STEP_MIN) * _STEP_MIN
