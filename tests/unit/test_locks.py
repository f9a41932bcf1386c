"""One process at a time: locks that outlive nobody, on file systems without any locks of their own."""

import gzip
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from stopping import PAUSE, ROOT, killed, stopped, went_on

from ffn.errors import StageError
from ffn.locks import Beat, lock
from ffn.stages import Stage
from ffn.volumes import cache

QUICK = Beat(every_s=0.05, silent_s=0.5)
"""Such a holder of another machine counts as lost after half a second."""
NEVER = Beat(every_s=0.05, silent_s=3600)
HELD = """
from pathlib import Path
from ffn.locks import Beat, lock
with lock(Path(sys.argv[1]), beat=Beat(0.05, 0.5)) as held:
    pause()
    held.require()
"""
ELSEWHERE = """
import ffn.processes
ffn.processes._machine = lambda: "00000000"
"""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def owner(path: Path) -> int:
    return int(json.loads(path.read_text())["process"]["pid"])


def test_the_lock_is_complete_when_it_appears_and_gone_afterwards(tmp_path):
    path = tmp_path / "results/stage/lock"
    with lock(path) as held:
        assert owner(path) == os.getpid()
        assert held.is_held()
        assert names(path.parent) == ["lock"]
    assert not path.parent.exists()
    with pytest.raises(ValueError, match="wrong"), lock(path):
        raise ValueError("wrong")
    assert not path.parent.exists()
    with lock(path):
        (path.parent / "result").touch()
    assert names(path.parent) == ["result"]


def test_a_living_holder_is_named_even_if_it_is_stopped(tmp_path):
    path = tmp_path / "stage/lock"
    with stopped(HELD, str(path)) as other:
        os.utime(path, (0, 0))
        message = rf"works in .*stage: process {other.pid} on \w+ since 20.*Wait until it ends, or stop it"
        with pytest.raises(StageError, match=message), lock(path, beat=QUICK):
            pass
        assert owner(path) == other.pid
        assert went_on(other) == (0, "", "")
    with lock(path):
        pass


@pytest.mark.parametrize("reaped", [True, False])
def test_the_lock_of_a_killed_process_is_free_at_once(tmp_path, reaped):
    path = tmp_path / "lock"
    with stopped(HELD, str(path)) as other:
        killed(other, reaped)
        assert path.exists()
        with lock(path, beat=NEVER):
            assert owner(path) == os.getpid()
            assert names(tmp_path) == ["lock"]
    assert names(tmp_path) == []


def test_a_holder_on_another_machine_is_respected_while_it_is_heard_of(tmp_path, monkeypatch):
    monkeypatch.setattr(time, "time", lambda: 1e12)  # a clock that is wrong
    path = tmp_path / "lock"
    alive = ELSEWHERE + HELD.replace("pause()", "print('held', flush=True); sys.stdin.read()")
    other = subprocess.Popen(
        [sys.executable, "-c", PAUSE + alive, str(path)],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(StageError, match=f"process {other.pid} on "), lock(path, beat=NEVER):
            pass
        other.communicate(b"go on")
        assert other.returncode == 0
    finally:
        other.kill()
        other.communicate()
    assert names(tmp_path) == []


def test_a_holder_on_another_machine_is_lost_when_it_was_silent_long_enough(tmp_path):
    path = tmp_path / "lock"
    with stopped(ELSEWHERE + HELD, str(path)) as other:
        heard = path.stat().st_mtime_ns
        with lock(path, beat=QUICK) as held:
            assert path.stat().st_mtime_ns - heard > QUICK.silent_s * 1e9
            code, _, err = went_on(other)
            assert code == 1
            assert "was taken over by another process while this one did not run for a while" in err
            assert held.is_held(), "who lost the lock leaves it alone"
            assert owner(path) == os.getpid()


@pytest.mark.parametrize("content", ["", "process 17 on node7\n"], ids=["incomplete", "of an older version"])
def test_a_lock_that_says_nothing_is_lost_when_it_was_silent(tmp_path, content):
    path = tmp_path / "lock"
    path.write_text(content)
    heard = path.stat().st_mtime_ns
    with lock(path, beat=QUICK):
        assert path.stat().st_mtime_ns - heard > QUICK.silent_s * 1e9
        assert owner(path) == os.getpid()
    assert names(tmp_path) == []


IN_TURN = """
from pathlib import Path
from ffn.locks import lock
folder, rounds = Path(sys.argv[1]), int(sys.argv[2])
if sys.argv[3] == "without links":
    def refuse(*_): raise OSError(1, "Operation not permitted")
    os.link = refuse
for _ in range(rounds):
    child = os.fork()
    if child == 0:
        with lock(folder / "lock", waits=True):
            (folder / "inside").open("x").close()
            count = folder / "count"
            count.write_text(str(int(count.read_text()) + 1))
            (folder / "inside").unlink()
            os.kill(os.getpid(), signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if os.WTERMSIG(status) != signal.SIGKILL:
        sys.exit(1)
"""


@pytest.mark.parametrize("links", ["with links", "without links"])
def test_many_take_over_from_the_killed_one_at_a_time(tmp_path, links):
    """Everyone is killed while it holds the lock, so each lock but the first is taken over, by several who want it."""
    (tmp_path / "count").write_text("0")
    command = [sys.executable, "-c", PAUSE + IN_TURN, str(tmp_path), "12", links]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    processes = [subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    ended = [(process.communicate(timeout=120)[1], process.returncode) for process in processes]
    assert ended == [("", 0)] * 4
    assert (tmp_path / "count").read_text() == "48"
    with lock(tmp_path / "lock"):
        pass
    assert [name for name in names(tmp_path) if name.startswith("lock") and ".partial" not in name] == []


def test_who_is_killed_while_taking_over_leaves_no_knot(tmp_path):
    path = tmp_path / "lock"
    dies = "from pathlib import Path\nPath.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
    with stopped(HELD, str(path)) as first:
        killed(first)
        second = subprocess.run(
            [sys.executable, "-c", PAUSE + dies + HELD, str(path)], env={**os.environ, "PYTHONPATH": str(ROOT)}
        )
        assert second.returncode == -9
        assert len([name for name in names(tmp_path) if ".partial" not in name]) == 2
        with lock(path, beat=NEVER):
            assert owner(path) == os.getpid()
    assert [name for name in names(tmp_path) if ".partial" not in name] == []


def test_who_comes_late_to_a_take_over_does_not_get_it_too(tmp_path):
    """It found the dead holder's lock, and by the time it acts another has taken that over."""
    path = tmp_path / "lock"
    late = """
import ffn.locks
place = ffn.locks._place
def paused(own, target):
    if target.name != "lock":
        pause()
    return place(own, target)
ffn.locks._place = paused
"""
    with stopped(HELD, str(path)) as first:
        killed(first)
        with stopped(late + HELD, str(path)) as second, lock(path, beat=NEVER) as held:
            code, _, err = went_on(second)
            assert code == 1
            assert f"process {os.getpid()} on " in err
            assert held.is_held()
            assert names(tmp_path) == ["lock"]


def test_a_stage_that_lost_its_lock_is_not_marked_done(tmp_path):
    stage = Stage(tmp_path / "stage", {})
    with stage.locked():
        stage.begin()
        record = json.loads((stage.folder / "lock").read_text())
        (stage.folder / "lock").write_text(json.dumps({**record, "token": "0" * 32}))
        with pytest.raises(StageError, match="taken over"):
            stage.finish()
    assert not stage.is_done()


def test_a_complete_stage_needs_no_lock(tmp_path):
    stage = Stage(tmp_path / "stage", {})
    with stage.locked():
        assert stage.begin()
        stage.finish()
    with stage.locked(), Stage(stage.folder, {}).locked():
        assert not stage.begin()
        assert names(stage.folder) == ["done.json", "started.json"]


def test_the_lock_of_who_was_killed_when_all_was_done_is_removed(tmp_path):
    stage = Stage(tmp_path / "stage", {})
    stage.begin()
    with stopped(HELD, str(stage.folder / "lock")) as other:
        stage.clear_lock()
        assert (stage.folder / "lock").exists(), "not complete yet"
        stage.finish()
        killed(other)
    with stage.locked():
        assert names(stage.folder) == ["done.json", "started.json"]


DECOMPRESSING = """
import gzip
from pathlib import Path
from ffn.volumes import cache
decompress = cache._decompress
def paused(*paths):
    pause()
    decompress(*paths)
cache._decompress = paused
print(cache.gunzipped(Path(sys.argv[1])))
"""
WAITING = """
from pathlib import Path
import ffn.locks
from ffn.volumes import cache
sleep, cache._decompress = ffn.locks.time.sleep, None
def first(seconds):
    ffn.locks.time.sleep = sleep
    pause()
ffn.locks.time.sleep = first
print(cache.gunzipped(Path(sys.argv[1])))
"""


def test_the_second_reader_of_a_gzipped_file_waits_for_the_copy_of_the_first(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    packed = tmp_path / "a.gz"
    packed.write_bytes(gzip.compress(b"contents"))
    with stopped(DECOMPRESSING, str(packed)) as first, stopped(WAITING, str(packed)) as second:
        copy = went_on(first)[1]
        assert went_on(second) == (0, copy, "")
    assert Path(copy.strip()).read_bytes() == b"contents"
    assert cache.gunzipped(packed) == Path(copy.strip())
