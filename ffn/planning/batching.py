"""The sub-volumes of a run's test region in batches, each a job of inference, and the batches' markers."""

from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ffn.batches import cut
from ffn.blockwise import Ledger
from ffn.config import Config
from ffn.geometry import Box, overlapping_tiles
from ffn.inference.kept import ledger_of
from ffn.planning.estimate import chosen_tiles_per_job
from ffn.runs import SYNTHETIC, MarkedBatch, RunPaths


@dataclass(frozen=True)
class SubvolumeBatches:
    """How inference is cut into jobs; `jobs` is how many a cluster is given at once, None on this machine."""

    config: Config
    paths: RunPaths
    jobs: int | None = None

    @property
    def count(self) -> int | None:
        """Sub-volumes of the test region; None if that takes a look at the data."""
        region, inference = self.config.data.test, self.config.inference
        if inference.subvolume_size is None:
            return 1
        box = region.bounds
        if box is None and region.image == SYNTHETIC:
            box = Box.of_shape(self.config.synthetic.shape)
        if box is None:
            return None
        return len(overlapping_tiles(box, inference.subvolume_size, inference.subvolume_overlap))

    @cached_property
    def size(self) -> int:
        """Sub-volumes that a new batch holds at most."""
        stated = self.config.inference.tiles_per_job
        return stated or chosen_tiles_per_job(self.config, self.jobs)

    def markers(self, count: int) -> list[str]:
        """Markers of all batches of `count` sub-volumes; finished ones stay as they were cut."""
        finished = [marked.batch for marked in self._marked()]
        return [str(self.paths.infer_jobs / f"{batch}.done") for batch in cut(count, self.size, finished)]

    def to_do(self) -> int:
        """Batches that are not finished; 0 where that takes a look at the data."""
        if self.count is None:
            return 0
        return sum(not Path(marker).exists() for marker in self.markers(self.count))

    def forget_lost(self) -> None:
        """Remove the markers of batches of which a sub-volume is lost, so that they are made again."""
        ledgers: dict[Path, Ledger | None] = {}
        for marked in self._marked():
            folder = self._kept(marked)
            if folder not in ledgers:
                ledgers[folder] = ledger_of(folder)
            ledger = ledgers[folder]
            if ledger is None or ledger.missing(marked.batch.indices):
                with suppress(OSError):  # a dry-run may look at results that it cannot change
                    marked.path.unlink()

    def _kept(self, marked: MarkedBatch) -> Path:
        """Where the sub-volumes are kept that a marker says are finished."""
        if marked.number is not None:
            return self.paths.infer_pass(marked.number)
        return self.paths.filled(len(self.config.inference.all_passes))

    def _marked(self) -> list[MarkedBatch]:
        found = map(MarkedBatch.read, sorted(self.paths.infer_jobs.glob("*.done")))
        return [marked for marked in found if marked is not None]
