"""Voxel size and place of a volume, as the attributes of a file state them."""

import operator
from collections.abc import Mapping
from typing import Any

import numpy as np

from ffn.geometry import ZYX
from ffn.volumes.base import VoxelSize

# All zyx. `resolution` is CREMI's and N5's name, `element_size_um` that of ilastik and Fiji.
_NANOMETRES_PER_UNIT = {
    "voxel_size_nm": 1.0,
    "voxel_size_nm_zyx": 1.0,
    "resolution": 1.0,
    "voxel_size": 1.0,
    "element_size_um": 1000.0,
}


def voxel_size_of(*attributes: Mapping[str, Any]) -> VoxelSize | None:
    """Nanometres zyx from the first attribute set that states a usable one, or None.

    A single number means cubes. Values that are not one or three positive numbers are passed over, because other
    programs use some of these names for other things.
    """
    for attrs in attributes:
        for name, unit in _NANOMETRES_PER_UNIT.items():
            found = _three_positive(attrs.get(name))
            if found is not None:
                return found[0] * unit, found[1] * unit, found[2] * unit
    return None


def offset_of(attributes: Mapping[str, Any]) -> ZYX:
    """Voxel (zyx) of the source volume at which a volume begins, `offset_zyx`; zeros where that is not stated."""
    try:
        z, y, x = (operator.index(n) for n in attributes["offset_zyx"])
    except (KeyError, TypeError, ValueError):
        return 0, 0, 0
    return z, y, x


def _three_positive(value: Any) -> VoxelSize | None:
    try:
        numbers = np.atleast_1d(np.asarray(value, dtype=np.float64))
    except (TypeError, ValueError):
        return None
    if numbers.shape not in ((1,), (3,)) or not np.all(np.isfinite(numbers)) or np.any(numbers <= 0):
        return None
    z, y, x = (float(n) for n in np.broadcast_to(numbers, 3))
    return z, y, x
