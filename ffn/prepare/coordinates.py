"""Centres of training examples, every partition class equally often.

The file holds one data set a class: the class's voxels in random order, as C-order indices into the partitioned
volume. Nothing is repeated on disk; the stream cycles through each class, which gives the same balance as writing
every class `max_count` times. Of a very large volume the file holds a sample (`ffn.prepare.sample`).
"""

from collections.abc import Iterable, Iterator, Mapping
from math import prod
from pathlib import Path
from types import TracebackType
from typing import Self

import h5py
import numpy as np
from numpy.typing import NDArray

from ffn.errors import DataError, GeometryError
from ffn.geometry import ZYX, Box
from ffn.prepare.partitions import IGNORED, Readable
from ffn.volumes import create_plain_hdf5

_SLAB = 32
_CHUNK = 8192
_CLASS_PREFIX = "class_"


# Why a voxel is no centre: its patch would stick out; the partitions ignore it; `ffn.prepare.centres` does.
LEFT_OUT = ("outside", "ignored", "unlabelled", "near_boundary")


def write_coordinates(
    partitions: Readable,
    output: Path,
    margin: ZYX = (0, 0, 0),
    seed: int = 1,
    left_out: Mapping[str, int] | None = None,
) -> dict[int, int]:
    """Write the coordinates of all voxels that are not 255 and keep `margin` to every face of the volume.

    Class 0 (background and small objects) is a class like the others: its examples teach what not to fill. Memory is
    a slab of the volume, then the indices of the largest class (16 bytes each).

    Args:
        partitions: uint8 [z, y, x] as from `ffn.prepare.partitions`.
        output: HDF5 file, written atomically.
        margin: Voxels at each face that a centre may not be in, z, y, x; 0 is allowed.
        seed: Decides the order within each class.
        left_out: How many voxels `partitions` has ignored for which reason, known once it has been read; goes into
            the file beside the numbers of those outside of the margin and ignored otherwise.

    Returns:
        Number of coordinates of each class.

    Raises:
        DataError: No voxel is left.
    """
    shape = Box.of_shape(partitions.shape).shape
    inside = centre_box(shape, margin)
    with create_plain_hdf5(output) as file:
        file.attrs.update(shape_zyx=shape, margin_zyx=margin, seed=seed)
        for z in range(inside.start[0], inside.stop[0], _SLAB):
            slab = Box((z, *inside.start[1:]), (min(z + _SLAB, inside.stop[0]), *inside.stop[1:]))
            _append(file, _by_class(np.asarray(partitions[slab.slices]), slab, shape), shape)
        counts = {_class_of(name): len(file[name]) for name in file}
        require_centres(counts, margin)
        for name in file:
            permutation = np.random.default_rng([seed, _class_of(name)]).permutation(len(file[name]))
            file[name][...] = file[name][...][permutation]
        file.attrs.update(_reasons(shape, inside, sum(counts.values()), left_out or {}))
    return counts


def write_sample(
    parts: Iterable[Mapping[int, NDArray[np.uint64]]],
    output: Path,
    shape: ZYX,
    margin: ZYX,
    seed: int,
    available: Mapping[int, int],
    left_out: Mapping[str, int],
) -> dict[int, int]:
    """Write coordinates that were drawn from those of a volume (`ffn.prepare.sample`), in the order of their class.

    Where all were drawn, the file holds the same as that of `write_coordinates`. Memory is the indices of the largest
    class (24 bytes each).

    Args:
        parts: C-order indices by class, in any order.
        output: HDF5 file, written atomically.
        shape: Of the volume.
        margin: As for `write_coordinates`.
        seed: As for `write_coordinates`.
        available: How many voxels of each class they were drawn from; kept as the attribute `drawn_from`.
        left_out: As for `write_coordinates`.

    Returns:
        Number of coordinates of each class.
    """
    with create_plain_hdf5(output) as file:
        file.attrs.update(shape_zyx=shape, margin_zyx=margin, seed=seed)
        for part in parts:
            _append(file, part.items(), shape)
        for name in file:
            value, data = _class_of(name), file[name]
            permutation = np.random.default_rng([seed, value]).permutation(len(data))
            data[...] = np.sort(data[...])[permutation]
            data.attrs["drawn_from"] = available[value]
        file.attrs.update(_reasons(shape, centre_box(shape, margin), sum(available.values()), left_out))
        return {_class_of(name): len(file[name]) for name in file}


def centre_box(shape: ZYX, margin: ZYX) -> Box:
    """The voxels that keep `margin` to every face; GeometryError where there is none."""
    start, stop = margin, tuple(size - m for size, m in zip(shape, margin, strict=True))
    if any(b <= a for a, b in zip(start, stop, strict=True)):
        raise GeometryError(
            f"A margin of {_text(margin)} voxels leaves nothing of a volume of {_text(shape)} voxels: training patches "
            "do not fit into it. Use a larger volume, or a smaller fov or deltas."
        )
    return Box(start, stop)  # type: ignore[arg-type]


def require_centres(counts: Mapping[int, int], margin: ZYX) -> None:
    """Raise DataError where no class has any."""
    if not counts:
        raise DataError(
            f"There is no usable coordinate: all voxels at least {_text(margin)} voxels away from the faces are "
            "excluded, unlabelled, or too near to the border for their class or to another object. Use a larger "
            "label volume, a smaller lom_radius or fov, or a smaller min_boundary_nm."
        )


def _reasons(shape: ZYX, inside: Box, centres: int, left_out: Mapping[str, int]) -> dict[str, int]:
    """Attributes that say why voxels are no centres."""
    reasons = {reason: left_out.get(reason, 0) for reason in LEFT_OUT}
    reasons["outside"] = prod(shape) - inside.voxels
    reasons["ignored"] = inside.voxels - centres - sum(left_out.values())
    return {f"left_out_{reason}": voxels for reason, voxels in reasons.items()}


def _by_class(values: NDArray[np.generic], box: Box, shape: ZYX) -> Iterator[tuple[int, NDArray[np.uint64]]]:
    """Each class in `values`, the voxels of `box`, with their C-order indices into the volume, ascending."""
    z, y, x = (np.arange(s.start, s.stop, dtype=np.uint64) for s in box.slices)
    indices = ((z[:, None, None] * np.uint64(shape[1]) + y[:, None]) * np.uint64(shape[2]) + x).ravel()
    flat = values.ravel()
    order = np.argsort(flat, kind="stable")
    classes, firsts = np.unique(flat[order], return_index=True)
    for value, members in zip(classes.tolist(), np.split(order, firsts[1:]), strict=True):
        if value != IGNORED:
            yield value, indices[members]


def _append(file: h5py.File, by_class: Iterable[tuple[int, NDArray[np.uint64]]], shape: ZYX) -> None:
    for value, indices in by_class:
        name = f"{_CLASS_PREFIX}{value:03d}"
        if name not in file:
            smallest = np.uint32 if prod(shape) < 2**32 else np.uint64
            file.create_dataset(name, (0,), smallest, maxshape=(None,), chunks=(_CHUNK,))
        data = file[name]
        data.resize(len(data) + len(indices), axis=0)
        data[-len(indices) :] = indices


class CoordinateStream:
    """An endless, reproducible stream of example centres, of which each of `lanes` readers sees its own part.

    Draw number i of lane l is draw g = i * lanes + l of one global stream. The global stream goes in blocks of one
    draw a class, the classes in an order that is new in every block; the b-th block takes element b of each class,
    cyclically. So all classes are equally frequent, no voxel of a class comes again before all the others did,
    and to resume one only needs to remember i. Reads are buffered: a few thousand coordinates a class are in memory.
    Not for use from several threads at once.

    Attributes:
        counts: Coordinates of each class.
        drawn_from: How many there were in the volume: more than those in the file where it holds a sample.
        left_out: Voxels that are no centre, by reason.
    """

    def __init__(self, path: Path, seed: int, lane: int = 0, lanes: int = 1) -> None:
        """Open a file of `write_coordinates`; DataError if it is not one."""
        if not 0 <= lane < lanes:
            raise GeometryError(f"Lane {lane} of {lanes} does not exist: lanes count from 0.")
        self._seed, self._lane, self._lanes = seed, lane, lanes
        try:
            self._file = h5py.File(path, "r", locking=False)
        except OSError as error:
            raise DataError(f"{path} cannot be read ({error}); make it with `ffn coordinates`.") from error
        if f"left_out_{LEFT_OUT[0]}" not in self._file.attrs or len(self._file) == 0:
            self._file.close()
            raise DataError(f"{path} holds no coordinates; make it with `ffn coordinates`.")
        self._shape = tuple(int(size) for size in self._file.attrs["shape_zyx"])
        self.counts = {_class_of(name): len(self._file[name]) for name in sorted(self._file)}
        self.drawn_from = {
            _class_of(name): int(self._file[name].attrs.get("drawn_from", len(self._file[name])))
            for name in sorted(self._file)
        }
        self.left_out = {reason: int(self._file.attrs[f"left_out_{reason}"]) for reason in LEFT_OUT}
        self._data = [self._file[name] for name in sorted(self._file)]
        self._buffers: dict[int, tuple[int, NDArray[np.generic]]] = {}
        self._order: tuple[int, NDArray[np.int64]] = (-1, np.empty(0, np.int64))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; no draws after that."""
        self._file.close()

    @property
    def epoch(self) -> int:
        """Global draws until every coordinate has come at least once: classes times the size of the largest."""
        return len(self.counts) * max(self.counts.values())

    def draw(self, index: int) -> ZYX:
        """The centre z, y, x in voxels of the partitioned volume, of this lane's draw number `index`."""
        return self.draw_with_class(index)[0]

    def draw_with_class(self, index: int) -> tuple[ZYX, int]:
        """As `draw`, with the partition class of the voxel."""
        block, position = divmod(index * self._lanes + self._lane, len(self._data))
        if self._order[0] != block:
            self._order = block, np.random.default_rng([self._seed, block]).permutation(len(self._data))
        which = int(self._order[1][position])
        linear = self._element(which, block % len(self._data[which]))
        z, y, x = np.unravel_index(linear, self._shape)
        return (int(z), int(y), int(x)), _class_of(self._data[which].name)

    def _element(self, which: int, position: int) -> int:
        chunk, offset = divmod(position, _CHUNK)
        held = self._buffers.get(which)
        if held is None or held[0] != chunk:
            held = chunk, self._data[which][chunk * _CHUNK : (chunk + 1) * _CHUNK]
            self._buffers[which] = held
        return int(held[1][offset])


def _class_of(name: str) -> int:
    return int(name.removeprefix("/").removeprefix(_CLASS_PREFIX))


def _text(values: tuple[int, ...]) -> str:
    return ",".join(str(value) for value in values)
