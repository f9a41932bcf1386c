"""The thread settings worth trying on a node: ranks, and threads and places of each."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from ffn.config import Config, Threads, Training

MOST_RANKS = 16
_FINE_AFFINITY = "granularity=fine,compact,1,0"


@dataclass(frozen=True)
class Candidate:
    """One way to run training on this machine; `batch` and `virtual_workers` are those of each rank."""

    ranks: int
    virtual_workers: int
    batch: int
    threads: Threads

    @classmethod
    def of(cls, training: Training, ranks: int, threads: Threads) -> "Candidate":
        """So many ranks, with the configured update of the weights where they can share it out evenly.

        Workers are dealt out to ranks as virtual ones; where the rate does not depend on their number, one worker's
        batch is divided too. Otherwise each rank gets what one has in the configuration, and updates grow.
        """
        workers, fovs = training.ranks * training.virtual_workers, training.batch
        if workers % ranks == 0:
            return cls(ranks, workers // ranks, fovs, threads)
        if training.rate_scaling == "none" and workers * fovs % ranks == 0:
            return cls(ranks, 1, workers * fovs // ranks, threads)
        return cls(ranks, training.virtual_workers, fovs, threads)

    @property
    def fovs(self) -> int:
        """Fields of view of one pass of all ranks."""
        return self.ranks * self.virtual_workers * self.batch

    def at_once(self, microbatch: int) -> int:
        """Fields of view that go through a rank's network together."""
        lanes = self.virtual_workers * self.batch
        return math.ceil(lanes / math.ceil(lanes / microbatch))

    def with_threads(self, **changes: object) -> "Candidate":
        """The same ranks with other threads."""
        return Candidate(self.ranks, self.virtual_workers, self.batch, self.threads.model_copy(update=changes))


def layouts(config: Config, cores: int) -> Iterator[Candidate]:
    """One rank on all cores; the configuration as it is, if that differs; then more ranks that divide the cores."""
    training, threads = config.training, config.threads
    alone = Candidate.of(training, 1, Threads(intra_op=cores))
    yield alone
    if threads != Threads() or training.ranks > 1:
        configured = threads.intra_op or max(cores // training.ranks, 1)
        yield Candidate.of(training, training.ranks, threads.model_copy(update={"intra_op": configured}))
    ranks = 2
    while ranks <= min(cores, MOST_RANKS):
        yield Candidate.of(training, ranks, Threads(intra_op=cores // ranks))
        ranks *= 2


def refinements(best: Candidate, cores: int, openmp: bool) -> Iterator[Candidate]:
    """Variations of the best layout, the most promising first.

    `openmp`: whether TensorFlow runs on OpenMP; only then do its variables decide anything.
    """
    intra_op = best.threads.intra_op
    if openmp:
        sleepy = best.with_threads(omp=intra_op, kmp_blocktime=0)
        yield sleepy
        yield sleepy.with_threads(kmp_affinity=_FINE_AFFINITY)
    for inter_op in (2, 1):
        if inter_op != cores:
            yield best.with_threads(inter_op=inter_op)
    if best.ranks > 1:
        yield best.with_threads(pin=True)
        yield best.with_threads(intra_op=cores)
    if intra_op > 1:
        yield best.with_threads(intra_op=intra_op // 2)
    yield best.with_threads(onednn=False)
