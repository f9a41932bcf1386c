"""Voxels per second and core, and peak memory, of each step of `ffn prepare`, with one process and with several.

Writes a synthetic volume slab by slab and prepares it step by step, each step in a process of its own (whose start does
not count, but that of its worker processes does): once as a volume whose centres are all listed, and once as one that
is too large for that. Prints one JSON line. `steps` has, by step, seconds, voxels a second, voxels a second of
processor time, and the largest resident set of any process in MB; `ratio` is the speed of all steps with several
processes over that with one (listed). With `--old`, the folder of another version of this package, that prepares the
same volume too, in one process as it did then, and `same` says whether all files have the same bytes.

    python benchmarks/long/prepare_throughput.py --size 400 --folder scratch
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import yaml
from _tiles import cells

from ffn.geometry import Box

ROOT = Path(__file__).resolve().parents[2]
STEPS = ["label_sizes", "objects", "classes", "class_counts", "sample", "coordinates", "seeds", "summary"]
_SLAB = 64
_STEP = """
    from ffn.blockwise import Share
    from ffn.prepare.volume import Limits
    step, workers, listed = sys.argv[2:]
    options = (Share(step), int(workers), Limits(listed=int(listed)))
"""
_ALL = """
    options = ()
"""
# The largest resident set of a process as its own kernel counter tells it, and of the largest of its children.
_SCRIPT = """
import json, re, resource, sys, time
from pathlib import Path
from ffn.config import load_config
from ffn.prepare.run import prepare_training

def processor_seconds():
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(part.ru_utime + part.ru_stime for part in used)

if __name__ == "__main__":
    config = load_config(Path(sys.argv[1]))
    {options}
    before, began = processor_seconds(), time.perf_counter()
    prepare_training(config, *options)
    seconds, used = time.perf_counter() - began, processor_seconds() - before
    own = int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
    peak = max(own, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
    print(json.dumps([seconds, used, peak]))
"""


def write_volume(path: Path, size: int) -> None:
    """Cells with dark gaps between them, uint64 labels and uint8 grey values with noise, 10 nm voxels."""
    random = np.random.default_rng(1)
    with h5py.File(path, "w") as file:
        chunks = (min(size, 64),) * 3
        image = file.create_dataset("image", (size,) * 3, np.uint8, chunks=chunks)
        labels = file.create_dataset("labels", (size,) * 3, np.uint64, chunks=chunks, compression="gzip", shuffle=True)
        for data in (image, labels):
            data.attrs["voxel_size_nm"] = (10.0, 10.0, 10.0)
        for z in range(0, size, _SLAB):
            slab = Box((z, 0, 0), (min(z + _SLAB, size), size, size))
            labels[slab.slices] = found = cells(slab)
            grey = np.where(found > 0, 170, 70) + random.normal(0, 8, found.shape).astype(np.float32)
            image[slab.slices] = grey.clip(0, 255).astype(np.uint8)


def write_config(folder: Path, volume: Path, run: str) -> Path:
    """A configuration as for the published network."""
    region = {"image": f"{volume}:image", "labels": f"{volume}:labels"}
    values = {
        "run": run,
        "results": str(folder / "results"),
        "data": {"train": region, "test": region},
        "network": {"fov": [33, 33, 33], "deltas": [8, 8, 8]},
        "prepare": {"min_boundary_nm": 16.0},
    }
    path = folder / f"{run}.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


def measured(folder: Path, options: str, arguments: list[str], voxels: int, source: Path = ROOT) -> dict[str, Any]:
    """Seconds, speed and memory of preparing in a process of its own, without its start and imports."""
    path = folder / "measured.py"
    path.write_text(_SCRIPT.replace("    {options}", options.strip("\n")), encoding="utf-8")
    variables = {**os.environ, "PYTHONPATH": str(source)}
    command = [sys.executable, str(path), *arguments]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=variables)
    seconds, used, peak = json.loads(done.stdout)
    return {
        "seconds": round(seconds, 2),
        "voxels_per_s": round(voxels / seconds),
        "voxels_per_processor_s": round(voxels / used),
        "peak_mb": round(peak / 1024),
    }


def steps_measured(folder: Path, volume: Path, size: int, workers: int, listed: int) -> dict[str, Any]:
    """Each step of one preparation."""
    run = f"{'listed' if listed else 'sampled'}-{workers}"
    config = write_config(folder, volume, run)
    left_out = {"class_counts", "sample"} if listed else set()
    return {
        step: measured(folder, _STEP, [str(config), step, str(workers), str(listed)], size**3)
        for step in STEPS
        if step not in left_out
    }


def made(folder: Path, run: str) -> dict[str, bytes]:
    """Contents of the files that a preparation made, but for the markers, which name the run's folder."""
    prepare = folder / "results" / run / "prepare"
    return {path.name: path.read_bytes() for path in prepare.iterdir() if path.suffix in (".h5", ".csv")}


def _total(steps: dict[str, Any]) -> float:
    return sum(step["seconds"] for step in steps.values())


def main() -> None:
    """Print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=400, help="edge in voxels")
    parser.add_argument("--workers", type=int, default=2, help="processes beside one")
    parser.add_argument("--old", type=Path, help="folder of another version to compare with")
    parser.add_argument("--folder", type=Path, required=True, help="for volumes; what is in it is deleted")
    args = parser.parse_args()
    shutil.rmtree(args.folder, ignore_errors=True)
    args.folder.mkdir(parents=True)
    volume = args.folder / "volume.h5"
    write_volume(volume, args.size)
    voxels = args.size**3
    found: dict[str, Any] = {}
    for name, listed in (("listed", voxels), ("sampled", 0)):
        for workers in (1, args.workers):
            found[f"{name}_{workers}"] = steps_measured(args.folder, volume, args.size, workers, listed)
    result: dict[str, Any] = {
        "name": "prepare_throughput",
        "size": args.size,
        "workers": args.workers,
        "ratio": round(_total(found["listed_1"]) / _total(found[f"listed_{args.workers}"]), 2),
        "seconds": {name: round(_total(steps), 1) for name, steps in found.items()},
        "steps": found,
    }
    if args.old is not None:
        config = write_config(args.folder, volume, "old")
        result["old"] = measured(args.folder, _ALL, [str(config)], voxels, args.old)
        result["same"] = made(args.folder, "old") == made(args.folder, "listed-1")
    machine = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    result["machine"] = machine[1] if machine else "unknown"
    print(json.dumps(result), flush=True)
    shutil.rmtree(args.folder)


if __name__ == "__main__":
    main()
