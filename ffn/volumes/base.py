"""What every volume looks like, whatever file it comes from."""

import copy
from abc import ABC, abstractmethod
from types import EllipsisType, TracebackType
from typing import Any, Self

import numpy as np

from ffn.errors import GeometryError, VolumeError
from ffn.geometry import ZYX, Box

VoxelSize = tuple[float, float, float]
Key = int | slice | EllipsisType | tuple[int | slice | EllipsisType, ...]


class Volume(ABC):
    """A 3-D array on disk or behind a URL, read lazily: only the voxels that are asked for are decoded.

    Indices are zyx and count from the corner of the view, so a volume opened with a box starts at 0,0,0 like any
    other; `bounds` says where the view lies in the whole volume.

    Attributes:
        uri: as given by the user.
        dtype: of the arrays returned.
        voxel_size: nanometres zyx, or None where the data do not say.
        chunk: zyx shape in which the data are stored, or None where slices of any shape cost the same.
        bounds: box of this view in voxels of the whole volume.
        offset: voxel (zyx) of the source at which the whole volume begins, where it was cut out of one and says so.
    """

    def __init__(
        self, uri: str, shape: tuple[int, ...], dtype: Any, voxel_size: VoxelSize | None, chunk: ZYX | None
    ) -> None:
        if len(shape) != 3:
            raise VolumeError(
                f"{uri} has {len(shape)} dimensions, shape {shape}; a volume has 3: z, y, x, and one channel."
            )
        if 0 in shape:
            raise VolumeError(f"{uri} is empty: its shape is {shape}.")
        self.uri = uri
        self.dtype = np.dtype(dtype)
        if self.dtype.kind not in "buif":
            raise VolumeError(f"{uri} holds values of type {self.dtype}; expected whole numbers or floats.")
        self.voxel_size = voxel_size
        self.chunk = chunk
        self.bounds = Box.of_shape(shape)
        self.offset: ZYX = (0, 0, 0)

    @abstractmethod
    def _read(self, box: Box) -> np.ndarray:
        """Voxels of `box`, which lies inside the whole volume and is counted from its corner."""

    @property
    def shape(self) -> ZYX:
        """Voxels zyx of the view."""
        return self.bounds.shape

    @property
    def ndim(self) -> int:
        return 3

    def view(self, box: Box) -> Self:
        """The same data restricted to `box` (counted from this view's corner). Raises GeometryError outside."""
        self._require_inside(box)
        clone = copy.copy(self)
        clone.bounds = box.shifted(self.bounds.start)
        return clone

    def read(self, box: Box) -> np.ndarray:
        """Voxels of `box`, counted from this view's corner. Raises GeometryError outside the view."""
        self._require_inside(box)
        return np.asarray(self._read(box.shifted(self.bounds.start)), dtype=self.dtype)

    def __getitem__(self, key: Key) -> np.ndarray:
        """Basic numpy slicing: whole numbers, slices with any step, Ellipsis."""
        ranges: list[range] = []
        local: list[int | slice] = []
        for item, size in zip(_three(key), self.shape, strict=True):
            if isinstance(item, slice):
                ranges.append(range(size)[item])
                local.append(slice(None, None, ranges[-1].step))
            else:
                ranges.append(range(size)[item : item + 1 or None])
                local.append(0)
                if not ranges[-1]:
                    raise IndexError(f"index {item} is outside a volume of shape {self.shape}")
        if not all(ranges):
            kept = [len(r) for r, part in zip(ranges, local, strict=True) if isinstance(part, slice)]
            return np.empty(kept, self.dtype)
        start = tuple(min(r[0], r[-1]) for r in ranges)
        stop = tuple(max(r[0], r[-1]) + 1 for r in ranges)
        return self.read(Box(start, stop))[tuple(local)]  # type: ignore[arg-type]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self[...] if dtype is None else self[...].astype(dtype)

    def __len__(self) -> int:
        return self.shape[0]

    def close(self) -> None:  # noqa: B027 - many volumes hold nothing open
        """Let go of open files; a volume that is not closed is closed with the process."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.uri} [{self.bounds}] {self.dtype}>"

    def _require_inside(self, box: Box) -> None:
        if not Box.of_shape(self.shape).contains(box):
            z, y, x = self.shape
            raise GeometryError(f"Box {box} is outside {self.uri}, which has {z} x {y} x {x} voxels (z,y,x).")


def leading_index(uri: str, shape: tuple[int, ...], channel: int | None) -> tuple[int, ...]:
    """What stands before z,y,x in the index of a stored array: nothing, or the channel that was asked for.

    Raises VolumeError where the array has no such channel.
    """
    if channel is None:
        return ()
    if len(shape) != 4 or channel >= shape[0]:
        raise VolumeError(f"{uri} has shape {shape}; expected four axes c,z,y,x with a channel {channel} (from 0).")
    return (channel,)


def _three(key: Key) -> list[int | slice]:
    parts = list(key) if isinstance(key, tuple) else [key]
    if parts.count(Ellipsis) > 1:
        raise IndexError("an index can only have one ellipsis")
    if Ellipsis not in parts:
        parts.append(Ellipsis)
    at = parts.index(Ellipsis)
    parts[at : at + 1] = [slice(None)] * (4 - len(parts))
    if len(parts) != 3:
        raise IndexError(f"a volume has 3 axes, the index has {len(parts)}")
    three: list[int | slice] = []
    for part in parts:
        if isinstance(part, slice):
            three.append(part)
        elif isinstance(part, int | np.integer) and not isinstance(part, bool):
            three.append(int(part))
        else:
            raise IndexError(f"a volume is indexed by whole numbers and slices, not {type(part).__name__}")
    return three
