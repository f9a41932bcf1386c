"""Two ranks' signs of life, without Horovod; the other rank is a process of its own where it is to be killed."""

import errno
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tiny_training import environment

from ffn.errors import LostRankError, RankError
from ffn.training import rollcall
from ffn.training.rollcall import RollCall
from ffn.training.waiting import Waiting

OTHER = """
import sys
from pathlib import Path
from ffn.training.rollcall import RollCall
from ffn.training.waiting import Waiting
call = RollCall(Path(sys.argv[1]), 1, 2, Waiting(), 60, print)
call.begin()
print("here", flush=True)
sys.stdin.read()
"""


ALIVE: list[RollCall] = []
"""Ranks of the running test: one that nobody holds dies whenever garbage is collected."""


@pytest.fixture(autouse=True)
def short_grace(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(rollcall, "GRACE_S", 0.2)
    yield
    ALIVE.clear()


def call(
    folder: Path, rank: int, waiting: Waiting | None = None, stall_s: float = 60, abandon=print, size: int = 2
) -> RollCall:
    ALIVE.append(RollCall(folder, rank, size, waiting or Waiting(), stall_s, abandon))
    return ALIVE[-1]


def waiting_rank() -> Waiting:
    """A rank that has made its first update."""
    waiting = Waiting()
    with waiting.block(update=True):
        pass
    return waiting


def test_a_rank_that_failed_is_quoted(tmp_path: Path) -> None:
    mine, other = call(tmp_path, 0), call(tmp_path, 1)
    other.tell("volume.h5 is damaged.")
    error = mine.lost()
    assert str(error) == "Rank 1 failed: volume.h5 is damaged. So rank 0 ends too."
    assert type(error) is RankError
    # What rank 0 leaves does not make it a cause for rank 1.
    assert "lost touch" in str(other.lost())


def test_a_killed_rank_is_named(tmp_path: Path) -> None:
    other = subprocess.Popen(
        [sys.executable, "-c", OTHER, str(tmp_path)], env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert other.stdout.readline() == b"here\n"
    mine = call(tmp_path, 0)
    assert "was killed" not in str(mine.lost())
    other.kill()
    other.communicate()
    error = mine.lost()
    assert "Rank 1 was killed" in str(error)
    assert isinstance(error, LostRankError)
    assert error.exit_code == 75


def test_a_rank_that_waits_too_long_ends_and_names_the_one_that_works(tmp_path: Path) -> None:
    waiting, given_up, told = waiting_rank(), threading.Event(), []
    mine = call(tmp_path, 0, waiting, 0.3, lambda error: (told.append(error), given_up.set()))
    call(tmp_path, 1)
    mine.begin()
    with waiting.block():
        assert given_up.wait(60)
    assert "Rank 1 did not join the others for 0.3 s" in str(told[0])
    assert isinstance(told[0], LostRankError)


def test_of_several_only_those_that_hang_are_named(tmp_path: Path) -> None:
    mine = call(tmp_path, 0, size=3)
    call(tmp_path, 1, size=3)
    waits = Waiting()
    with waits.block():
        call(tmp_path, 2, waits, size=3)
    assert str(mine.lost()).startswith("Rank 1 did not join the others")


def test_waiting_before_the_first_update_may_take_ten_times_as_long(tmp_path: Path) -> None:
    waiting, given_up, told = Waiting(), threading.Event(), []
    assert waiting.patience == 10
    mine = call(tmp_path, 0, waiting, 0.1, lambda error: (told.append(error), given_up.set()))
    call(tmp_path, 1)
    mine.begin()
    with waiting.block():
        assert given_up.wait(60)
    assert "Rank 1 did not join the others for 1 s (10 x allreduce.stall_s, at the start)" in str(told[0])


def test_the_clock_of_waiting() -> None:
    waiting = Waiting()
    with waiting.block(update=True):
        assert waiting.now
    assert not waiting.now
    assert waiting.patience == 1
    assert waiting.seconds(0.0) == 0
    with waiting.block():
        assert waiting.seconds(0.0) > 0
        assert waiting.seconds(1e12) < 0


@pytest.mark.slow
def test_a_rank_that_works_on_is_left_alone(tmp_path: Path) -> None:
    """Many short waits are not a long one."""
    waiting, told = waiting_rank(), []
    mine = call(tmp_path, 0, waiting, 2.0, told.append)
    mine.begin()
    for _ in range(2000):
        with waiting.block():
            threading.Event().wait(0.002)
    mine.end()
    assert told == []


def test_a_file_system_that_fails_does_not_end_the_watch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waiting, given_up = waiting_rank(), threading.Event()
    mine = call(tmp_path, 0, waiting, 0.3, lambda error: given_up.set())
    call(tmp_path, 1)

    def full(*arguments: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(rollcall.os, "pwrite", full)
    mine.begin()
    with waiting.block():
        assert given_up.wait(60)
