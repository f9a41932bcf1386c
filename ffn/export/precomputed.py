"""Volumes as Neuroglancer precomputed layers, written with cloud-volume in whole chunks.

The format is xyz; this module is where zyx ends. Format: the "precomputed" volumes of google/neuroglancer.
"""

from pathlib import Path
from typing import Any, Literal

import numpy as np
from cloudvolume import CloudVolume

from ffn.errors import VolumeError
from ffn.export.downsample import Level, downsample, levels, source_box
from ffn.files import atomic_path
from ffn.geometry import ZYX, Box, blocks, xyz_from_zyx
from ffn.progress import Progress
from ffn.volumes import Volume, VoxelSize

Kind = Literal["image", "segmentation"]

_IMAGE_TYPES = ("uint8", "uint16", "float32")
_BLOCK_BYTES = 1 << 27


def write_layer(
    folder: Path, volume: Volume, kind: Kind, voxel_size: VoxelSize, offset: ZYX, chunk: ZYX, mips: int
) -> None:
    """Write `volume` as a layer with `mips` lower resolutions; a layer that is already there is left as it is.

    The folder appears under its name only when it is complete, so after a kill the same call starts it again.

    Args:
        folder: the layer's folder.
        volume: image of uint8, uint16 or float32; or labels of any integer type, stored as uint64.
        kind: `image` is averaged in the lower resolutions, `segmentation` takes the most frequent label.
        voxel_size: nanometres zyx.
        offset: voxel zyx of the source volume at which `volume` starts.
        chunk: zyx voxels in one file.
        mips: number of lower resolutions.

    Raises VolumeError for a type of voxel that the layer cannot hold.
    """
    if folder.exists():
        return
    dtype = stored_type(volume, kind)
    pyramid = levels(Box.of_shape(volume.shape).shifted(offset), voxel_size, mips)
    with atomic_path(folder) as partial:
        info = layer_info(kind, dtype, pyramid, chunk)
        _open(partial, 0, info).commit_info()
        for mip, level in enumerate(pyramid):
            before = _Before(_open(partial, mip - 1, info), pyramid[mip - 1].box) if mip else None
            _write_level(_open(partial, mip, info), level, chunk, volume, before, f"{folder.name} mip {mip}")


def layer_info(kind: Kind, dtype: np.dtype[Any], pyramid: list[Level], chunk: ZYX) -> dict[str, Any]:
    """The `info` of a layer with these resolutions."""
    info: dict[str, Any] = CloudVolume.create_new_info(
        num_channels=1,
        layer_type=kind,
        data_type=dtype.name,
        encoding="raw" if kind == "image" else "compressed_segmentation",
        resolution=_plain(pyramid[0].voxel_size),
        voxel_offset=xyz_from_zyx(pyramid[0].box.start),
        volume_size=xyz_from_zyx(pyramid[0].box.shape),
        chunk_size=xyz_from_zyx(chunk),
    )
    full = info["scales"][0]
    # cloud-volume's own scales would round the offset down but keep the size, which can lose the last voxels.
    info["scales"] = [
        {
            **full,
            "key": "_".join(str(n) for n in _plain(level.voxel_size)),
            "resolution": _plain(level.voxel_size),
            "voxel_offset": xyz_from_zyx(level.box.start),
            "size": xyz_from_zyx(level.box.shape),
        }
        for level in pyramid
    ]
    return info


def whole_chunks(chunk: ZYX, shape: ZYX, itemsize: int, budget: int = _BLOCK_BYTES) -> ZYX:
    """The largest block of whole chunks within `budget` bytes, at least one chunk: wide in x first, then y, then z."""
    block = list(chunk)
    for axis in (2, 1, 0):
        layer = int(np.prod(block)) * itemsize
        block[axis] *= min(max(budget // layer, 1), -(-shape[axis] // chunk[axis]))
    z, y, x = block
    return z, y, x


class _Before:
    """The level from which the next one is made."""

    def __init__(self, cloud: CloudVolume, box: Box) -> None:
        self.cloud, self.box = cloud, box

    def pooled(self, block: Box, step: ZYX) -> np.ndarray:
        source = source_box(block, step, self.box)
        values = np.asarray(self.cloud[_slices_xyz(source)])[..., 0].T
        return downsample(values, source, block, step, labels=self.cloud.layer_type == "segmentation")


def _write_level(
    cloud: CloudVolume, level: Level, chunk: ZYX, volume: Volume, before: _Before | None, label: str
) -> None:
    dtype = np.dtype(cloud.dtype)
    # A block of a lower level is made from up to 8 times as many voxels.
    read = dtype.itemsize * int(np.prod(level.step))
    pieces = list(blocks(Box.of_shape(level.box.shape), whole_chunks(chunk, level.box.shape, read)))
    with Progress(f"export {label}", len(pieces), "blocks") as progress:
        for piece in pieces:
            block = piece.shifted(level.box.start)
            values = _stored(volume.read(piece), dtype, volume) if before is None else before.pooled(block, level.step)
            cloud[_slices_xyz(block)] = values.T[..., np.newaxis]
            progress.advance()


def _open(folder: Path, mip: int, info: dict[str, Any]) -> CloudVolume:
    return CloudVolume(
        f"precomputed://file://{folder.resolve()}", mip=mip, info=info, compress="gzip", progress=False, cache=False
    )


def stored_type(volume: Volume, kind: Kind) -> np.dtype[Any]:
    """The type of voxel that the layer will hold. Raises VolumeError where it cannot hold the volume's."""
    if kind == "image":
        if volume.dtype.name not in _IMAGE_TYPES:
            raise VolumeError(
                f"{volume.uri} holds {volume.dtype}; an image layer holds {', '.join(_IMAGE_TYPES)}. Convert it first."
            )
        return volume.dtype
    if volume.dtype.kind not in "uib":
        raise VolumeError(f"{volume.uri} holds {volume.dtype}; labels must be whole numbers.")
    return np.dtype(np.uint64)


def _stored(values: np.ndarray, dtype: np.dtype[Any], volume: Volume) -> np.ndarray:
    if values.dtype.kind == "i" and values.min() < 0:
        raise VolumeError(f"{volume.uri} has the negative label {values.min()}; labels must be 0 or greater.")
    return values.astype(dtype, copy=False)


def _slices_xyz(box: Box) -> tuple[slice, slice, slice]:
    z, y, x = box.slices
    return x, y, z


def _plain(voxel_size: VoxelSize) -> list[float]:
    """Nanometres xyz; whole numbers without a decimal point, as other programs name their scales."""
    return [int(n) if float(n).is_integer() else float(n) for n in xyz_from_zyx(voxel_size)]
