"""Time and peak memory of finding the objects of 10^8 pieces, as `assembly.disconnected: split` does.

Blocks of 10,000 pieces whose names lie between those of all other blocks, and as many random pairs as pieces (four
fifths of all end in one object: the hardest case), both made as they are asked for. The last line is one JSON object;
`ratio` is 4 GB over the peak of the whole process.

    python benchmarks/long/split_reduce.py --pieces 1000000
"""

import argparse
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ffn.assembly.objects import joined_pieces
from ffn.assembly.unionfind import BATCH

BLOCK = 10_000
ALLOWED = 4e9


def blocks_of(pieces: int) -> Iterator[tuple[NDArray[np.uint64], NDArray[np.int64]]]:
    """Names and voxels of each block."""
    blocks = pieces // BLOCK
    for block in np.random.default_rng(1).permutation(blocks):
        names = np.arange(block + 1, pieces + 1, blocks, dtype=np.uint64)
        yield names, np.random.default_rng([2, block]).integers(1, 5000, BLOCK)


def random_pairs(pieces: int) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """As many pairs as pieces, a batch at a time."""
    rng = np.random.default_rng(3)
    for begin in range(0, pieces, BATCH):
        a, b = rng.integers(0, pieces, (2, min(BATCH, pieces - begin)))
        yield a, b


def main() -> None:
    """Print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pieces", type=int, default=10**8, help=f"a multiple of {BLOCK:,}")
    parser.add_argument("--min-size", type=int, default=1000, help="voxels")
    args = parser.parse_args()
    began, used = time.perf_counter(), time.process_time()
    found = joined_pieces(lambda: blocks_of(args.pieces), random_pairs(args.pieces), args.min_size)
    seconds, used = time.perf_counter() - began, time.process_time() - used
    largest = max(int(ids.max()) for ids in found)
    # The kernel's own counter: what getrusage tells may be inherited from the process that started this one.
    peak = 1024 * int(re.findall(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text(encoding="ascii"))[0])
    print(
        json.dumps(
            {
                "name": "split_reduce",
                "pieces": args.pieces,
                "pairs": args.pieces,
                "objects": largest,
                "seconds": round(seconds, 1),
                "processor_seconds": round(used, 1),
                "peak_bytes": peak,
                "ratio": round(ALLOWED / peak, 2),
            }
        )
    )


if __name__ == "__main__":
    main()
