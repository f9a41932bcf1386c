"""How a rank ends when something goes wrong, on it or on another: with the reason, and without waiting for anyone."""

import os
import secrets
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import numpy as np

from ffn.attempts import Attempt, tell_end
from ffn.errors import DivergedError, FFNError, InterruptedTrainingError, LostRankError, RankError
from ffn.files import remove
from ffn.training.ranks import Ranks, lost_rank
from ffn.training.rollcall import RollCall

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
            remove(meeting.parent)
            meeting.mkdir(parents=True)

        ranks.first_does(make)
        stall_s = ranks.allreduce.stall_s
        self._rollcall = RollCall(meeting, ranks.rank, ranks.size, ranks.waiting, stall_s, _end)
        ranks.barrier()
        self._rollcall.begin()

    def part(self) -> None:
        """The work is done. Every rank calls this."""
        if self._rollcall is not None:
            self._ranks.barrier()
            self._rollcall.end()
            if self._ranks.first:
                remove(self._rollcall.folder.parent)
            self._rollcall = None

    @contextmanager
    def together(self) -> Iterator[None]:
        """What goes wrong in the block ends this process with the reason, and the others with that and its number.

        With several ranks the process ends at once, without the good order that Horovod and readers could hang in. A
        DivergedError is of all ranks alike: they part, and whoever called may go on with other work.
        """
        try:
            yield
        except DivergedError:
            with self.together():
                self.part()
            raise
        except Exception as error:
            if self._ranks.size == 1:
                raise
            _end(self._explain(error))

    def _explain(self, error: Exception) -> Exception:
        rank, rollcall = self._ranks.rank, self._rollcall
        if isinstance(error, InterruptedTrainingError):
            return error
        lost = lost_rank(error)
        if isinstance(lost, LostRankError):
            return rollcall.lost() if rollcall is not None else lost
        if lost is not None:  # every rank sees it
            return lost
        if isinstance(error, RankError):  # of rank 0, which says more
            return error
        if rollcall is not None:
            rollcall.tell(str(error) if isinstance(error, FFNError) else f"{type(error).__name__}: {error}")
        if isinstance(error, FFNError):
            return type(error)(f"Rank {rank}: {error}")
        error.add_note(f"This was on rank {rank}.")
        return error


def _end(error: Exception) -> NoReturn:
    """End this process now: its main thread, or Horovod's, may wait for a rank that hangs."""
    tell_end(error)
    if isinstance(error, FFNError):
        print(f"ffn: error: {error}", file=sys.stderr)
    else:
        traceback.print_exception(error)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(error.exit_code if isinstance(error, FFNError) else 1)


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
