"""Tables of any length: columns in files, looked up without being read, and sorted in bounded memory.

    sorting     rows ─> sorted runs on disk ─> cut at the same keys ─> pieces, each merged in memory, in ascending order

A table here is a mapping from names to arrays of equal length. Rows are compared by some of its columns, the first of
them first.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np
from numpy.typing import NDArray

from ffn.files import atomic_path, temporary_path

Table = Mapping[str, NDArray[Any]]

ROWS = 1 << 21
"""Rows that are held in memory, about."""


def lower_bound(columns: Sequence[NDArray[Any]], values: Sequence[NDArray[Any]]) -> NDArray[np.int64]:
    """How many rows of sorted columns are smaller than each row of `values`, int64 [n].

    Args:
        columns: Sorted by the first of them, then by the second, ...; may be mapped files, of which little is read.
        values: What is looked for, in the same types.
    """
    low = np.zeros(len(values[0]), np.int64)
    high = np.full(len(values[0]), len(columns[0]), np.int64)
    while (open_ := np.flatnonzero(low < high)).size:
        middle = (low[open_] + high[open_]) // 2
        smaller = _smaller([column[middle] for column in columns], [value[open_] for value in values])
        low[open_[smaller]] = middle[smaller] + 1
        high[open_[~smaller]] = middle[~smaller]
    return low


def _smaller(left: Sequence[NDArray[Any]], right: Sequence[NDArray[Any]]) -> NDArray[np.bool_]:
    smaller, equal = np.zeros(len(left[0]), np.bool_), np.ones(len(left[0]), np.bool_)
    for one, other in zip(left, right, strict=True):
        smaller |= equal & (one < other)
        equal &= one == other
    return smaller


def find_rows(
    columns: Sequence[NDArray[Any]], values: Sequence[NDArray[Any]]
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Where in sorted columns rows equal to those of `values` are, and which there are; arguments of `lower_bound`."""
    rows = lower_bound(columns, values)
    there = rows < len(columns[0])
    for column, value in zip(columns, values, strict=True):
        there[there] = column[rows[there]] == value[there]
    return rows, there


def group_starts(columns: Sequence[NDArray[Any]]) -> NDArray[np.int64]:
    """The first row of each group of equal rows in sorted columns, int64."""
    if len(columns[0]) == 0:
        return np.empty(0, np.int64)
    differs = np.ones(len(columns[0]), np.bool_)
    differs[1:] = np.any([column[1:] != column[:-1] for column in columns], axis=0)
    return np.flatnonzero(differs)


def sorted_by(table: Table, keys: Sequence[str]) -> Table:
    """The rows in ascending order of these columns."""
    order = np.lexsort([table[key] for key in reversed(keys)])
    return {name: values[order] for name, values in table.items()}


def concatenated(tables: Sequence[Table]) -> Table:
    """The rows of one or more tables, one after the other."""
    return {name: np.concatenate([table[name] for table in tables]) for name in tables[0]}


class StoredTable:
    """A table in files, `PATH.COLUMN.npy`.

    Args:
        path: How its files' names begin.
        names: Of its columns.
    """

    def __init__(self, path: Path, names: Sequence[str]) -> None:
        self.path, self.names = path, names

    def __len__(self) -> int:
        return len(self._mapped[self.names[0]])

    def __getitem__(self, name: str) -> NDArray[Any]:
        """A column, mapped into memory: for looking up a few of its rows."""
        return self._mapped[name]

    def rows(self, begin: int, end: int) -> Table:
        """Some rows, read."""
        return {name: _read(self._mapped[name], begin, end) for name in self.names}

    def unmap(self) -> None:
        """Let go of the mapped files: what was looked at, with its surroundings, counts as memory of the process."""
        self.__dict__.pop("_mapped", None)

    @property
    def bytes(self) -> int:
        """Bytes of all its files; 0 for those that are missing."""
        files = (_file(self.path, name) for name in self.names)
        return sum(file.stat().st_size for file in files if file.exists())

    @cached_property
    def _mapped(self) -> Mapping[str, NDArray[Any]]:
        return {name: np.load(_file(self.path, name), mmap_mode="r", allow_pickle=False) for name in self.names}


class TableWriter:
    """Writes a `StoredTable`, piece by piece; use as a context manager. The files appear when the block succeeds.

    Args:
        path: How its files' names begin.
        types: Type of each column, or its type and the length of its rows.
    """

    def __init__(self, path: Path, types: Mapping[str, Any]) -> None:
        self.path, self._types = path, {name: np.dtype(kind) for name, kind in types.items()}
        self._count = 0
        self._stack = ExitStack()
        self._files: dict[str, BinaryIO] = {}

    def append(self, table: Table) -> None:
        """Add rows; other columns than those of the table are left out."""
        count = {len(table[name]) for name in self._types}
        (rows,) = count
        for name, kind in self._types.items():
            values = np.ascontiguousarray(table[name], kind.base)
            self._files[name].write(values.data if values.size else b"")
        self._count += rows

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            for name in self._types:
                partial = stack.enter_context(atomic_path(_file(self.path, name)))
                self._files[name] = stack.enter_context(partial.open("wb"))
                self._head(name)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            for name, file in self._files.items():
                # NumPy leaves room in the header for the number of rows to grow.
                file.seek(0)
                self._head(name)
                file.flush()
        self._stack.__exit__(kind, error, trace)

    def _head(self, name: str) -> None:
        kind = self._types[name]
        head = {"descr": np.lib.format.dtype_to_descr(kind.base), "fortran_order": False}
        np.lib.format.write_array_header_1_0(self._files[name], {**head, "shape": (self._count, *kind.shape)})


class Sorter:
    """Takes rows in any order and gives them back sorted, in pieces that fit into memory; use as a context manager.

    Args:
        folder: What does not fit into memory goes into a folder of its own in there.
        keys: Columns by which rows are compared.
        together: That many of the keys, the first ones, say which rows belong together: those in which they are equal
            come in one piece, even where that is a large one.
        rows: Held in memory at once, about twice.
    """

    def __init__(self, folder: Path, keys: Sequence[str], together: int | None = None, rows: int = ROWS) -> None:
        self._folder, self._keys, self._rows = folder, list(keys), rows
        self._together = self._keys[:together]
        self._waiting: list[Table] = []
        self._count = 0
        self._runs: list[StoredTable] = []
        self._spill: Path | None = None
        self._files = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._files.close()

    def add(self, table: Table) -> None:
        """Add rows; all tables have the same columns."""
        total = len(table[self._keys[0]])
        for begin in range(0, total, self._rows):
            piece = {name: values[begin : begin + self._rows] for name, values in table.items()}
            self._waiting.append(piece)
            self._count += len(piece[self._keys[0]])
            if self._count >= self._rows:
                self._end_run()

    def pieces(self) -> Iterator[Table]:
        """All rows in ascending order."""
        if not self._runs:
            if self._waiting:
                yield sorted_by(concatenated(self._waiting), self._keys)
            return
        if self._waiting:
            self._end_run()
        splitters = self._splitters()
        cuts = [self._cuts(run, splitters) for run in self._runs]
        begins = np.zeros(len(self._runs), np.int64)
        for ends in [*np.transpose(cuts), np.array([len(run) for run in self._runs])]:
            parts = [run.rows(a, b) for run, a, b in zip(self._runs, begins.tolist(), ends.tolist(), strict=True)]
            if (ends > begins).any():
                yield sorted_by(concatenated(parts), self._keys)
            begins = ends

    def _every(self, run: StoredTable, stride: int) -> Table:
        """Each `stride`-th row of a run, of the keys that hold rows together."""
        taken = {key: np.array(run[key][stride::stride]) for key in self._together}
        run.unmap()
        return taken

    def _cuts(self, run: StoredTable, splitters: list[NDArray[np.generic]]) -> NDArray[np.int64]:
        """Where the pieces of a run end, but for the last one."""
        cuts = lower_bound([run[key] for key in self._together], splitters)
        run.unmap()
        return cuts

    def _splitters(self) -> list[NDArray[np.generic]]:
        """Where pieces end, as rows of the keys that hold rows together.

        From each run every so many-th row is taken. Between two of the rows taken, a run has fewer than that many; so
        a piece from one splitter to the next has at most `rows` rows, but for rows that belong together.
        """
        runs = len(self._runs)
        stride = max(self._rows // (2 * runs), 1)
        taken = sorted_by(concatenated([self._every(run, stride) for run in self._runs]), self._together)
        chosen = {key: values[runs::runs] for key, values in taken.items()}
        starts = group_starts(list(chosen.values()))
        return [chosen[key][starts] for key in self._together]

    def _end_run(self) -> None:
        if self._spill is None:
            self._spill = self._files.enter_context(temporary_path(self._folder / "sorted"))
            self._spill.mkdir()
        table = sorted_by(concatenated(self._waiting), self._keys)
        path = self._spill / str(len(self._runs))
        for name, values in table.items():
            np.save(_file(path, name), values, allow_pickle=False)
        self._runs.append(StoredTable(path, list(table)))
        self._waiting, self._count = [], 0


def _file(path: Path, column: str) -> Path:
    return path.with_name(f"{path.name}.{column}.npy")


def _read(mapped: NDArray[Any], begin: int, end: int) -> NDArray[Any]:
    """Rows of a mapped file, read in the ordinary way: pages of mapped files count as memory of the process."""
    if begin == end or not isinstance(mapped, np.memmap):
        return np.array(mapped[begin:end])
    row = mapped.dtype.itemsize * int(np.prod(mapped.shape[1:]))
    count = (end - begin) * int(np.prod(mapped.shape[1:]))
    read = np.fromfile(str(mapped.filename), mapped.dtype, count, offset=mapped.offset + begin * row)
    return read.reshape(-1, *mapped.shape[1:])
