"""Assembles a run in its own process and kills that process (SIGKILL) at a chosen point.

killed_assembly.py CONFIG before-rename|after-rename|chunk N: just before or after the N-th file of this process gets
its final name, or before the N-th chunk is written. Prints the numbers of its worker processes first.
"""

import multiprocessing
import os
import signal
import sys
from pathlib import Path

from ffn.config import load_config
from ffn.volumes import WritableVolume


def main(config: str, where: str, count: str) -> None:
    left = [int(count)]

    def kill(here: str) -> None:
        if here == where:
            left[0] -= 1
            if left[0] == 0:
                print(*(process.pid for process in multiprocessing.active_children()), flush=True)
                os.kill(os.getpid(), signal.SIGKILL)

    rename, write = Path.replace, WritableVolume.write_packed

    def replace(self: Path, target: Path) -> Path:
        kill("before-rename")
        renamed = rename(self, target)
        kill("after-rename")
        return renamed

    def write_packed(self: WritableVolume, chunk: object) -> None:
        kill("chunk")
        write(self, chunk)  # type: ignore[arg-type]

    Path.replace = replace  # type: ignore[method-assign, assignment]
    WritableVolume.write_packed = write_packed  # type: ignore[method-assign, assignment]
    from ffn.assembly.run import assemble

    assemble(load_config(Path(config)))


if __name__ == "__main__":
    main(*sys.argv[1:])
