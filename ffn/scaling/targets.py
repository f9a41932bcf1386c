"""What the Snakemake rules need to know of the scaling study: files, markers, cells, resources."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ffn.config import Config
from ffn.scaling.cells import Cell
from ffn.scaling.paths import StudyPaths
from ffn.scaling.rounds import most_rounds

_FIGURES = {"strong": "scaling", "lr_study": "lr_study", "efficiency": "efficiency", "cost": "cost"}


@dataclass(frozen=True)
class StudyPlan:
    """The jobs of one run's study."""

    config: Config
    paths: StudyPaths
    cell_keys = ("data.train", "data.validation", "network", "prepare", "training", "augmentation", "seed")

    @classmethod
    def of(cls, config: Config) -> "StudyPlan":
        return cls(config, StudyPaths.of(config))

    @property
    def real(self) -> bool:
        """Whether each cell is a job with as many ranks as workers."""
        return self.config.study.real

    def marker(self, part: str) -> str:
        """Done-marker of `strong`, `lr_study`, `efficiency` or `cost`."""
        return str(self.paths.root / part / "done.json")

    def figure(self, part: str) -> str:
        """The picture of a part."""
        return str(self.paths.root / part / f"{_FIGURES[part]}.png")

    # --- throughput over ranks

    @property
    def point_marker(self) -> str:
        """Done-marker of one measurement, with the wildcards `ranks` and `repeat`."""
        return str(self.paths.root / "points" / "ranks-{ranks}" / "repeat-{repeat}" / "done.json")

    @property
    def point_markers(self) -> list[str]:
        scaling = self.config.study.scaling
        points = [(ranks, repeat) for repeat in range(1, scaling.repeats + 1) for ranks in scaling.ranks]
        return [str(self.paths.point(*point) / "done.json") for point in points]

    def nodes(self, ranks: int) -> int:
        """Machines for this many ranks."""
        return -(-ranks // self.config.cluster.ranks_per_node)

    # --- cells, each a job

    @property
    def cell_marker(self) -> str:
        """Done-marker of a cell, with the wildcard `cell`."""
        return str(self.paths.cell("{cell}") / "done.json")

    @property
    def round_list(self) -> str:
        """Names of the cells of a round, one a line, with the wildcard `round`."""
        return str(self.paths.rounds / "{round}.txt")

    def ranks(self, cell: str) -> int:
        """Ranks of a cell's job: its workers, or one that stands in for all of them."""
        return Cell.parse(cell).workers if self.real else 1

    @property
    def cell_threads(self) -> int:
        """Threads of a cell's job on one machine; 0 = all cores. With fewer, cells are trained side by side."""
        return 0 if self.real else self.config.threads.intra_op

    def cells_of_round(self, checkpoints: Any, number: int) -> list[str]:
        """Markers of the cells of one round; `checkpoints` is Snakemake's. Nothing before round 0."""
        if number < 0:
            return []
        listing = Path(checkpoints.lr_round.get(round=number).output.cells).read_text(encoding="utf-8")
        return [self.cell_marker.format(cell=name) for name in listing.split()]

    def all_cells(self, checkpoints: Any) -> list[str]:
        """Markers of all rounds' cells."""
        rounds = range(most_rounds(self.config.study.lr_study))
        return [marker for number in reversed(rounds) for marker in self.cells_of_round(checkpoints, number)]

    # --- efficiency

    @property
    def efficiency_costs(self) -> list[str]:
        """Marker of what says how long steps take: the cost model, unless the cells themselves do."""
        return [] if self.real else [self.marker("cost")]
