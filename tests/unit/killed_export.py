"""Exports a run in its own process and kills that process (SIGKILL) at a chosen point.

killed_export.py CONFIG WHERE N: at the N-th event of this kind (`killing.Killer`): before-rename or after-rename (of a
shard, or of another file), before-note or after-note. Units are small.
"""

import os
import signal
import sys
from pathlib import Path

from killing import Killer

from ffn.blockwise import Result
from ffn.config import load_config
from ffn.export import shards
from ffn.export.run import LayerTask


class DyingTask(LayerTask):
    """A task in which memory runs out."""

    def run(self, unit: int) -> Result:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError


def main(config: str, where: str, count: str) -> None:
    kill = Killer(where, int(count))
    kill.watch_renames()
    kill.watch_units()
    shards._EDGES, shards._LARGEST_EDGE = (), 32
    from ffn.export import export_run

    export_run(load_config(Path(config)))


if __name__ == "__main__":
    main(*sys.argv[1:])
