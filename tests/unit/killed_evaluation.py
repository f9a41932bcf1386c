"""`ffn` in a process that kills itself (SIGKILL) when it notes its N-th unit in a ledger.

killed_evaluation.py N WHEN ARGUMENT...: WHEN is `before` the unit's line is written, or `within`, when half of it is on
the disk.
"""

import os
import signal
import sys

from ffn.blockwise import ledger
from ffn.cli import main

last, when = int(sys.argv[1]), sys.argv[2]
line, flush = ledger._line, ledger._flush
made = 0


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def line_or_half(note):
    global made
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
sys.exit(main(sys.argv[3:]))
