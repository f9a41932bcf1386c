"""Assembles a run in its own process and kills that process (SIGKILL) at a chosen point.

killed_assembly.py CONFIG before-rename|after-rename|chunk N: just before or after the N-th file of this process gets
its final name, or before the N-th chunk is written. Prints the numbers of its worker processes first.
"""

import multiprocessing
import sys
from pathlib import Path

from killing import Killer

from ffn.config import load_config
from ffn.volumes import WritableVolume


class TellingKiller(Killer):
    def last(self, here: str) -> bool:
        dies = super().last(here)
        if dies:
            print(*(process.pid for process in multiprocessing.active_children()), flush=True)
        return dies


def main(config: str, where: str, count: str) -> None:
    kill, write = TellingKiller(where, int(count)), WritableVolume.write_packed

    def write_packed(self: WritableVolume, chunk: object) -> None:
        kill("chunk")
        write(self, chunk)  # type: ignore[arg-type]

    kill.watch_renames()
    WritableVolume.write_packed = write_packed  # type: ignore[method-assign, assignment]
    from ffn.assembly.run import assemble

    assemble(load_config(Path(config)))


if __name__ == "__main__":
    main(*sys.argv[1:])
