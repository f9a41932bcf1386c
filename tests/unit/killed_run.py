"""Fills all sub-volumes of a run, three side by side, and assembles them, in a process that kills itself (SIGKILL).

killed_run.py CONFIG N: at the N-th event, where an event is an evaluation of the network, or that a file is about to
get, or has just got, its final name. A small NumPy network takes the place of TensorFlow's.
"""

import os
import signal
import sys
import types
from pathlib import Path

from flooding import Batches, SmallNetwork

from ffn.config import load_config


class CountDown:
    def __init__(self, count: int) -> None:
        self.left = count

    def __call__(self) -> None:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


def main(file: str, count: str) -> None:
    event = CountDown(int(count))

    class Counted(SmallNetwork):
        def __call__(self, image, object_map):
            event()
            return super().__call__(image, object_map)

    executor = types.ModuleType("ffn.inference.executor")
    executor.load_executor = lambda *_, **__: Batches(Counted(2), batch_size=2)  # type: ignore[attr-defined]
    sys.modules[executor.__name__] = executor
    rename = Path.replace

    def replace(self: Path, target: Path) -> Path:
        event()
        renamed = rename(self, target)
        event()
        return renamed

    Path.replace = replace  # type: ignore[method-assign, assignment]
    from ffn.assembly.run import assemble
    from ffn.inference.tiles import infer_tiles, tiles

    config = load_config(Path(file))
    infer_tiles(config, range(len(tiles(config))))
    assemble(config)


if __name__ == "__main__":
    main(*sys.argv[1:])
