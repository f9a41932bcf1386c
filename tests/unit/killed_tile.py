"""Segments one tile in its own process and kills that process (SIGKILL) at a chosen point.

killed_tile.py CONFIG IMAGE CHECKPOINT OUTPUT fov|before-rename|after-rename N: at the N-th evaluation of the network,
or just before or after the N-th file gets its final name. A small NumPy network takes the place of TensorFlow's, so
that many processes can be started and killed.
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


class KilledNetwork(SmallNetwork):
    def __init__(self, on_call) -> None:
        super().__init__(seed=2)
        self.on_call = on_call

    def __call__(self, image, object_map):
        self.on_call()
        return super().__call__(image, object_map)


def main(config: str, image: str, checkpoint: str, output: str, where: str, count: str) -> None:
    kill = CountDown(int(count))
    network = KilledNetwork(kill if where == "fov" else lambda: None)
    executor = types.ModuleType("ffn.inference.executor")
    executor.load_executor = lambda *_, **__: Batches(network)  # type: ignore[attr-defined]
    sys.modules[executor.__name__] = executor
    rename = Path.replace

    def replace(self: Path, target: Path) -> Path:
        if where == "before-rename":
            kill()
        renamed = rename(self, target)
        if where == "after-rename":
            kill()
        return renamed

    Path.replace = replace  # type: ignore[method-assign, assignment]
    from ffn.inference.subvolume import run_tile
    from ffn.inference.tile import Tile

    run_tile(load_config(Path(config)), Tile(image, Path(checkpoint), None, Path(output)))


main(*sys.argv[1:])
