"""Agglomerates a run in its own process and kills that process (SIGKILL) at a chosen point.

killed_agglomeration.py CONFIG fov|before-rename|after-rename|in-line N: at the N-th evaluation of the network, just
before or after the N-th file gets its final name, or when half of the N-th result is written.
"""

import os
import signal
import sys
import types
from pathlib import Path

from flooding import Batches, ConnectedNetwork

from ffn.config import load_config


class CountDown:
    def __init__(self, count: int) -> None:
        self.left = count

    def __call__(self) -> None:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


class KilledNetwork(ConnectedNetwork):
    def __init__(self, on_call) -> None:
        super().__init__()
        self.on_call = on_call

    def __call__(self, image, object_map):
        self.on_call()
        return super().__call__(image, object_map)


def main(config: str, where: str, count: str) -> None:
    kill = CountDown(int(count))
    network = KilledNetwork(kill if where == "fov" else lambda: None)
    executor = types.ModuleType("ffn.inference.executor")
    executor.load_executor = lambda *_, batch_size, **__: Batches(network, max(batch_size, 1))  # type: ignore[attr-defined]
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
    from ffn.agglomeration.ledger import Ledger
    from ffn.agglomeration.run import agglomerate

    add = Ledger.add

    def torn(self: Ledger, record: dict) -> None:
        kill.left -= 1
        if kill.left == 0:
            with self.path.open("ab") as file:
                file.write(b'{"a":1,"b":')
            os.kill(os.getpid(), signal.SIGKILL)
        add(self, record)

    if where == "in-line":
        Ledger.add = torn  # type: ignore[method-assign]
    agglomerate(load_config(Path(config)))


main(*sys.argv[1:])
