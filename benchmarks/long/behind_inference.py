"""What follows inference, on synthetic labels in many sub-volumes: assembly, evaluation and export of image, labels and
ground truth, each as one command with one core and with two.

Prints a line for each command, and one JSON line: seconds, processor seconds, the largest resident set of any of its
processes, and files. With `--checkout` another version of the workflow does the same on the same sub-volumes.

    python benchmarks/long/behind_inference.py --size 500 --folder scratch
    python benchmarks/long/behind_inference.py --size 500 --folder scratch --checkout ../another

A size of 1000 takes about 2 GB on disk; 8 x 8 x 8 sub-volumes.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import fastremap
import numpy as np
import yaml
from _tiles import cells

from ffn.geometry import Box, overlapping_tiles
from ffn.inference.kept import Keeper
from ffn.inference.results import SEGMENTATION_FILE, write_labels
from ffn.stages import Stage
from ffn.volumes import create_hdf5

ROOT = Path(__file__).resolve().parents[2]
VOXELS = (10.0, 10.0, 10.0)
OVERLAP = 16
STAGES = ("assemble", "evaluate", "export")
_COMMAND = """
import re, resource, sys
from pathlib import Path
from ffn.cli import main
ended = main(sys.argv[1:])
own = int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
below, here = (resource.getrusage(who) for who in (resource.RUSAGE_CHILDREN, resource.RUSAGE_SELF))
seconds = sum(used.ru_utime + used.ru_stime for used in (below, here))
print(max(own, below.ru_maxrss), seconds)
sys.exit(ended)
"""


def make_inputs(folder: Path, size: int, per_axis: int) -> Path:
    """Write image, ground truth, finished sub-volumes in folders, and a configuration, which is returned."""
    whole = Box.of_shape((size,) * 3)
    edge = -(-(size + (per_axis - 1) * OVERLAP) // per_axis)
    config = {
        "run": "bench",
        "results": str(folder / "results"),
        "data": {
            "test": {"image": f"{folder}/image.h5:image", "labels": f"{folder}/truth.h5:labels", "box": str(whole)},
            "voxel_size": list(VOXELS),
        },
        "network": {"fov": [9, 9, 9], "deltas": [2, 2, 2]},
        "inference": {"checkpoint": "none", "subvolume_size": [edge] * 3, "subvolume_overlap": [OVERLAP] * 3},
    }
    path = folder / "config.yaml"
    if path.exists():
        return path
    folder.mkdir(parents=True)
    with (
        create_hdf5(folder / "image.h5", "image", whole.shape, np.uint8, VOXELS) as image,
        create_hdf5(folder / "truth.h5", "labels", whole.shape, np.uint64, VOXELS) as truth,
    ):
        for start in range(0, size, 64):
            part = Box((start, 0, 0), (min(start + 64, size), size, size))
            labels = cells(part)
            truth.write(part, labels)
            image.write(part, np.where(labels == 0, 40, 128 + labels % 97).astype(np.uint8))
    boxes = overlapping_tiles(whole, (edge,) * 3, (OVERLAP,) * 3)
    for index, box in enumerate(boxes):
        tile = folder / "sub-volumes" / f"tile-{index:04d}"
        labels = fastremap.renumber(cells(box), preserve_zero=True)[0]
        write_labels(tile / SEGMENTATION_FILE, labels, box, VOXELS)
        Stage(tile, {"box": str(box)}).finish(segments=int(labels.max()))
    path.write_text(yaml.safe_dump(config))
    return path


def place_sub_volumes(folder: Path, size: int, in_archives: bool) -> None:
    """The sub-volumes as inference leaves them, and nothing behind them."""
    shutil.rmtree(folder / "results", ignore_errors=True)
    infer = folder / "results" / "bench" / "infer"
    shutil.copytree(folder / "sub-volumes", infer)
    if in_archives:
        tiles = sorted(infer.glob("tile-*"))
        with Keeper(
            Stage(infer / "pass-0", {"box": str(Box.of_shape((size,) * 3))}), len(tiles), range(len(tiles))
        ) as keeper:
            for index, tile in enumerate(tiles):
                keeper.keep(index, tile)


def timed(checkout: Path, config: Path, stage: str, cores: int) -> dict[str, Any]:
    """One command, on so many cores."""
    own = sorted(os.sched_getaffinity(0))[:cores]
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    command = [sys.executable, "-c", _COMMAND, stage, "--config", str(config)]
    began = time.perf_counter()
    done = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment,
        cwd=config.parent, preexec_fn=lambda: os.sched_setaffinity(0, own),
    )  # fmt: skip
    seconds = time.perf_counter() - began
    kilobytes, used = done.stdout.split()[-2:]
    files = sum(path.is_file() for path in (config.parent / "results" / "bench" / stage).rglob("*"))
    return {
        "seconds": round(seconds, 2),
        "processor_seconds": round(float(used), 2),
        "peak_mb": round(int(kilobytes) / 1024),
        "files": files,
    }


def main() -> None:
    """Print a line for each command, and one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=500, help="edge in voxels")
    parser.add_argument("--per-axis", type=int, default=8, help="sub-volumes along each axis")
    parser.add_argument("--cores", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--folder", type=Path, required=True, help="for inputs, which are kept, and results")
    parser.add_argument("--checkout", type=Path, help="another version of the workflow to measure")
    args = parser.parse_args()
    folder, checkout = args.folder.resolve(), (args.checkout or ROOT).resolve()
    config = make_inputs(folder, args.size, args.per_axis)
    found: dict[str, dict[int, dict[str, Any]]] = {stage: {} for stage in STAGES}
    for cores in args.cores:
        place_sub_volumes(folder, args.size, in_archives=args.checkout is None)
        for stage in STAGES:
            found[stage][cores] = timed(checkout, config, stage, cores)
            print(stage, f"{cores} cores", found[stage][cores], flush=True)
    few, many = min(args.cores), max(args.cores)
    gains = {stage: round(of[few]["seconds"] / of[many]["seconds"], 2) for stage, of in found.items()}
    print(json.dumps({"name": "behind_inference", "size": args.size, "stages": found, f"{many}_over_{few}": gains}))


if __name__ == "__main__":
    main()
