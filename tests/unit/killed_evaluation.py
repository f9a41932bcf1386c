"""`ffn` in a process that kills itself (SIGKILL) when it notes its N-th unit in a ledger.

WHEN is `before` the unit's line is written, or `within`, when half of it is on the disk.
"""

import os
import signal
from collections.abc import Sequence

from ffn.blockwise import ledger
from ffn.cli import main as ffn_main


def main(number: str, when: str, words: Sequence[str]) -> int:
    last, made = int(number), 0
    line, flush = ledger._line, ledger._flush

    def line_or_half(note):
        nonlocal made
        made += 1
        if made <= last:  # the first line is not of a unit
            return line(note)
        if when == "before":
            die()
        ledger._flush = flush_and_die
        return line(note)[:20]

    def flush_and_die(file):
        flush(file)
        die()

    ledger._line = line_or_half
    return ffn_main(words)


def die():
    os.kill(os.getpid(), signal.SIGKILL)
