"""Writing HDF5 volumes block by block; the file appears under its name only when it is complete."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ffn.errors import GeometryError, VolumeError
from ffn.files import atomic_path
from ffn.geometry import ZYX, Box
from ffn.volumes.base import VoxelSize
from ffn.volumes.chunks import chunk_within
from ffn.volumes.diskfile import DiskFile

CHUNK: ZYX = (64, 64, 64)
_GZIP = 1


class WritableVolume:
    """A dataset being written; voxels that are never written hold its fill value.

    Write whole chunks (`ffn.geometry.blocks(box, volume.chunk)`) where possible: a partly written chunk is read back,
    decompressed and compressed again.
    """

    def __init__(self, data: h5py.Dataset, disk: DiskFile) -> None:
        self._data = data
        self._disk = disk
        self.shape: ZYX = data.shape
        self.dtype: np.dtype = data.dtype
        self.chunk: ZYX = data.chunks

    def write(self, box: Box, values: np.ndarray) -> None:
        """Store `values` (zyx, shape of `box`) at `box`.

        Raises GeometryError where box and array do not fit, TypeError where the type would lose values, OSError
        when the disk is full.
        """
        if not Box.of_shape(self.shape).contains(box):
            raise GeometryError(f"Box {box} is outside the volume being written, {Box.of_shape(self.shape)}.")
        if values.shape != box.shape:
            raise GeometryError(f"Box {box} has shape {box.shape}, the values to write have shape {values.shape}.")
        if not np.can_cast(values.dtype, self.dtype, "safe"):
            raise TypeError(f"{values.dtype} does not fit into a volume of {self.dtype}")
        self._data[box.slices] = values
        self._disk.raise_failure()

    def annotate(self, **attributes: Any) -> None:
        """Set attributes of the dataset."""
        self._data.attrs.update(attributes)


class Hdf5Writer:
    """An HDF5 file being written, see `create_hdf5_file`."""

    def __init__(self, file: h5py.File, disk: DiskFile) -> None:
        self._file = file
        self._disk = disk

    def add(
        self,
        dataset: str,
        shape: Sequence[int],
        dtype: Any,
        voxel_size: VoxelSize | None,
        *,
        chunk: ZYX = CHUNK,
        fill: int | float = 0,
        offset: ZYX = (0, 0, 0),
    ) -> WritableVolume:
        """Add a dataset (zyx) with the attributes `voxel_size_nm` and `offset_zyx`.

        Args:
            dataset: name inside the file.
            shape: voxels zyx.
            dtype: of the voxels.
            voxel_size: nanometres zyx, or None where unknown.
            chunk: zyx shape stored and compressed together; cut to the volume's shape.
            fill: value of voxels that are never written.
            offset: voxel (zyx) of the source volume at which this one starts.
        """
        kind = np.dtype(dtype)
        # Grey values hardly shrink and cost time; labels shrink a hundredfold.
        packing = {} if kind.itemsize == 1 else {"compression": "gzip", "compression_opts": _GZIP, "shuffle": True}
        data = self._file.create_dataset(
            dataset,
            tuple(shape),
            kind,
            chunks=chunk_within(chunk, shape),
            fillvalue=fill,
            **packing,
        )
        data.attrs["offset_zyx"] = np.asarray(offset, np.int64)
        if voxel_size is not None:
            data.attrs["voxel_size_nm"] = np.asarray(voxel_size, np.float64)
        return WritableVolume(data, self._disk)


@contextmanager
def create_hdf5_file(path: Path) -> Iterator[Hdf5Writer]:
    """Write an HDF5 file of one or more datasets; it takes the place of `path` when the block ends well.

    A disk that fills up raises OSError with its errno, after which nothing of the attempt is left.
    """
    with _guarded(path) as (file, disk):
        yield Hdf5Writer(file, disk)


@contextmanager
def create_plain_hdf5(path: Path) -> Iterator[h5py.File]:
    """The h5py file itself, for contents that are no volume; otherwise as `create_hdf5_file`.

    A full disk is reported at the end.
    """
    with _guarded(path) as (file, _):
        yield file


@contextmanager
def _guarded(path: Path) -> Iterator[tuple[h5py.File, DiskFile]]:
    with atomic_path(path) as partial, DiskFile(partial, path) as disk:
        with h5py.File(disk, "w") as file:
            yield file, disk
        disk.raise_failure()


@contextmanager
def create_hdf5(
    path: Path,
    dataset: str,
    shape: Sequence[int],
    dtype: Any,
    voxel_size: VoxelSize | None,
    chunk: ZYX = CHUNK,
    fill: int | float = 0,
    offset: ZYX = (0, 0, 0),
) -> Iterator[WritableVolume]:
    """Write a file with one dataset: `with create_hdf5(...) as volume: volume.write(box, values)`.

    Arguments as in `Hdf5Writer.add`; behaviour as in `create_hdf5_file`.
    """
    with create_hdf5_file(path) as file:
        yield file.add(dataset, shape, dtype, voxel_size, chunk=chunk, fill=fill, offset=offset)


def parse_output(uri: str, default: str) -> tuple[Path, str]:
    """Path and dataset of an HDF5 output `file.h5[:dataset]`. Raises VolumeError for other forms."""
    match = re.fullmatch(r"(.+?\.(?:h5|hdf5|hdf))(?::(.+))?", uri, re.IGNORECASE)
    if match is None:
        raise VolumeError(f"{uri} cannot be written: expected the form file.h5:dataset.")
    return Path(match[1]), (match[2] or default).strip("/")
