"""Where the scaling study keeps its files: results/<run>/scaling/, one folder a part."""

from dataclasses import dataclass
from pathlib import Path

from ffn.config import Config
from ffn.runs import RunPaths


@dataclass(frozen=True)
class StudyPaths:
    """Paths of one run's study, all below `root`."""

    root: Path

    @classmethod
    def of(cls, config: Config) -> "StudyPaths":
        return cls(RunPaths.of(config).root / "scaling")

    @property
    def strong(self) -> Path:
        """Throughput over ranks: plot, table, page."""
        return self.root / "strong"

    def point(self, ranks: int, repeat: int) -> Path:
        """Folder of one measurement of throughput."""
        return self.root / "points" / f"ranks-{ranks:04d}" / f"repeat-{repeat}"

    @property
    def lr_study(self) -> Path:
        """Learning rate over workers: plot, table, page."""
        return self.root / "lr_study"

    @property
    def cells(self) -> Path:
        return self.root / "cells"

    def cell(self, name: str) -> Path:
        """Folder of one cell: its done-marker holds its scores, `train` its curves and weights."""
        return self.cells / name

    @property
    def rounds(self) -> Path:
        return self.root / "rounds"

    @property
    def efficiency(self) -> Path:
        """Time to a given F1: plot, table, page."""
        return self.root / "efficiency"

    @property
    def cost(self) -> Path:
        """Cost model: calibration, plot, table, page."""
        return self.root / "cost"
