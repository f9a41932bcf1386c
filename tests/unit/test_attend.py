"""`ffn attend`: small commands that play a training."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_training import environment

from ffn.attempts import Attempt, tell_end
from ffn.cluster.attend import Attendance
from ffn.errors import ClusterError, DataError, InterruptedTrainingError, LostRankError

# Each start runs the next of the listed lines; $1 is a folder that counts the starts.
PLAYED = """
import os, sys, time
from pathlib import Path
from ffn.attempts import Attempt
folder = Path(sys.argv[1])
number = len(list(folder.glob("start-*")))
(folder / f"start-{number}").touch()
progress = folder / "progress"
progress.mkdir(exist_ok=True)
me = Attempt.current()
exec(sys.argv[2 + number])
"""
FURTHER = "(progress / f'step-{number}').touch(); "
KILLED = "os.kill(os.getpid(), 9)"


def played(folder: Path, *starts: str) -> list[str]:
    return [sys.executable, "-c", PLAYED, str(folder), *starts]


def attendance(folder: Path, *starts: str, restarts: int = 3, watched: bool = True) -> Attendance:
    return Attendance(played(folder, *starts), folder / "notes", folder / "progress" if watched else None, restarts)


def starts(folder: Path) -> int:
    return len(list(folder.glob("start-*")))


def test_a_killed_command_that_got_further_is_started_again(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert attendance(tmp_path, FURTHER + KILLED, FURTHER + "sys.exit(1)", "sys.exit(0)").run() == 0
    assert starts(tmp_path) == 3
    assert "exit code 137 and without a word. Starting again (1 of 3)." in capsys.readouterr().err
    assert not (tmp_path / "notes").exists()


def test_one_that_got_no_further_is_not(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert attendance(tmp_path, FURTHER + KILLED, KILLED).run() == 137
    assert starts(tmp_path) == 2
    assert "got no further" in capsys.readouterr().err


def test_one_that_failed_is_not(tmp_path: Path) -> None:
    """Whatever exit code a launcher makes of it, and whatever other processes say."""
    lines = "me.tell('lost', 'Rank 1 failed'); me.tell('failed', 'the data are damaged'); sys.exit(75)"
    tried = attendance(tmp_path, FURTHER + lines)
    assert tried.run() == 2
    assert starts(tmp_path) == 1
    assert tried.failed_before() == "the data are damaged"


def test_a_lost_rank_is_told_and_the_command_started_again(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    lost = "me.tell('lost', 'Rank 1 was killed.'); sys.exit(1)"
    assert attendance(tmp_path, FURTHER + lost, "sys.exit(0)").run() == 0
    assert "ffn attend: Rank 1 was killed. Starting again (1 of 3)." in capsys.readouterr().err


def test_restarts_have_a_bound(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert attendance(tmp_path, *[FURTHER + KILLED] * 5, restarts=2).run() == 75
    assert starts(tmp_path) == 3
    assert "Started again 2 times already" in capsys.readouterr().err


def test_without_a_folder_to_watch_every_kill_counts_as_progress(tmp_path: Path) -> None:
    assert attendance(tmp_path, KILLED, "sys.exit(0)", watched=False).run() == 0


def test_saved_work_ends_with_75_whatever_the_launcher_says(tmp_path: Path) -> None:
    assert attendance(tmp_path, FURTHER + "me.tell('saved', 'stopped by SIGTERM'); sys.exit(1)").run() == 75
    assert starts(tmp_path) == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_asks_the_command_to_stop(tmp_path: Path, number: signal.Signals) -> None:
    """Also one that dies of itself then, without a word."""
    lines = FURTHER + "print('here', flush=True)\nwhile not me.is_to_stop: time.sleep(0.01)\nsys.exit(143)"
    command = [
        sys.executable, "-m", "ffn", "attend", "--notes", str(tmp_path / "notes"), "--progress",
        str(tmp_path / "progress"), "--", *played(tmp_path, lines, "sys.exit(0)"),
    ]  # fmt: skip
    attending = subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, text=True)
    assert attending.stdout.readline() == "here\n"
    attending.send_signal(number)
    attending.communicate()
    assert attending.returncode == 75
    assert starts(tmp_path) == 1


def test_a_later_attempt_at_what_failed_ends_at_once(tmp_path: Path) -> None:
    def attend(attempt: int) -> subprocess.CompletedProcess[str]:
        command = [
            sys.executable, "-m", "ffn", "attend", "--notes", str(tmp_path / "notes"), "--attempt", str(attempt), "--",
            *played(tmp_path, "me.tell('failed', 'no such volume'); sys.exit(2)", "sys.exit(0)"),
        ]  # fmt: skip
        return subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)

    assert attend(1).returncode == 2
    second = attend(2)
    assert second.returncode == 2
    assert "not tried again, it would fail again: no such volume" in second.stderr
    assert starts(tmp_path) == 1
    assert attend(1).returncode == 0  # a new call of the user


def test_nothing_to_attend_to(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "ffn", "attend", "--notes", str(tmp_path)]
    refused = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    assert refused.returncode == 2
    assert "give a command after --" in refused.stderr


@pytest.mark.parametrize(
    ("error", "how"),
    [
        (DataError("empty"), "failed"), (ClusterError("no"), "failed"), (LostRankError("gone"), "lost"),
        (InterruptedTrainingError("saved"), "saved"), (KeyboardInterrupt(), "saved"), (ValueError("bug"), "failed"),
    ],
)  # fmt: skip
def test_how_a_command_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, how: str) -> None:
    tell_end(error)  # nobody attends
    monkeypatch.setenv("FFN_ATTEMPT", str(tmp_path))
    tell_end(error)
    [line] = (tmp_path / "ended").read_text().splitlines()
    assert json.loads(line)["how"] == how
    assert Attempt(tmp_path).ends() == [(how, json.loads(line)["reason"])]


def test_commands_tell_how_they_end(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "ffn", "train", "--config", str(tmp_path / "nothing.yaml")]
    env = {**environment(), "FFN_ATTEMPT": str(tmp_path)}
    refused = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert refused.returncode == 2
    [(how, reason)] = Attempt(tmp_path).ends()
    assert how == "failed"
    assert "nothing.yaml" in reason
    assert [path.name for path in tmp_path.iterdir()] == ["ended"]
