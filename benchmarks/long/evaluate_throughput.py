"""Voxels per second, and peak memory of each process, of scoring a synthetic segmentation, by one process and by two.

Writes ground truth and segmentation as sharded stores, scores them with `ffn evaluate` on one core and then on two, of
which each has a process, and prints one JSON line. `ratio` is the seconds of one over those of two, their start
included. Memory is a process's largest resident set, which includes some 150 MB of Python and libraries.

    python benchmarks/long/evaluate_throughput.py --size 500 --folder scratch
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from _tiles import cells

from ffn.blockwise import Grid
from ffn.geometry import ZYX, Box
from ffn.volumes.store import Store, StoreLayout

BLOCK: ZYX = (64, 256, 256)
PIECE = 200

# The kernel tells a process's largest resident set; what is inherited from its parent does not count.
_EVALUATE = """
import json, os, re, resource, sys, time
from pathlib import Path
def peak_mb(): return round(int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024)
if __name__ == "__main__":
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:int(sys.argv[1])])
    from ffn.cli import main
    from ffn.evaluation.tables import Tables
    workers = []
    counted = Tables.workers.fget
    Tables.workers = property(lambda self: workers.append(counted(self)) or workers[-1])
    ended = main(["evaluate", *sys.argv[2:]])
    own, others = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    print(json.dumps({
        "processes": workers[0],
        "core_s": round(sum(used.ru_utime + used.ru_stime for used in (own, others)), 2),
        "first_peak_mb": peak_mb(),
        "largest_worker_peak_mb": round(others.ru_maxrss / 1024),
    }))
    sys.exit(ended)
"""


def write_stores(folder: Path, size: int) -> tuple[Path, Path]:
    """Ground truth, and a segmentation that has its objects in pieces with a background of its own."""
    layout = StoreLayout.of_blocks((size,) * 3, "uint64", BLOCK, (10.0, 10.0, 10.0))
    truth, found = (Store(folder / f"{name}.zarr", layout).created() for name in ("truth", "segmentation"))
    for box in Grid(Box.of_shape(layout.shape), layout.shard):
        labels = cells(box)
        z, y, x = np.ix_(*(np.arange(a, b, dtype=np.uint64) // PIECE for a, b in zip(box.start, box.stop, strict=True)))
        truth.write_shard(box, labels)
        found.write_shard(box, np.where(labels == 0, 0, 1 + labels * 1000 + (z * 10 + y) * 10 + x).astype(np.uint64))
    return truth.path, found.path


def measured(folder: Path, truth: Path, found: Path, cores: int) -> dict[str, float]:
    """Seconds and memory of scoring on so many cores."""
    output = folder / f"scores-{cores}.json"
    script = folder / "evaluate.py"
    script.write_text(_EVALUATE, encoding="utf-8")
    arguments = ["--truth", str(truth), "--segmentation", str(found), "--output", str(output)]
    command = [sys.executable, str(script), str(cores), *arguments]
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    began = time.perf_counter()
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=variables)
    seconds = time.perf_counter() - began
    return {"seconds": round(seconds, 2), **json.loads(done.stdout.splitlines()[-1])}


def main() -> None:
    """Print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=500, help="edge in voxels")
    parser.add_argument("--folder", type=Path, required=True, help="for volumes; what is in it is deleted")
    args = parser.parse_args()
    shutil.rmtree(args.folder, ignore_errors=True)
    args.folder.mkdir(parents=True)
    truth, found = write_stores(args.folder, args.size)
    one, two = (measured(args.folder, truth, found, cores) for cores in (1, 2))
    same = (args.folder / "scores-1.json").read_bytes() == (args.folder / "scores-2.json").read_bytes()
    result = {
        "name": "evaluate_throughput",
        "ratio": round(one["seconds"] / two["seconds"], 2),
        "size": args.size,
        "voxels_per_core_s": round(args.size**3 / one["core_s"]),
        "one": one,
        "two": two,
        "equal": same,
    }
    print(json.dumps(result))
    shutil.rmtree(args.folder)


if __name__ == "__main__":
    main()
