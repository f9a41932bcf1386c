"""Signs of life of the training ranks: who is gone, who hangs, and why, so that the others can end and say so.

    train/ranks/<start>/rank-00003.alive    locked by rank 3 as long as it lives; says, anew every few seconds, whether
                                            it works or waits for others
                        rank-00003.ended    why it ended, if it could still say so

The lock goes with the process, whatever ends it, so a rank that was killed is told from one that hangs. Horovod notices
that a connection is gone, but says neither whose nor why. That a rank hangs it does not notice: over Gloo its stall
inspector finds nobody (0.28.1 looks through an empty list of ranks), and a frozen process blocks it. So a rank that has
waited too long for the others ends by itself.
"""

import fcntl
import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from io import FileIO
from pathlib import Path

from ffn.errors import LostRankError, RankError
from ffn.files import write_text
from ffn.training.waiting import Waiting

GRACE_S = 3.0
"""How long the others may take to say why they ended."""
_WAITS, _WORKS = b"waits", b"works"


class RollCall:
    """This rank's signs of life, and its look at those of others.

    Args:
        folder: One folder for each start of a run; it is there, and all ranks see it.
        rank: This rank's number.
        size: Number of ranks.
        waiting: What this rank's main thread does.
        stall_s: Seconds of waiting after which another rank counts as lost; ten times as many before the first update.
        abandon: Called in a thread with the error when that happens; the main thread is stuck then.
    """

    def __init__(
        self,
        folder: Path,
        rank: int,
        size: int,
        waiting: Waiting,
        stall_s: float,
        abandon: Callable[[RankError], object],
    ) -> None:
        self.folder = folder
        self._rank, self._size, self._waiting, self._stall_s = rank, size, waiting, stall_s
        self._abandon = abandon
        self._beat_s = min(max(stall_s / 10, 0.05), 5.0)
        self._over = threading.Event()
        self._alive = FileIO(self._file(rank, "alive"), "w")
        _lock(self._alive)
        self._beat()
        self._thread = threading.Thread(target=self._watch, name="rollcall", daemon=True)

    def begin(self) -> None:
        """Watch from now on; all ranks have made their RollCall."""
        self._thread.start()

    def end(self) -> None:
        """This rank has done its work."""
        self._over.set()
        self._thread.join()
        self._alive.close()

    def tell(self, reason: str) -> None:
        """Leave word of why this rank ends. Called when something is wrong already, so it never fails itself."""
        try:
            write_text(self._file(self._rank, "ended"), reason)
        except OSError as error:
            print(f"Rank {self._rank} could not leave word of its end: {error}", file=sys.stderr)

    def lost(self) -> RankError:
        """The error of a rank that ends because of others; names them and the reason as far as can be made out.

        A LostRankError where no rank said that it failed. Leaves word that this rank is not the cause.
        """
        failed, reason = self._reason()
        self.tell("")
        if failed:
            return RankError(f"{reason} So rank {self._rank} ends too.")
        return LostRankError(f"{reason} Rank {self._rank} ends too; the same command goes on from the last checkpoint.")

    def _reason(self) -> tuple[bool, str]:
        """Whether a rank said that it failed, and a sentence on what happened to the others."""
        until = time.monotonic() + GRACE_S
        others = [rank for rank in range(self._size) if rank != self._rank]
        while True:
            said = {rank: self._said(rank) for rank in others}
            causes = [f"rank {rank} failed: {text}" for rank, text in said.items() if text]
            if causes:
                return True, _sentence(causes)
            silent = [rank for rank in others if said[rank] is None]
            gone = [rank for rank in silent if self._is_gone(rank)]
            if gone:
                why = "was killed (out of memory, a failing node, or kill -9)"
                return False, _sentence([f"rank {rank} {why}" for rank in gone])
            if not silent:
                return False, "All ranks lost touch with each other: the network may have failed."
            if time.monotonic() > until:
                hanging = [rank for rank in silent if self._hangs(rank)] or silent
                why = f"did not join the others for {self._limit_s:g} s ({self._limit}): it hangs, or its node does"
                return False, _sentence([f"rank {rank} {why}" for rank in hanging])
            time.sleep(0.1)

    def _watch(self) -> None:
        since = looked = time.monotonic()
        while not self._over.wait(self._beat_s):
            with suppress(OSError):  # a beat that fails is missed, as the others will see; this rank's watch goes on
                self._beat()
            now = time.monotonic()
            if now - looked > 4 * self._beat_s:  # this process was held up itself, perhaps all of the machine
                since = now
            if self._waiting.seconds(since) > self._limit_s:
                self._abandon(self.lost())
                return
            looked = now

    @property
    def _limit_s(self) -> float:
        return self._stall_s * self._waiting.patience

    @property
    def _limit(self) -> str:
        times = self._waiting.patience
        return "allreduce.stall_s" if times == 1 else f"{times} x allreduce.stall_s, at the start"

    def _beat(self) -> None:
        os.pwrite(self._alive.fileno(), _WAITS if self._waiting.now else _WORKS, 0)

    def _hangs(self, rank: int) -> bool:
        """Whether a rank says that it works, or says nothing any more."""
        try:
            with self._file(rank, "alive").open("rb") as file:  # opening it makes NFS ask the server
                last = os.fstat(file.fileno()).st_mtime
                return file.read() == _WORKS or os.fstat(self._alive.fileno()).st_mtime - last > 4 * self._beat_s
        except OSError:
            return True

    def _is_gone(self, rank: int) -> bool:
        try:
            with FileIO(self._file(rank, "alive"), "r+") as file:
                return _lock(file)
        except FileNotFoundError:
            return False

    def _said(self, rank: int) -> str | None:
        """What a rank said at its end; empty where another rank was the reason, None where it said nothing."""
        try:
            return self._file(rank, "ended").read_text(encoding="utf-8")
        except FileNotFoundError:
            return None

    def _file(self, rank: int, suffix: str) -> Path:
        return self.folder / f"rank-{rank:05d}.{suffix}"


def _sentence(parts: list[str]) -> str:
    text = "; ".join(parts)
    return text[0].upper() + text[1:] + ("" if text.endswith(".") else ".")


def _lock(file: FileIO) -> bool:
    """Take the lock if it is free; where the file system has none, nobody counts as gone."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
