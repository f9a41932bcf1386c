"""HDF5 datasets, `file.h5:dataset`, also gzipped; and FlyEM's superpixel files, read as bodies."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np

from ffn.bundles import inside, open_file
from ffn.errors import VolumeError
from ffn.geometry import Box
from ffn.progress import log
from ffn.volumes.base import Volume, VoxelSize, leading_index
from ffn.volumes.cache import gunzipped
from ffn.volumes.voxelsize import offset_of, voxel_size_of

URI = re.compile(r"(?P<path>.+?\.(?:h5|hdf5|hdf)(?P<gz>\.gz)?)(?::(?P<dataset>.+))?", re.IGNORECASE)

CHUNKS_HELD = 16 << 20
"""Bytes of unpacked chunks that a dataset keeps: eight of 64^3 labels. HDF5 keeps 1 MiB, so none of these, and unpacks
one anew for each thin box in it; overlaps of sub-volumes are such boxes."""


def open_hdf5(uri: str, channel: int | None = None) -> Volume:
    """Open `file.h5[:dataset]` or `file.h5.gz[:dataset]`; with a channel, that one of a dataset c,z,y,x.

    Without a dataset the file must hold either one 3-D dataset, or `stack` and `transforms` as in the ground truth
    of janelia-flyem/neuroproof_examples: then the volume is uint64 bodies, `transforms[stack]`.
    """
    match = URI.fullmatch(uri)
    if match is None:
        raise VolumeError(f"{uri} is not of the form file.h5:dataset.")
    path = Path(match["path"])
    file = _open_file(gunzipped(path) if match["gz"] else path, path)
    try:
        return _open_dataset(uri, file, match["dataset"], channel)
    except BaseException:
        file.close()
        raise


def _open_file(path: Path, shown: Path) -> h5py.File:
    if path.is_dir():
        raise VolumeError(f"{shown} is a folder; expected an HDF5 file.")
    try:
        if inside(path) is not None:
            return _ArchivedFile(path)
        # Finished files never change, and locks fail on many parallel file systems.
        return h5py.File(path, "r", locking=False, rdcc_nbytes=CHUNKS_HELD)
    except FileNotFoundError as error:
        raise VolumeError(f"There is no file {shown}.") from error
    except PermissionError as error:
        raise VolumeError(f"{shown} cannot be read: no permission.") from error
    except OSError as error:
        raise VolumeError(
            f"{shown} is damaged or not HDF5 ({_reason(error)}); copy or download it again, or name another file."
        ) from error


class _ArchivedFile(h5py.File):  # type: ignore[misc]  # h5py is not typed
    """An HDF5 file in an archive (`ffn.bundles`)."""

    def __init__(self, path: Path) -> None:
        self._source = open_file(path)
        try:
            super().__init__(self._source, "r", rdcc_nbytes=CHUNKS_HELD)
        except BaseException:
            self._source.close()
            raise

    def close(self) -> None:
        super().close()
        self._source.close()


def _reason(error: OSError) -> str:
    inside = re.search(r"\((.*)\)", str(error), re.DOTALL)
    return inside[1] if inside else str(error)


def _open_dataset(uri: str, file: h5py.File, name: str | None, channel: int | None) -> Volume:
    there = dataset_shapes(file)
    if name is None:
        if {"stack", "transforms"} <= there.keys() and channel is None:
            return BodyVolume(uri, file)
        candidates = [key for key, shape in there.items() if len(shape) == (3 if channel is None else 4)]
        if len(candidates) != 1:
            raise VolumeError(f"{uri} names no dataset: write {uri}:DATASET with one of {_listed(there)}.")
        name = candidates[0]
    if name.strip("/") not in there:
        raise VolumeError(f"{uri}: there is no dataset '{name}' in the file; it holds {_listed(there)}.")
    return Hdf5Volume(uri, file, name.strip("/"), channel)


def dataset_shapes(file: h5py.File) -> dict[str, tuple[int, ...]]:
    """Full names and shapes of all datasets of a file."""
    found: dict[str, tuple[int, ...]] = {}

    def visit(name: str, node: h5py.Dataset | h5py.Group) -> None:
        if isinstance(node, h5py.Dataset):
            found[name] = node.shape or ()

    file.visititems(visit)
    return found


def _listed(shapes: dict[str, tuple[int, ...]]) -> str:
    return ", ".join(f"{name} {shape}" for name, shape in shapes.items()) or "no datasets"


@contextmanager
def _damage_reported(uri: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise VolumeError(f"{uri} is damaged inside ({_reason(error)}); copy or download the file again.") from error


class Hdf5Volume(Volume):
    """One 3-D dataset of an HDF5 file, or one channel of a 4-D one."""

    def __init__(self, uri: str, file: h5py.File, name: str, channel: int | None = None) -> None:
        self._file = file
        self._data: h5py.Dataset = file[name]
        shape, chunks = self._data.shape or (), self._data.chunks
        self._leading = leading_index(uri, shape, channel)
        skipped = len(self._leading)
        super().__init__(uri, shape[skipped:], self._data.dtype, _voxel_size(self._data), chunks and chunks[skipped:])
        self.offset = offset_of(self._data.attrs)

    def _read(self, box: Box) -> np.ndarray:
        with _damage_reported(self.uri):
            return np.asarray(self._data[(*self._leading, *box.slices)])

    def close(self) -> None:
        self._file.close()


def _voxel_size(data: h5py.Dataset) -> VoxelSize | None:
    return voxel_size_of(data.attrs, data.parent.attrs, data.file.attrs)


class BodyVolume(Volume):
    """Bodies (uint64) of a file with `stack` (superpixels) and `transforms` (rows of superpixel, body).

    Superpixel 0 is background. A superpixel that `transforms` does not list has no known body and reads as 0,
    the workflow's unknown; the first time that happens it is said on stderr.
    """

    def __init__(self, uri: str, file: h5py.File) -> None:
        self._file = file
        self._stack: h5py.Dataset = file["stack"]
        with _damage_reported(uri):
            table = np.asarray(file["transforms"][...])
        if table.ndim != 2 or table.shape[1] != 2 or len(table) == 0 or table.dtype.kind not in "ui":
            raise VolumeError(
                f"{uri}: transforms has shape {table.shape} and type {table.dtype}; "
                "expected rows of two whole numbers, superpixel and body."
            )
        if self._stack.dtype.kind not in "ui":
            raise VolumeError(f"{uri}: stack holds {self._stack.dtype}; expected whole numbers (superpixels).")
        self._bodies = _Lookup(table)
        self._told = False
        super().__init__(uri, self._stack.shape, np.uint64, _voxel_size(self._stack), self._stack.chunks)

    def _read(self, box: Box) -> np.ndarray:
        with _damage_reported(self.uri):
            superpixels = np.asarray(self._stack[box.slices])
        bodies, unknown = self._bodies(superpixels)
        if len(unknown) > 0 and not self._told:
            self._told = True
            log(f"{self.uri}: superpixel {unknown[0]} and {len(unknown) - 1} more have no body; they read as 0.")
        return bodies

    def close(self) -> None:
        self._file.close()


class _Lookup:
    """Superpixel to body: by a plain table where ids are small and without gaps, else by search in the sorted ids."""

    def __init__(self, table: np.ndarray) -> None:
        ids, rows = np.unique(table[:, 0].astype(np.int64), return_index=True)
        bodies = table[rows, 1].astype(np.uint64)
        if 0 not in ids:
            at = int(np.searchsorted(ids, 0))
            ids, bodies = np.insert(ids, at, 0), np.insert(bodies, at, np.uint64(0))
        self._ids, self._targets = ids, bodies
        self._gapless = bool(ids[0] == 0 and ids[-1] == len(ids) - 1)

    def __call__(self, superpixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Bodies (uint64, 0 where unknown), and the superpixels that are unknown, ascending."""
        if self._gapless and superpixels.min() >= 0 and superpixels.max() < len(self._ids):
            return self._targets.take(superpixels), np.empty(0, np.int64)
        ids = superpixels.astype(np.int64)
        at = np.minimum(np.searchsorted(self._ids, ids), len(self._ids) - 1)
        found = self._ids[at] == ids
        return np.where(found, self._targets[at], np.uint64(0)), np.unique(ids[~found])
