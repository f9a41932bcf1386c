"""Zarr arrays, `x.zarr[/path]`, format 2 and 3, with OME-NGFF voxel sizes."""

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import tensorstore
import zarr

from ffn.errors import VolumeError
from ffn.geometry import Box
from ffn.volumes.base import Volume, VoxelSize, leading_index
from ffn.volumes.ngff import METADATA, Multiscale, multiscale_of
from ffn.volumes.store import in_words, tensorstore_context
from ffn.volumes.voxelsize import offset_of, voxel_size_of


def open_zarr(uri: str, channel: int | None = None) -> Volume:
    """Open an array, or the finest level of an OME-NGFF image. The path may go on inside the store.

    With a channel, that one of an array c,z,y,x.
    """
    path = Path(uri)
    if not path.exists():
        raise VolumeError(_missing(uri, path))
    try:
        node = zarr.open(path, mode="r")
    except (OSError, ValueError, KeyError) as error:
        raise VolumeError(f"{uri} is not a readable zarr array or group ({error}).") from error
    if isinstance(node, zarr.Array):
        parents = _parent_groups(path)
        return ZarrVolume(uri, node, _voxel_size(node, path, parents), channel)
    image = multiscale_of(node.attrs, uri)
    if image is not None:
        return open_zarr(f"{uri.rstrip('/')}/{image.finest}", channel)
    raise VolumeError(f"{uri} is a zarr group: name one of its arrays, {_listed(node)}.")


def _missing(uri: str, path: Path) -> str:
    for parent in path.parents:
        if any((parent / name).exists() for name in METADATA):
            group = zarr.open(parent, mode="r")
            there = "an array" if isinstance(group, zarr.Array) else _listed(group)
            return f"{uri}: there is no '{path.relative_to(parent)}' in {parent}; it holds {there}."
    return f"There is no zarr store {uri}."


def _listed(group: zarr.Group) -> str:
    return ", ".join(name for name, _ in group.members(max_depth=None)) or "nothing"


def _parent_groups(path: Path) -> list[tuple[Path, zarr.Group]]:
    """Groups around an array, nearest first, as far as there are any."""
    groups = []
    for parent in path.parents:
        if not any((parent / name).exists() for name in METADATA):
            break
        groups.append((parent, zarr.open_group(parent, mode="r")))
    return groups


def _voxel_size(array: zarr.Array, path: Path, parents: list[tuple[Path, zarr.Group]]) -> VoxelSize | None:
    for folder, group in parents:
        image: Multiscale | None = multiscale_of(group.attrs, str(folder))
        if image is not None:
            size = image.levels.get(path.relative_to(folder).as_posix())
            if size is not None:
                return size
    return voxel_size_of(array.attrs, *(group.attrs for _, group in parents))


class ZarrVolume(Volume):
    """The last three axes of an array whose other axes (time, channel) have length 1, or of one of its channels."""

    def __init__(self, uri: str, array: Any, voxel_size: VoxelSize | None, channel: int | None = None) -> None:
        self._array = array
        self._leading = (0,) * max(array.ndim - 3, 0) if channel is None else leading_index(uri, array.shape, channel)
        if channel is None and any(n != 1 for n in array.shape[: len(self._leading)]):
            raise VolumeError(f"{uri} has shape {array.shape}; all axes before z,y,x must have length 1.")
        super().__init__(uri, array.shape[len(self._leading) :], array.dtype, voxel_size, array.chunks[-3:])
        self.offset = offset_of(array.attrs)

    @cached_property
    def _fast(self) -> Any:
        """The same array in tensorstore, which reads shards with all cores; None where it does not know the format."""
        if self._array.metadata.zarr_format != 3:
            return None
        spec = {"driver": "zarr3", "kvstore": f"file://{Path(self.uri).resolve()}/"}
        try:
            return tensorstore.open(spec, context=tensorstore_context(), read=True, open=True).result()
        except (ValueError, NotImplementedError):
            return None

    def _read(self, box: Box) -> np.ndarray:
        index = (*self._leading, *box.slices)
        try:
            return np.asarray(self._array[index] if self._fast is None else self._fast[index].read().result())
        except (OSError, ValueError, IndexError, RuntimeError) as error:
            raise VolumeError(f"{self.uri} is damaged inside ({in_words(error)}); make or copy it again.") from error
