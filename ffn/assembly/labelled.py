"""The labels of a run's sub-volumes, asked for by place; a few files are held open."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import h5py
import numpy as np
from numpy.typing import NDArray

from ffn.assembly.neighbours import BoxIndex
from ffn.errors import VolumeError
from ffn.geometry import Box
from ffn.volumes import Volume, open_volume

HELD_OPEN = 16
"""Files: a block no larger than a sub-volume meets eight of them, and the next one mostly the same."""


class IdTables(Protocol):
    """Global ids of each sub-volume's local ids."""

    def __getitem__(self, number: int) -> NDArray[np.uint64]:
        """`global = table[local]` of sub-volume `number`, table[0] = 0."""


class StoredIds:
    """Tables in a file, of which one is read at a time.

    Args:
        path: HDF5 with `ids` (uint64) of all segments, one sub-volume after the other.
        largest_ids: Of each sub-volume.
    """

    def __init__(self, path: Path, largest_ids: Sequence[int]) -> None:
        self._path = path
        self._offsets = np.concatenate([[0], np.cumsum(largest_ids, dtype=np.int64)])

    def __getitem__(self, number: int) -> NDArray[np.uint64]:
        with h5py.File(self._path, "r", locking=False) as file:
            ids = file["ids"][self._offsets[number] : self._offsets[number + 1]]
        return np.concatenate([np.zeros(1, np.uint64), ids])


@dataclass(frozen=True)
class Segmented:
    """Where the sub-volumes lie and where their labels are.

    Attributes:
        boxes: In the common volume.
        uris: Of uint64 volumes as large as the boxes.
        largest_ids: Of each; there may be gaps below, where objects were joined.
    """

    boxes: Sequence[Box]
    uris: Sequence[str]
    largest_ids: Sequence[int]

    @cached_property
    def index(self) -> BoxIndex:
        return BoxIndex(self.boxes)


class OpenLabels:
    """Reads labels of sub-volumes, local or global."""

    def __init__(self, tiles: Segmented, ids: IdTables) -> None:
        self.tiles = tiles
        self._ids = ids
        self._volumes = OrderedDict[int, Volume]()
        self._tables = OrderedDict[int, NDArray[np.uint64]]()

    def local(self, number: int, box: Box) -> NDArray[np.uint64]:
        """Labels, uint64 zyx, of sub-volume `number` in the voxels `box` of the common volume.

        Raises VolumeError where the file is damaged, or holds ids that the sub-volume does not have.
        """
        volume = self._volumes.pop(number, None) or open_volume(self.tiles.uris[number])
        self._volumes[number] = volume
        if len(self._volumes) > HELD_OPEN:
            self._volumes.popitem(last=False)[1].close()
        labels = volume.read(box.relative_to(self.tiles.boxes[number].start))
        if (largest := int(labels.max())) > self.tiles.largest_ids[number]:
            raise VolumeError(
                f"{volume.uri} holds the id {largest}, but ids up to {self.tiles.largest_ids[number]} by the ledger of "
                "the inference: the two are not of one run. Delete that archive and run the inference again."
            )
        return labels

    def assembled(self, number: int, box: Box) -> NDArray[np.uint64]:
        """The same voxels with global ids."""
        local = self.local(number, box)
        table = self._tables.pop(number, None)
        self._tables[number] = table = self._ids[number] if table is None else table
        if len(self._tables) > HELD_OPEN:
            self._tables.popitem(last=False)
        return table[local]

    def close(self) -> None:
        """Let go of all files."""
        while self._volumes:
            self._volumes.popitem()[1].close()
