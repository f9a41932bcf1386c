"""Steps over several volumes: units count through one volume after the other."""

from abc import abstractmethod
from bisect import bisect_right
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from ffn.blockwise import Reduce, Task
from ffn.geometry import Box
from ffn.prepare.volume import LabelledVolume


class VolumesTask(Task):
    """A step over the units of several volumes."""

    def __init__(self, volumes: Sequence[LabelledVolume]) -> None:
        self.volumes = volumes
        self._firsts = np.cumsum([0, *(self.units_of(volume) for volume in volumes)]).tolist()

    @abstractmethod
    def units_of(self, volume: LabelledVolume) -> int:
        """How many units a volume has in this step."""

    def __len__(self) -> int:
        return int(self._firsts[-1])

    def place(self, unit: int) -> tuple[int, int]:
        """The number of the unit's volume, and the unit's number in that."""
        index = bisect_right(self._firsts, unit) - 1
        return index, unit - self._firsts[index]

    def units_in(self, index: int) -> range:
        """The units of a volume."""
        return range(self._firsts[index], self._firsts[index + 1])

    def close(self) -> None:
        for volume in self.volumes:
            volume.close()


class VoxelsTask(VolumesTask):
    """A step that goes through all voxels of the volumes."""

    unit: ClassVar[str] = "voxels"

    def units_of(self, volume: LabelledVolume) -> int:
        return len(volume.units)

    def box(self, unit: int) -> tuple[LabelledVolume, Box]:
        """The unit's volume and voxels."""
        index, number = self.place(unit)
        return self.volumes[index], self.volumes[index].units[number]

    def size(self, unit: int) -> int:
        return self.box(unit)[1].voxels


class VolumesReduce(Reduce):
    """A step of a single unit that goes through the volumes."""

    def __init__(self, volumes: Sequence[LabelledVolume]) -> None:
        self.volumes = volumes

    def close(self) -> None:
        for volume in self.volumes:
            volume.close()
