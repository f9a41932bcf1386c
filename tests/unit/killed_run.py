"""Fills all sub-volumes of a run, three side by side, joins its passes if there are several, and assembles them, in a
process that kills itself (SIGKILL).

killed_run.py CONFIG N: at the N-th event, where an event is an evaluation of the network, or that a file is about to
get, or has just got, its final name, that a shard is about to be written, or that a unit is noted in a ledger. A
small NumPy network takes the place of TensorFlow's.
"""

import sys
from pathlib import Path

from flooding import Batches, SmallNetwork
from killing import Killer, use_executor

from ffn.config import load_config


def main(file: str, count: str) -> None:
    kill = Killer("any", int(count))
    network = kill.watch(SmallNetwork(2))
    use_executor(lambda *_, **__: Batches(network, batch_size=2))
    kill.watch_renames()
    kill.watch_units()
    from ffn.assembly.passes import join_passes
    from ffn.assembly.run import assemble
    from ffn.inference.tiles import infer_tiles, tiles

    config = load_config(Path(file))
    everything, passes = range(len(tiles(config))), len(config.inference.all_passes)
    for number in range(passes):
        infer_tiles(config, everything, number)
    if passes > 1:
        join_passes(config, everything)
    assemble(config)


if __name__ == "__main__":
    main(*sys.argv[1:])
