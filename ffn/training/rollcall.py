"""Signs of life of the training ranks: who is gone, who hangs, and why, so that the others can end and say so.

    train/ranks/<start>/rank-00003.alive    locked by rank 3 as long as it lives, touched by it every few seconds
                        rank-00003.ended    why it ended, if it could still say so

The lock goes with the process, whatever ends it, so a rank that was killed is told from one that hangs. Horovod notices
most of this by itself, but says neither who nor why; and over MPI it waits for a frozen rank without end. Each rank
watches only the next one, so the load on a shared file system does not grow with their number.
"""

import fcntl
import os
import sys
import threading
import time
from collections.abc import Callable
from io import TextIOWrapper
from pathlib import Path

from ffn.errors import LostRankError, RankError
from ffn.files import remove, write_text

GRACE_S = 3.0
"""How long the others may take to say why they ended."""


class RollCall:
    """This rank's sign of life, and its look at the others.

    Args:
        folder: One folder for each start of a run; it is there, and all ranks see it.
        rank: This rank's number.
        size: Number of ranks.
        stall_s: Seconds without a sign of life after which the next rank counts as lost.
        abandon: Called in a thread with the error when that happens; the main thread may be stuck then.
    """

    def __init__(
        self, folder: Path, rank: int, size: int, stall_s: float, abandon: Callable[[RankError], None]
    ) -> None:
        self.folder, self._rank, self._size, self._stall_s = folder, rank, size, stall_s
        self._abandon = abandon
        self._beat_s = min(max(stall_s / 10, 0.05), 5.0)
        self._over = threading.Event()
        self._alive: TextIOWrapper = self._file(rank, "alive").open("w")
        _lock(self._alive)
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
            gone = [rank for rank in others if said[rank] is None and self._is_gone(rank)]
            if gone:
                why = "was killed (out of memory, a failing node, or kill -9)"
                return False, _sentence([f"rank {rank} {why}" for rank in gone])
            if time.monotonic() > until:
                break
            time.sleep(0.1)
        silent = [str(rank) for rank in others if said[rank] is None]
        if not silent:
            return False, "All ranks lost touch with each other: the network, or the file system, may have failed."
        return False, f"Rank {', '.join(silent)} did not answer any more: it hangs, or its node does."

    def _watch(self) -> None:
        neighbour = (self._rank + 1) % self._size
        last, since, looked = 0, time.monotonic(), time.monotonic()
        while not self._over.wait(self._beat_s):
            os.utime(self._alive.fileno())
            now, seen = time.monotonic(), self._beat_of(neighbour)
            late = now - looked > 4 * self._beat_s  # this process itself was held up: give the neighbour time
            if seen is None or seen != last or late:
                last, since = seen or 0, now
            elif now - since > self._stall_s:
                self._abandon(self.lost())
                return
            looked = now

    def _beat_of(self, rank: int) -> int | None:
        """When a rank last gave a sign, in ns of the file system's clock; None where it has ended well."""
        try:
            with self._file(rank, "alive").open("rb") as file:  # opening it makes NFS ask the server
                return os.fstat(file.fileno()).st_mtime_ns
        except FileNotFoundError:
            return None

    def _is_gone(self, rank: int) -> bool:
        try:
            with self._file(rank, "alive").open("r+") as file:
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


def clear(folder: Path) -> None:
    """Remove what earlier starts left in the folder of all starts."""
    remove(folder)


def _sentence(parts: list[str]) -> str:
    text = "; ".join(parts)
    return text[0].upper() + text[1:] + ("" if text.endswith(".") else ".")


def _lock(file: TextIOWrapper) -> bool:
    """Take the lock if it is free; where the file system has none, nobody counts as gone."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
