"""The one door to every volume format."""

import glob
from pathlib import Path

from ffn.errors import VolumeError
from ffn.geometry import Box
from ffn.volumes import hdf5, precomputed, stack
from ffn.volumes.base import Volume, VoxelSize
from ffn.volumes.convert import as_labels, as_uint8
from ffn.volumes.ngff import METADATA

FORMS = """expected one of
  file.h5:dataset                 HDF5, also file.h5.gz:dataset
  folder  or  'folder/*.png'      PNG or TIFF slices, or one TIFF of many pages
  store.zarr/path                 zarr
  precomputed://https://... or precomputed://file:///... or a folder with an info file"""


def open_volume(
    uri: str, *, box: Box | None = None, voxel_size: VoxelSize | None = None, channel: int | None = None
) -> Volume:
    """Open a volume of any supported format for reading.

    Args:
        uri: see `FORMS`. `file.h5.gz` with `stack` and `transforms` inside and no dataset named is read as
            uint64 bodies.
        box: only these voxels (zyx, counted from the volume's corner); the result then starts at 0,0,0.
        voxel_size: nanometres zyx, instead of what the data say.
        channel: one of several in an HDF5 dataset or zarr array c,z,y,x, counted from 0.

    Raises:
        VolumeError: what was found instead of a readable 3-D volume.
        GeometryError: the box reaches outside the volume.
    """
    volume = _open(uri, channel)
    if voxel_size is not None:
        volume.voxel_size = voxel_size
    return volume if box is None else volume.view(box)


def open_image(uri: str, *, box: Box | None = None, voxel_size: VoxelSize | None = None) -> Volume:
    """`open_volume`, with grey values as uint8: see `as_uint8` for what happens to other types."""
    return as_uint8(open_volume(uri, box=box, voxel_size=voxel_size))


def open_labels(uri: str, *, box: Box | None = None, voxel_size: VoxelSize | None = None) -> Volume:
    """`open_volume`, with labels as uint64: see `as_labels`."""
    return as_labels(open_volume(uri, box=box, voxel_size=voxel_size))


def _open(uri: str, channel: int | None) -> Volume:
    path = Path(uri)
    if hdf5.URI.fullmatch(uri) and "://" not in uri and not path.is_dir():
        return hdf5.open_hdf5(uri, channel)
    if "://" not in uri and _is_zarr(path):
        from ffn.volumes.zarr import open_zarr  # zarr takes a sixth of a second to load

        return open_zarr(uri, channel)
    if channel is not None:
        raise VolumeError(f"{uri}: channels can be read from HDF5 datasets and zarr arrays with the axes c,z,y,x only.")
    if uri.startswith(precomputed.SCHEME):
        return precomputed.open_precomputed(uri)
    if "://" in uri:
        raise VolumeError(f"'{uri}' is not a volume this workflow can read; {FORMS}.")
    if (path / "info").is_file():
        return precomputed.open_precomputed(uri)
    if path.is_dir() or glob.has_magic(uri) or path.suffix.lower() in stack.SUFFIXES:
        return stack.open_stack(uri)
    if path.exists():
        raise VolumeError(f"'{uri}' has no format this workflow can read; {FORMS}.")
    raise VolumeError(f"'{uri}' is not there, or is written in a form this workflow does not know; {FORMS}.")


def _is_zarr(path: Path) -> bool:
    return any(part.endswith(".zarr") for part in path.parts) or any((path / name).exists() for name in METADATA)
