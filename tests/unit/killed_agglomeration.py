"""Agglomerates a run in its own process and kills that process (SIGKILL) at a chosen point.

killed_agglomeration.py CONFIG fov|before-rename|after-rename|in-line N: at the N-th evaluation of the network, just
before or after the N-th file gets its final name, or when half of the N-th result is written.
"""

import os
import signal
import sys
from pathlib import Path

from flooding import Batches, ConnectedNetwork
from killing import Killer, use_executor

from ffn.config import load_config


def main(config: str, where: str, count: str) -> None:
    kill = Killer(where, int(count))
    network = kill.watch(ConnectedNetwork())
    use_executor(lambda *_, batch_size, **__: Batches(network, max(batch_size, 1)))
    kill.watch_renames()
    from ffn.agglomeration.ledger import Ledger
    from ffn.agglomeration.run import agglomerate

    add = Ledger.add

    def torn(self: Ledger, record: dict) -> None:
        if kill.last("in-line"):
            with self.path.open("ab") as file:
                file.write(b'{"a":1,"b":')
            os.kill(os.getpid(), signal.SIGKILL)
        add(self, record)

    Ledger.add = torn  # type: ignore[method-assign]
    agglomerate(load_config(Path(config)))


main(*sys.argv[1:])
