"""Which units of a step are done, and what each leaves for the steps behind it.

Each process appends to two files of its own, in the folder of its job in the step's folder:

    <job>/<process>.arrays    the arrays of one unit after the other
    <job>/<process>.jsonl     a line for each unit that is done, with where its arrays are

Arrays are on the disk before the line that names them, and a line before the unit counts as done. So what is done is
the union of all whole lines: a line or an array that a kill cut short is passed over, and its unit done again. The
first line says which settings the units belong to.
"""

import io
import json
import os
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from ffn.errors import StageError
from ffn.files import sync
from ffn.processes import ProcessId

Columns = Mapping[str, NDArray[Any]]
"""Small arrays that a unit leaves, by name."""


@dataclass(frozen=True)
class Entry:
    """A unit that is done.

    Attributes:
        unit: Its number.
        facts: Numbers and texts (JSON) that were noted with it.
        arrays: File of its arrays.
        begin, size, checksum: Where they are in that file, their bytes, and CRC-32.
        redone: How often the unit had been done before, and its output was found damaged.
    """

    unit: int
    facts: Mapping[str, Any]
    arrays: Path
    begin: int
    size: int
    checksum: int
    redone: int = 0

    def columns(self) -> Columns:
        """The arrays. Raises StageError where they are damaged."""
        if self.size == 0:
            return {}
        with self.arrays.open("rb") as file:
            file.seek(self.begin)
            content = file.read(self.size)
        if crc32(content) != self.checksum:
            raise StageError(
                f"{self.arrays} is damaged: the arrays of unit {self.unit} are not those that were written. Delete "
                "that file and run the same command again; its units will be done again."
            )
        with np.load(io.BytesIO(content), allow_pickle=False) as loaded:
            return dict(loaded.items())


class Ledger:
    """What is done of a step, by all processes; `refresh` reads what was added since.

    Args:
        folder: Of the step; need not be there yet.
        fingerprint: Of the settings that decide the units' results, and of how the work is cut.
        units: How many there are.
        reads: Whether to look at what a job did, by its name: where there are thousands of jobs whose units do not
            matter.
    """

    def __init__(
        self, folder: Path, fingerprint: str, units: int, reads: Callable[[str], bool] = lambda job: True
    ) -> None:
        self.folder, self.fingerprint, self.units = folder, fingerprint, units
        self._reads = reads
        self._entries: dict[int, Entry] = {}
        self._forgotten: dict[int, int] = {}
        self._read: dict[Path, int] = {}
        self.refresh()

    @classmethod
    def found(cls, folder: Path) -> Self | None:
        """What is done in a folder whatever the settings were, for lists and estimates; None where that is nothing."""
        for path in sorted(folder.glob("*/*.jsonl")):
            try:
                with path.open("rb") as file:
                    head = json.loads(file.readline())
                return cls(folder, str(head["fingerprint"]), int(head["units"]))
            except (OSError, ValueError, KeyError, TypeError, StageError):
                continue
        return None

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, unit: int) -> bool:
        return unit in self._entries

    def __getitem__(self, unit: int) -> Entry:
        """The entry of a unit. Raises StageError where it is not done."""
        if unit not in self:
            raise StageError(f"{self.folder}: unit {unit} of {self.units} is not done.")
        return self._entries[unit]

    @property
    def is_complete(self) -> bool:
        return len(self) == self.units

    @property
    def processes(self) -> int:
        """Processes that have written here."""
        return len(self._read)

    def missing(self, units: Iterable[int]) -> list[int]:
        """Those of `units` that are not done."""
        return [unit for unit in units if unit not in self]

    def entries(self) -> Iterator[Entry]:
        """All entries in the order of the units."""
        return (self._entries[unit] for unit in sorted(self._entries))

    def columns(self) -> Iterator[Columns]:
        """The arrays of one unit after the other, in the order of the units; a fresh iterator at each call."""
        return (entry.columns() for entry in self.entries())

    def forget(self, damaged: Callable[[Entry], bool]) -> int:
        """Take units whose output is damaged for not done; returns how many there are."""
        lost = [entry for entry in self._entries.values() if damaged(entry)]
        for entry in lost:
            del self._entries[entry.unit]
            self._forgotten[entry.unit] = entry.redone + 1
        return len(lost)

    def redone(self, unit: int) -> int:
        """How often a unit has been done and was taken for not done."""
        return self._forgotten.get(unit, 0)

    def take(self, entry: Entry) -> None:
        """Take in an entry; of several of one unit the last one counts, of equally late ones the first."""
        known = self._entries.get(entry.unit)
        if entry.redone >= self.redone(entry.unit) and (known is None or entry.redone > known.redone):
            self._entries[entry.unit] = entry

    def refresh(self, job: str = "*") -> None:
        """Take in the lines that were added since, by the processes of one job or of all. Raises StageError for units
        of other settings."""
        jobs = [folder for folder in sorted(self.folder.glob(job)) if self._reads(folder.name)]
        for path in (path for folder in jobs for path in sorted(folder.glob("*.jsonl"))):
            begin = self._read.get(path, 0)
            try:
                with path.open("rb") as file:
                    file.seek(begin)
                    whole = file.read()
            except FileNotFoundError:
                # Another process has just ended the stage.
                continue
            # A line without its end was cut by a kill, or is just being written.
            whole = whole[: whole.rfind(b"\n") + 1]
            lines = whole.splitlines()
            if begin == 0 and lines:
                self._require_settings(path, lines.pop(0))
            self._read[path] = begin + len(whole)
            self._take_in(path.with_suffix(".arrays"), lines)

    def _require_settings(self, path: Path, first: bytes) -> None:
        try:
            head = json.loads(first)
            theirs = head["fingerprint"], head["units"]
        except (ValueError, KeyError, TypeError) as error:
            raise StageError(f"{path} is no ledger of this workflow ({error}); move it away.") from error
        if theirs != (self.fingerprint, self.units):
            raise StageError(
                f"{path} is the ledger of {theirs[1]} units made with other settings, now there are {self.units}. "
                f"Delete {self.folder} to do this step again."
            )

    def _take_in(self, arrays: Path, lines: Iterable[bytes]) -> None:
        there = arrays.stat().st_size if arrays.exists() else 0
        for line in lines:
            try:
                note = json.loads(line)
                entry = Entry(arrays=arrays, **note)
                usable = 0 <= entry.unit < self.units and entry.begin + entry.size <= there
            except (ValueError, TypeError):
                continue
            if usable:
                self.take(entry)


@dataclass
class LedgerWriter:
    """The files of this process in a ledger; made when the first unit is noted."""

    folder: Path
    fingerprint: str
    units: int
    _name: str = field(default_factory=lambda: f"{ProcessId.current().name}-{uuid.uuid4().hex[:8]}")
    _lines: io.BufferedWriter | None = None
    _arrays: io.BufferedWriter | None = None

    def add(self, unit: int, columns: Columns, facts: Mapping[str, Any], redone: int = 0) -> Entry:
        """Note that a unit is done: it is when this returns."""
        content = b""
        if columns:
            buffer = io.BytesIO()
            np.savez_compressed(buffer, allow_pickle=False, **columns)
            content = buffer.getvalue()
        if self._lines is None:
            self._lines = self._begin()
        begin = self._keep(content) if content else 0
        path = self.folder / f"{self._name}.arrays"
        entry = Entry(unit, dict(facts), path, begin, len(content), crc32(content), redone)
        self._lines.write(_line({name: value for name, value in vars(entry).items() if name != "arrays"}))
        _flush(self._lines)
        return entry

    def _begin(self) -> io.BufferedWriter:
        self.folder.mkdir(parents=True, exist_ok=True)
        lines = (self.folder / f"{self._name}.jsonl").open("wb")
        lines.write(_line({"fingerprint": self.fingerprint, "units": self.units}))
        _flush(lines)
        sync(self.folder)
        return lines

    def _keep(self, content: bytes) -> int:
        """Append arrays; returns where they begin."""
        if self._arrays is None:
            self._arrays = (self.folder / f"{self._name}.arrays").open("wb")
            sync(self.folder)
        begin = self._arrays.tell()
        self._arrays.write(content)
        _flush(self._arrays)
        return begin

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in (self._lines, self._arrays):
            if file is not None:
                file.close()


def _line(note: Mapping[str, Any]) -> bytes:
    return json.dumps(note, separators=(",", ":")).encode() + b"\n"


def _flush(file: io.BufferedWriter) -> None:
    file.flush()
    os.fsync(file.fileno())
