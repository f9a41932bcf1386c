"""What a step does with its units: the one class that a new blockwise stage has to write."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from ffn.blockwise.grid import Grid
from ffn.blockwise.ledger import Columns, Entry
from ffn.geometry import Box


@dataclass(frozen=True)
class Result:
    """What a unit leaves in the ledger, beside the files that it wrote.

    Attributes:
        columns: Small arrays for a later step.
        facts: Numbers and texts (JSON), such as sizes of files by which `Task.is_intact` knows damage.
    """

    columns: Columns = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)


class Task(ABC):
    """A step's work.

    A task is pickled once for each process of a pool, so it holds paths and numbers; files are opened when they are
    needed first (`functools.cached_property`) and let go of in `close`.

    Attributes:
        name: Of the step: its folder and its `--step` on the command line.
        unit: What progress counts.
        remedy: What helps where processes take too much memory.
        takes_machine: Whether a unit has all cores, or a GPU, to itself. Its units are then done in the first process,
            one after the other.
        keeps_ledger: Whether its ledger is a part of the result and stays. The stage is then never marked complete:
            the ledger says what is, and the next command does again what was lost.
        unit_bytes: Memory that a unit takes, where that is more than some 100 MB: a machine does as many units at once
            as fit. 0 = no matter.
    """

    name: ClassVar[str]
    unit: ClassVar[str] = "units"
    takes_machine: ClassVar[bool] = False
    keeps_ledger: ClassVar[bool] = False
    remedy: ClassVar[str] = "Use fewer processes."
    unit_bytes: int = 0

    @abstractmethod
    def __len__(self) -> int:
        """How many units there are.

        May follow from what an earlier step noted (`Step.facts`): it is asked for when the step before is complete.
        """

    @abstractmethod
    def run(self, unit: int) -> Result:
        """Do one unit: write its files atomically and return what is noted of it.

        The result depends on the unit's number and on files of earlier steps only, never on who does it, or when.
        """

    def is_intact(self, entry: Entry) -> bool:
        """Whether the files of a unit that is done are there and whole; looks at sizes, not at contents."""
        return True

    def size(self, unit: int) -> int:
        """What a unit adds to the progress."""
        return 1

    def note(self, result: Result) -> str:
        """What the progress shows behind the rate when a unit is done."""
        return ""

    def close(self) -> None:  # noqa: B027 - most tasks hold nothing open
        """Let go of open files."""


class BlockTask(Task):
    """A step over the blocks of a volume.

        read box   +-----------+     what a unit looks at: its block, maybe with a rim
                   |  +-----+  |
        write box  |  |     |  |     what it alone writes
                   |  +-----+  |
                   +-----------+

    Attributes:
        grid: The blocks, in voxels of the volume that is written.
    """

    grid: Grid
    unit = "voxels"

    def __len__(self) -> int:
        return len(self.grid)

    def write_box(self, unit: int) -> Box:
        """The voxels that this unit alone writes."""
        return self.grid[unit]

    def read_box(self, unit: int) -> Box:
        """The voxels that a unit looks at."""
        return self.write_box(unit)

    def size(self, unit: int) -> int:
        return self.write_box(unit).voxels


class Reduce(Task):
    """A step of a single unit, done in the first process: it joins what the units before it left."""

    def __len__(self) -> int:
        return 1
