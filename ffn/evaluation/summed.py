"""The sum of many tables: where it is too large for memory it lies in files, sorted, and is read in parts.

tables of blocks ─> sums of some of them ─> sorted out of core, equal pairs added ─> one table in files
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np

from ffn.blockwise.tables import ROWS, Sorter, StoredTable, TableWriter
from ffn.evaluation.contingency import Contingency, Rows, partial_sums
from ffn.evaluation.totals import Totals
from ffn.files import temporary_path

_TYPES = {"truth": np.uint64, "segmentation": np.uint64, "count": np.int64}
_KEYS = ("truth", "segmentation")


@dataclass(frozen=True)
class StoredContingency:
    """A contingency table in files.

    Attributes:
        table: The columns of a `Contingency`, sorted as there.
        totals: Voxels of its bodies and segments, in memory.
        rows: Of a part.
    """

    table: StoredTable
    totals: Totals
    rows: int

    def parts(self) -> Iterator[Contingency]:
        """Its rows in order, some at a time."""
        for begin in range(0, self.totals.pairs, self.rows):
            yield Contingency(**self.table.rows(begin, min(begin + self.rows, self.totals.pairs)))


@contextmanager
def summed(tables: Iterable[Contingency], folder: Path, rows: int = ROWS) -> Iterator[Rows]:
    """Add tables, in any order, as they come.

    Args:
        tables: Taken one at a time.
        folder: Where the sum has more than `rows` rows, it lies in a temporary folder in there during the block.
        rows: Held in memory at once, about.
    """
    sums = partial_sums(tables, rows)
    first, second = next(sums), next(sums, None)
    if second is None:
        yield first
        return
    with temporary_path(folder / "pairs") as files:
        files.mkdir()
        totals = Totals.joined(_stored(chain((first, second), sums), files, rows), files, rows)
        yield StoredContingency(StoredTable(files / "sum", list(_TYPES)), totals, rows)


def _stored(tables: Iterable[Contingency], files: Path, rows: int) -> Iterator[Totals]:
    """Write the sum of tables, and return the totals of each part of it."""
    with Sorter(files, _KEYS, rows=rows) as sorter, TableWriter(files / "sum", _TYPES) as writer:
        for table in tables:
            sorter.add(table.columns)
        for piece in sorter.pieces():
            part = Contingency.of_sorted(**piece)
            writer.append(part.columns)
            yield part.totals
