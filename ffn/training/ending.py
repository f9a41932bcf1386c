"""How a rank ends when something goes wrong, on it or on another: with the reason, and without waiting for anyone."""

import os
import secrets
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from ffn.attempts import Attempt, tell_end
from ffn.errors import FFNError, InterruptedTrainingError, RankError
from ffn.training.ranks import Ranks, lost_rank
from ffn.training.rollcall import RollCall, clear

LEAVE_S = 20.0
"""Seconds that a rank that has failed may take to leave in good order."""
POLL_S = 1.0
FOLDER = "ranks"


class Company:
    """The ranks of one start of a run, as long as they stay together."""

    def __init__(self, ranks: Ranks) -> None:
        self._ranks = ranks
        self._rollcall: RollCall | None = None

    def meet(self, folder: Path) -> None:
        """From now on each rank gives signs of life, in the run's `folder`. Every rank calls this."""
        ranks = self._ranks
        if ranks.size == 1:
            return
        number = int(ranks.sum(np.array([float(secrets.randbits(48) if ranks.first else 0)]))[0])
        meeting = folder / FOLDER / f"{number:012x}"

        def make() -> None:
            clear(meeting.parent)
            meeting.mkdir(parents=True)

        ranks.first_does(make)
        self._rollcall = RollCall(meeting, ranks.rank, ranks.size, ranks.allreduce.stall_s, self._abandon)
        ranks.barrier()
        self._rollcall.begin()

    def part(self) -> None:
        """The work is done. Every rank calls this."""
        if self._rollcall is not None:
            self._ranks.barrier()
            self._rollcall.end()
            if self._ranks.first:
                clear(self._rollcall.folder.parent)
            self._rollcall = None

    @contextmanager
    def together(self) -> Iterator[None]:
        """What goes wrong in the block ends this rank with the reason, and the others with that and its number."""
        try:
            yield
        except BaseException as error:
            if self._ranks.size == 1:
                raise
            mine = self._explain(error)
            _leave_by(time.monotonic() + LEAVE_S, mine)
            if mine is error:
                raise
            raise mine from error

    def _explain(self, error: BaseException) -> BaseException:
        rank, rollcall = self._ranks.rank, self._rollcall
        if isinstance(error, InterruptedTrainingError):
            return error
        lost = lost_rank(error)
        if lost is not None:
            return rollcall.lost() if rollcall is not None else lost
        if isinstance(error, RankError):  # of rank 0, which says more
            return error
        if rollcall is not None:
            rollcall.tell(str(error) if isinstance(error, FFNError) else f"{type(error).__name__}: {error}")
        return type(error)(f"Rank {rank}: {error}") if isinstance(error, FFNError) else error

    def _abandon(self, error: RankError) -> None:
        """End this process now: its main thread waits for a rank that hangs."""
        print(f"\nffn: error: {error}", file=sys.stderr, flush=True)
        tell_end(error)
        os._exit(error.exit_code)


def _leave_by(deadline: float, error: BaseException) -> None:
    """End the process at a time, should leaving in good order take longer: Horovod and readers may hang then."""

    def leave() -> None:
        time.sleep(max(deadline - time.monotonic(), 0))
        os._exit(error.exit_code if isinstance(error, FFNError) else 1)

    threading.Thread(target=leave, name="leave", daemon=True).start()


@contextmanager
def stop_when_asked(ranks: Ranks) -> Iterator[None]:
    """Rank 0 takes a request to stop from whoever attends to the run as a SIGTERM."""
    attempt = Attempt.current()
    over = threading.Event()

    def watch(attempt: Attempt) -> None:
        while not over.wait(POLL_S):
            if attempt.is_to_stop:
                os.kill(os.getpid(), signal.SIGTERM)
                return

    if attempt is not None and ranks.first:
        threading.Thread(target=watch, args=(attempt,), name="stop", daemon=True).start()
    try:
        yield
    finally:
        over.set()
