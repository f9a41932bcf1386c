"""Agglomerates in its own process, with a stand-in for the network, and may kill that process (SIGKILL).

killed_agglomeration.py WHERE N ARGUMENTS...: `ffn ARGUMENTS`, killed at the N-th evaluation of the network (`fov`),
just before or after the N-th file gets its final name (`before-rename`, `after-rename`), when half of the N-th line of
a ledger is written (`in-line`), or when the N-th unit of a step is done but not noted (the step's name). With N = 0 it
is not killed. A group has a single pair.
"""

import os
import signal
import sys

from flooding import Batches, ConnectedNetwork
from killing import Killer, use_executor

from ffn.agglomeration import finding
from ffn.blockwise.ledger import LedgerWriter
from ffn.cli import main as ffn_main


def watch_ledger(kill: Killer) -> None:
    """Kill in the middle of a line, or between a unit and its line."""
    add = LedgerWriter.add

    def torn(self, *args, **kwargs):  # type: ignore[no-untyped-def]
        kill(self.folder.parent.name)
        if kill.last("in-line"):
            entry = add(self, *args, **kwargs)
            path = entry.arrays.with_suffix(".jsonl")
            whole = path.read_bytes()
            os.truncate(path, len(whole) - len(whole.splitlines()[-1]) // 2)
            os.kill(os.getpid(), signal.SIGKILL)
        return add(self, *args, **kwargs)

    LedgerWriter.add = torn  # type: ignore[method-assign]


def main(where: str, count: str, *words: str) -> int:
    kill = Killer(where, int(count))
    use_executor(lambda *_, batch_size, **__: Batches(kill.watch(ConnectedNetwork()), max(batch_size, 1)))
    finding.GROUP = 1
    kill.watch_renames()
    watch_ledger(kill)
    return ffn_main(words)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
