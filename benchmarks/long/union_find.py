"""Time and peak memory of joining 10^6, 10^7, 10^8 pairs of nodes.

Each number of pairs is measured in a process of its own, with random pairs among as many nodes (half of them end in one
set: the hardest case) made a batch at a time, and prints one JSON line. The forest takes 4 bytes a node.

    python benchmarks/long/union_find.py --pairs 1000000 10000000
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ffn.assembly.unionfind import BATCH, numbered, smallest_members

Pair = tuple[NDArray[np.int64], NDArray[np.int64]]


def random_pairs(count: int, nodes: int) -> Iterator[Pair]:
    """`count` pairs, a batch at a time."""
    rng = np.random.default_rng(1)
    for begin in range(0, count, BATCH):
        a, b = rng.integers(0, nodes, (2, min(BATCH, count - begin)))
        yield a, b


def measure(count: int) -> dict[str, float]:
    """Join `count` pairs of as many nodes."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began, used = time.perf_counter(), time.process_time()
    ids = numbered(smallest_members(count, random_pairs(count, count)))
    seconds, used = time.perf_counter() - began, time.process_time() - used
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "name": "union_find",
        "pairs": count,
        "nodes": count,
        "sets": int(ids.max()),
        "seconds": round(seconds, 2),
        "processor_seconds": round(used, 2),
        "peak_mb": round(peak / 1024),
        "libraries_mb": round(before / 1024),
    }


def main() -> None:
    """Print one JSON line for each number of pairs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, nargs="+", default=[10**6, 10**7, 10**8])
    args = parser.parse_args()
    if len(args.pairs) == 1:
        print(json.dumps(measure(args.pairs[0])), flush=True)
        return
    for count in args.pairs:
        subprocess.run([sys.executable, __file__, "--pairs", str(count)], check=True)


if __name__ == "__main__":
    main()
