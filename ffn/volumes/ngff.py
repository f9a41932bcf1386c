"""What OME-NGFF metadata say about an image: its levels, axes and voxel size."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ffn.errors import VolumeError
from ffn.volumes.base import VoxelSize

METADATA = ("zarr.json", ".zarray", ".zgroup")
"""Files of which a zarr array or group has one, in its versions 2 and 3."""
_NANOMETRES = {"angstrom": 0.1, "nanometer": 1.0, "micrometer": 1e3, "millimeter": 1e6}


@dataclass(frozen=True)
class Multiscale:
    """The first image of a group: paths of its levels, finest first, and the scale of each along z, y, x in nm."""

    levels: dict[str, VoxelSize | None]

    @property
    def finest(self) -> str:
        return next(iter(self.levels))


def multiscale_of(attributes: Mapping[str, Any], uri: str) -> Multiscale | None:
    """Read versions 0.4 (`multiscales`) and 0.5 (`ome.multiscales`); None where the attributes have neither.

    Raises VolumeError where the spatial axes are not z, y, x in this order.
    """
    images = attributes.get("multiscales") or attributes.get("ome", {}).get("multiscales")
    if not images:
        return None
    image = images[0]
    axes = [axis if isinstance(axis, dict) else {"name": axis} for axis in image.get("axes", [])]
    names = [str(axis.get("name")) for axis in axes]
    if axes and names[-3:] != ["z", "y", "x"]:
        raise VolumeError(f"{uri} has the axes {','.join(names)}; expected z,y,x as the last three.")
    units = [_NANOMETRES.get(axis.get("unit", "nanometer")) for axis in axes[-3:]]
    shared = image.get("coordinateTransformations", [])
    levels = {}
    for level in image.get("datasets", []):
        transforms = [*level.get("coordinateTransformations", []), *shared]
        levels[str(level["path"]).strip("/")] = _size(transforms, units)
    if not levels:
        raise VolumeError(f"{uri} describes a multiscale image without datasets.")
    return Multiscale(levels)


def _size(transforms: list[Any], units: list[float | None]) -> VoxelSize | None:
    scales = [t["scale"][-3:] for t in transforms if t.get("type") == "scale" and len(t.get("scale", [])) >= 3]
    if not scales or len(units) != 3:
        return None
    nanometres = []
    for axis, unit in enumerate(units):
        if unit is None:
            return None
        size = unit
        for scale in scales:
            size *= float(scale[axis])
        nanometres.append(size)
    return nanometres[0], nanometres[1], nanometres[2]
