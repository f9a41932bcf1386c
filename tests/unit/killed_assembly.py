"""Assembles a run in its own process and kills that process (SIGKILL) at a chosen point.

killed_assembly.py CONFIG WHERE N: at the N-th event of this kind (`killing.Killer`): before-rename, after-rename,
shard, before-note or after-note. Prints the numbers of its worker processes first.
"""

import multiprocessing
import sys
from pathlib import Path

from killing import Killer

from ffn.config import load_config


class TellingKiller(Killer):
    def last(self, here: str) -> bool:
        dies = super().last(here)
        if dies:
            print(*(process.pid for process in multiprocessing.active_children()), flush=True)
        return dies


def main(config: str, where: str, count: str) -> None:
    kill = TellingKiller(where, int(count))
    kill.watch_renames()
    kill.watch_units()
    from ffn.assembly.run import assemble

    assemble(load_config(Path(config)))


if __name__ == "__main__":
    main(*sys.argv[1:])
