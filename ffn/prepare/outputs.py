"""Outputs of single commands: complete or not there, and never in place of something else."""

import filecmp
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np

from ffn.errors import DataError
from ffn.files import atomic_path
from ffn.progress import log

_ROWS = 64


def same_bytes(one: Path, other: Path) -> bool:
    """Whether two files have the same contents."""
    return filecmp.cmp(one, other, shallow=False)


def same_hdf5(one: Path, other: Path) -> bool:
    """Whether two HDF5 files hold the same data sets with the same values; attributes do not count."""
    if not h5py.is_hdf5(one) or not h5py.is_hdf5(other):
        return False
    with h5py.File(one, "r", locking=False) as a, h5py.File(other, "r", locking=False) as b:
        return _layout(a) == _layout(b) and all(_equal(a[name], b[name]) for name in _layout(a))


def _layout(file: h5py.File) -> dict[str, tuple[tuple[int, ...], str]]:
    found: dict[str, tuple[tuple[int, ...], str]] = {}

    def visit(name: str, item: h5py.Group | h5py.Dataset) -> None:
        if isinstance(item, h5py.Dataset):
            found[name] = item.shape, str(item.dtype)

    file.visititems(visit)
    return found


def _equal(one: h5py.Dataset, other: h5py.Dataset) -> bool:
    rows = one.shape[0] if len(one.shape) == 1 else _ROWS
    return all(np.array_equal(one[i : i + rows], other[i : i + rows]) for i in range(0, one.shape[0], max(rows, 1)))


@contextmanager
def new_output(path: Path, overwrite: bool, same: Callable[[Path, Path], bool]) -> Iterator[Path]:
    """Yield a path to write to; afterwards it becomes `path`, unless something else is already there.

    Raises DataError, and leaves the file that is there, if its contents differ (by `same`) and not `overwrite`.
    """
    if path.is_dir():
        raise DataError(f"{path} is a folder; give the name of a file to write.")
    with atomic_path(path) as partial:
        yield partial
        if not path.exists() or overwrite:
            return
        if not same(partial, path):
            raise DataError(
                f"{path} exists with other contents and was left as it is. Choose another output, move the file away, "
                "or add --overwrite."
            )
        log(f"{path} was already there with the same contents.")
