"""Which voxels may be the centre of a training example.

Seeds of the flood fill lie far from membranes; examples centred on a boundary teach something that inference never
asks for. The published FIB-25 network was trained without centres within 16 nm of another object. And around a voxel
whose object is unknown nothing can be learned.
"""

import math
from collections import Counter
from dataclasses import dataclass, field

import edt
import numpy as np
from numpy.typing import NDArray

from ffn.blockwise import library_threads
from ffn.prepare.partitions import IGNORED, Readable
from ffn.volumes import VoxelSize


@dataclass(frozen=True)
class Centres:
    """Partition classes with what may be no centre ignored; a slab is computed as it is read.

    Attributes:
        partitions: Classes, uint8 [z, y, x].
        labels: Of the same shape.
        min_boundary_nm: What lies within this distance of the centre of a voxel with another label is ignored.
        voxel_size: Nanometres, zyx.
        zero_is_unknown: Whether voxels of label 0 are ignored.
        left_out: Voxels ignored by reason, in the slabs read so far: `unlabelled`, and of the others `near_boundary`.
    """

    partitions: Readable
    labels: Readable
    min_boundary_nm: float
    voxel_size: VoxelSize
    zero_is_unknown: bool
    left_out: Counter[str] = field(default_factory=Counter)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.partitions.shape

    def __getitem__(self, key: tuple[slice, slice, slice], /) -> NDArray[np.generic]:
        return self.usable(np.array(self.partitions[key]), key)

    def usable(self, classes: NDArray[np.generic], key: tuple[slice, slice, slice]) -> NDArray[np.generic]:
        """The classes of the voxels at `key`, with what may be no centre ignored; they are changed in place."""
        if self.zero_is_unknown:
            self._ignore(classes, np.asarray(self.labels[key]) == 0, "unlabelled")
        if self.min_boundary_nm > 0:
            self._ignore(classes, self._near_boundary(key, classes.shape), "near_boundary")
        return classes

    def _ignore(self, classes: NDArray[np.generic], where: NDArray[np.bool_], reason: str) -> None:
        where = where & (classes != IGNORED)
        self.left_out[reason] += int(np.count_nonzero(where))
        classes[where] = IGNORED

    def _near_boundary(self, key: tuple[slice, slice, slice], shape: tuple[int, ...]) -> NDArray[np.bool_]:
        halo = [math.ceil(self.min_boundary_nm / edge) for edge in self.voxel_size]
        around = [slice(max(s.start - h, 0), s.stop + h) for s, h in zip(key, halo, strict=True)]
        wide = (around[0], around[1], around[2])
        # 0 is a label like any other here: the edge of what is known is a boundary too.
        labels = np.asarray(self.labels[wide]) + 1
        distance = edt.edt(
            labels, anisotropy=self.voxel_size, black_border=False, order="C", parallel=library_threads()
        )
        inner = tuple(
            slice(s.start - w.start, s.start - w.start + n) for s, w, n in zip(key, around, shape, strict=True)
        )
        return np.asarray(distance[inner] <= self.min_boundary_nm)
