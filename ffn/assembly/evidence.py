"""All equivalences of a run on disk, and the global ids that follow from them.

They are found a group of sub-volumes at a time, in any process; the parts then become one table, `equivalences.h5`.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from ffn.assembly.reconcile import Column, Equivalences
from ffn.assembly.unionfind import numbered, smallest_members
from ffn.volumes import create_plain_hdf5

_MOST_GROUPS = 4096
_CHUNK = 1 << 16


def groups(tiles: int) -> list[range]:
    """Consecutive sub-volumes whose overlaps with later ones are counted together."""
    size = -(-tiles // _MOST_GROUPS)
    return [range(first, min(first + size, tiles)) for first in range(0, tiles, size)]


def global_ids(largest_ids: Sequence[int], parts: Iterable[Equivalences]) -> NDArray[np.uint64]:
    """The global id of every segment, uint64, one sub-volume after the other.

    Objects are the connected components of the equivalences, numbered 1..m without gaps by their first member in the
    order of sub-volumes and ids there, whatever the order of the equivalences.

    Args:
        largest_ids: Of each sub-volume; every id up to it counts as a segment.
        parts: Equivalences in any order.
    """
    offsets: Column = np.concatenate([[0], np.cumsum(largest_ids, dtype=np.int64)])
    return numbered(smallest_members(int(offsets[-1]), (part.nodes(offsets) for part in parts)))


def write_evidence(path: Path, largest_ids: Sequence[int], parts: Callable[[], Iterable[Equivalences]]) -> None:
    """Write `path`: a dataset for each column of the equivalences, and `ids`, the global id of every segment.

    Args:
        path: HDF5 file to make.
        largest_ids: Of each sub-volume.
        parts: Begins anew with each call; one part is held at a time.
    """
    ids = global_ids(largest_ids, parts())
    with create_plain_hdf5(path) as file:
        columns = {
            name: file.create_dataset(
                name, (0,), np.int64, chunks=(_CHUNK,), maxshape=(None,), compression="gzip", shuffle=True
            )
            for name in Equivalences.columns()
        }
        for found in parts():
            for name, column in columns.items():
                column.resize((len(column) + len(found),))
                column[len(column) - len(found) :] = getattr(found, name)
        file.create_dataset("ids", data=ids, chunks=(_CHUNK,), maxshape=(None,), compression="gzip", shuffle=True)


def read_evidence(path: Path, most: int) -> tuple[Equivalences, int, int]:
    """The first equivalences of a file, how many there are, and the largest global id."""
    with h5py.File(path, "r", locking=False) as file:
        found = Equivalences(*(file[name][:most] for name in Equivalences.columns()))
        largest_id = max((int(ids.max()) for ids in _slices(file["ids"])), default=0)
        return found, len(file["common"]), largest_id


def _slices(data: h5py.Dataset) -> Iterator[NDArray[np.uint64]]:
    for begin in range(0, len(data), _CHUNK):
        yield data[begin : begin + _CHUNK]
