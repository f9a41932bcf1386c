"""Segments one tile in its own process and kills that process (SIGKILL) at a chosen point.

killed_tile.py CONFIG IMAGE CHECKPOINT OUTPUT fov|before-rename|after-rename N: at the N-th evaluation of the network,
or just before or after the N-th file gets its final name. A small NumPy network takes the place of TensorFlow's, so
that many processes can be started and killed.
"""

import sys
from pathlib import Path

from flooding import Batches, SmallNetwork
from killing import Killer, use_executor

from ffn.config import load_config


def main(config: str, image: str, checkpoint: str, output: str, where: str, count: str) -> None:
    kill = Killer(where, int(count))
    network = kill.watch(SmallNetwork(2))
    use_executor(lambda *_, **__: Batches(network))
    kill.watch_renames()
    from ffn.inference.subvolume import run_tile
    from ffn.inference.tile import Tile

    run_tile(load_config(Path(config)), Tile(image, Path(checkpoint), None, Path(output)))


if __name__ == "__main__":
    main(*sys.argv[1:])
