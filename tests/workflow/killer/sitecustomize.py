"""Loaded by every Python that has this folder in PYTHONPATH: lets one `ffn` command die as in a power failure.

$FFN_KILL is COMMAND:COUNT:WHOM: when the process of `ffn COMMAND` is about to give the COUNT-th file its final name,
it sends SIGKILL to itself (`job`) or to all of its process group, Snakemake included (`all`); or SIGTERM to whoever
started it (`term`), and waits until it gets one itself. Once: $FFN_KILLED is the file that tells.
"""

import os
import signal
import sys
import time
from pathlib import Path
from types import FrameType


def ask_to_stop() -> None:
    received: list[int] = []
    before = signal.getsignal(signal.SIGTERM)

    def receive(number: int, frame: FrameType | None) -> None:
        received.append(number)
        before(number, frame)

    signal.signal(signal.SIGTERM, receive)
    os.kill(os.getppid(), signal.SIGTERM)
    while not received:
        time.sleep(0.01)
    signal.signal(signal.SIGTERM, before)


def arm(count: int, whom: str, told: Path) -> None:
    left = [count]
    rename = Path.replace
    act = {
        "job": lambda: os.kill(os.getpid(), signal.SIGKILL),
        "all": lambda: os.killpg(os.getpgrp(), signal.SIGKILL),
        "term": ask_to_stop,
    }[whom]

    def replace(self: Path, target: str | Path) -> Path:
        left[0] -= 1
        if left[0] == 0 and not told.exists():
            told.touch()
            act()
        return rename(self, target)

    Path.replace = replace


if "FFN_KILL" in os.environ:
    command, number, whom = os.environ["FFN_KILL"].split(":")
    named = [Path(word).name for word in sys.orig_argv]
    if "ffn" in named and named[named.index("ffn") + 1 :][:1] == [command]:
        arm(int(number), whom, Path(os.environ["FFN_KILLED"]))
