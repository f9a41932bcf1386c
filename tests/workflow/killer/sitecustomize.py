"""Loaded by every Python that has this folder in PYTHONPATH: lets one `ffn` command die as in a power failure.

$FFN_KILL is COMMAND:COUNT:WHOM: the process of `ffn COMMAND` sends SIGKILL to itself (`job`) or to all of its process
group, Snakemake included (`all`), when it is about to give the COUNT-th file its final name. Once: $FFN_KILLED is
the file that tells.
"""

import os
import signal
import sys
from pathlib import Path


def arm(count: int, group: bool, told: Path) -> None:
    left = [count]
    rename = Path.replace

    def replace(self: Path, target: str | Path) -> Path:
        left[0] -= 1
        if left[0] == 0 and not told.exists():
            told.touch()
            (os.killpg if group else os.kill)(os.getpgrp() if group else os.getpid(), signal.SIGKILL)
        return rename(self, target)

    Path.replace = replace


if "FFN_KILL" in os.environ:
    command, number, whom = os.environ["FFN_KILL"].split(":")
    if command in sys.orig_argv and any(Path(word).name == "ffn" for word in sys.orig_argv):
        arm(int(number), whom == "all", Path(os.environ["FFN_KILLED"]))
