"""`ffn prepare` with the limits of a large volume so low that a small one is large, maybe killed (SIGKILL).

`start(WORKERS, KILL, ARGUMENT...)`: the process ends itself at the KILL-th file that gets its name or unit
that is noted; 0 = never.
"""

from killing import Killer

import ffn.prepare.run
from ffn.blockwise.ledger import LedgerWriter
from ffn.cli import main
from ffn.prepare.volume import Limits

LIMITS = Limits(
    listed=1000, per_class=200, block=(12, 12, 12), shard=(24, 24, 24), tile=(24, 30, 46), overlap=(8, 10, 8)
)


def start(workers: str, kill_at: str, *arguments: str) -> int:
    ffn.prepare.run.Limits = lambda: LIMITS  # type: ignore[misc, assignment]
    ffn.prepare.run.usable_cores = lambda: int(workers)  # type: ignore[assignment]
    ffn.prepare.run._SMALL = 0
    kill, add = Killer("any", int(kill_at)), LedgerWriter.add

    def watched_add(*args, **options):
        kill("before-unit")
        entry = add(*args, **options)
        kill("after-unit")
        return entry

    kill.watch_renames()
    LedgerWriter.add = watched_add  # type: ignore[method-assign]
    return main(list(arguments))
