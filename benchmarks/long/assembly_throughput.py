"""Voxels per second and core, and peak memory, of assembling synthetic sub-volumes.

Writes sub-volumes of labels one at a time, assembles them in a process of its own, and prints one JSON line for each
size. Memory is the largest resident set of any process (`peak_mb`), which includes some 100 MB of Python and libraries.

    python benchmarks/long/assembly_throughput.py --sizes 250 500 --folder scratch

A size of 1000 takes about 200 MB on disk.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import yaml
from _tiles import write_tiles

from ffn.geometry import Box, overlapping_tiles
from ffn.volumes import create_hdf5

# A process's largest resident set as its own kernel counter tells it; what is inherited from its parent does not count.
_ASSEMBLE = """
import re, resource, sys
from pathlib import Path
from ffn.cli import main
ended = main(["assemble", "--config", sys.argv[1]])
own = int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
print(max(own, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss))
sys.exit(ended)
"""


def measured(folder: Path, size: int, tile: int, overlap: int, rule: dict[str, object]) -> dict[str, object]:
    """Times and memory of one assembly."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with create_hdf5(folder / "image.h5", "image", (size,) * 3, np.uint8, (10.0, 10.0, 10.0)):
        pass
    boxes = overlapping_tiles(Box.of_shape((size,) * 3), (tile,) * 3, (overlap,) * 3)
    stored = write_tiles(folder / "results" / "bench" / "infer", boxes)
    values = {
        "run": "bench",
        "results": str(folder / "results"),
        "data": {"test": {"image": f"{folder / 'image.h5'}:image"}},
        "network": {"fov": [9, 9, 9], "deltas": [2, 2, 2]},
        "inference": {"checkpoint": "none", "subvolume_size": [tile] * 3, "subvolume_overlap": [overlap] * 3},
        "assembly": rule,
    }
    config = folder / "config.yaml"
    config.write_text(yaml.safe_dump(values))
    before = _processor_seconds()
    began = time.perf_counter()
    command = [sys.executable, "-c", _ASSEMBLE, str(config)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    seconds = time.perf_counter() - began
    used = _processor_seconds() - before
    facts = json.loads((folder / "results/bench/assemble/done.json").read_text(encoding="utf-8"))["facts"]
    return {
        "name": "assembly_throughput",
        "size": size,
        "tiles": len(boxes),
        **rule,
        "seconds": round(seconds, 2),
        "processor_seconds": round(used, 2),
        "voxels_per_s": round(size**3 / seconds),
        "voxels_per_processor_s": round(size**3 / used),
        "peak_mb": round(int(done.stdout) / 1024),
        "volume_mb": round(8 * size**3 / 2**20),
        "input_mb": round(stored / 2**20, 1),
        "equivalences": facts["equivalences"],
        "objects": facts["objects"],
    }


def _processor_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Print one JSON line for each size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[250, 500, 1000], help="edges in voxels")
    parser.add_argument("--tile", type=int, default=160, help="edge of a sub-volume (default 160)")
    parser.add_argument("--overlap", type=int, default=32)
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--disconnected", choices=("keep", "split"), default="keep")
    parser.add_argument("--folder", type=Path, required=True, help="for volumes; what is in it is deleted")
    args = parser.parse_args()
    for size in args.sizes:
        rule = {"workers": args.workers, "disconnected": args.disconnected}
        print(json.dumps(measured(args.folder, size, args.tile, args.overlap, rule)), flush=True)
    shutil.rmtree(args.folder)


if __name__ == "__main__":
    main()
