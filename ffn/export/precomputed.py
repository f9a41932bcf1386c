"""Volumes as Neuroglancer precomputed layers, written with cloud-volume in whole chunks.

The format is xyz; this module is where zyx ends. Format: the "precomputed" volumes of google/neuroglancer.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from math import prod
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
from ffn.workers import Workers

Kind = Literal["image", "segmentation"]

_IMAGE_TYPES = ("uint8", "uint16", "float32")
_BLOCK_BYTES = 1 << 25


class Bench:
    """What a process that writes layers has open.

    Args:
        sources: Opens the volume of a layer, by the layer's name.
    """

    def __init__(self, sources: Mapping[str, Callable[[], Volume]]) -> None:
        self._sources = sources
        self._volumes: dict[str, Volume] = {}

    def volume(self, name: str) -> Volume:
        """The volume of a layer, opened when it is first read."""
        if name not in self._volumes:
            self._volumes[name] = self._sources[name]()
        return self._volumes[name]


@dataclass(frozen=True)
class _Piece:
    """A block of whole chunks of one level.

    Attributes:
        name: Of the layer.
        folder: Where it is written.
        info: Of the layer.
        step: Voxels of the level before that make one voxel.
        block: Voxels of the level's own grid.
        source: Voxels to make it from: of the volume at full resolution, else of the level before.
    """

    name: str
    folder: Path
    info: dict[str, Any]
    mip: int
    step: ZYX
    block: Box
    source: Box


def write_layer(
    folder: Path,
    volume: Volume,
    kind: Kind,
    voxel_size: VoxelSize,
    offset: ZYX,
    chunk: ZYX,
    mips: int,
    workers: Workers[Bench] | None = None,
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
        workers: whose benches open the same volume under the name of the folder; None = this process.

    Raises VolumeError for a type of voxel that the layer cannot hold.
    """
    if folder.exists():
        return
    name, dtype = folder.name, stored_type(volume, kind)
    pyramid = levels(Box.of_shape(volume.shape).shifted(offset), voxel_size, mips)
    hands = workers or Workers(1, partial(Bench, {name: partial(_itself, volume)}))
    with atomic_path(folder) as partial_folder:
        info = layer_info(kind, dtype, pyramid, chunk)
        _open(partial_folder, 0, info).commit_info()
        for mip, level in enumerate(pyramid):
            # A block of a lower level is made from up to 8 times as many voxels.
            size = whole_chunks(chunk, level.box.shape, dtype.itemsize * prod(level.step))
            pieces = []
            for inside in blocks(Box.of_shape(level.box.shape), size):
                block = inside.shifted(level.box.start)
                source = source_box(block, level.step, pyramid[mip - 1].box) if mip else inside
                pieces.append(_Piece(name, partial_folder, info, mip, level.step, block, source))
            with Progress(f"export {name} mip {mip}", len(pieces), "blocks") as progress:
                for _ in hands.results(_write_piece, pieces):
                    progress.advance()


def _itself(volume: Volume) -> Volume:
    return volume


def _write_piece(bench: Bench, piece: _Piece) -> None:
    cloud = _open(piece.folder, piece.mip, piece.info)
    if piece.mip == 0:
        volume = bench.volume(piece.name)
        values = _stored(volume.read(piece.source), np.dtype(cloud.dtype), volume)
    else:
        below = np.asarray(_open(piece.folder, piece.mip - 1, piece.info)[_slices_xyz(piece.source)])[..., 0].T
        values = downsample(below, piece.source, piece.block, piece.step, labels=cloud.layer_type == "segmentation")
    cloud[_slices_xyz(piece.block)] = values.T[..., np.newaxis]


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
