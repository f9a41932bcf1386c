"""Voxels per second of writing a segmentation layer, by one process and by several, in one run.

Writes synthetic labels, as assembly stores them, as a layer with three lower resolutions, and prints one JSON line:
`ratio` is the seconds of one process over those of several, their start included.

    python benchmarks/long/export_throughput.py --shape 256 1024 512 --workers 2 --folder scratch
"""

import argparse
import json
import os
import shutil
import time
from functools import partial
from math import prod
from pathlib import Path

from _tiles import cells

from ffn.blockwise import Grid, Pool
from ffn.export.layer import LayerSpec
from ffn.export.run import Layer, LayerTask, write_upper_levels
from ffn.geometry import Box
from ffn.volumes import Store, StoreLayout, open_labels

_VOXEL_SIZE = (10.0, 10.0, 10.0)


def seconds(uri: str, folder: Path, count: int) -> float:
    """Of writing one layer with so many processes."""
    began = time.perf_counter()
    with open_labels(uri) as volume, Pool(count) as pool:
        box = Box.of_shape(volume.shape)
        spec = LayerSpec.of(folder.name, "segmentation", "uint64", box, _VOXEL_SIZE, (64, 64, 64), 3)
        layer = Layer(folder, spec, partial(open_labels, uri))
        task = LayerTask([layer])
        for _ in pool.results(task, range(len(task))):
            pass
        write_upper_levels(layer, volume)
    return time.perf_counter() - began


def main() -> None:
    """Print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", type=int, nargs=3, default=[256, 1024, 512], metavar=("Z", "Y", "X"))
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--folder", type=Path, required=True, help="for volumes; what is in it is deleted")
    args = parser.parse_args()
    shutil.rmtree(args.folder, ignore_errors=True)
    args.folder.mkdir(parents=True)
    layout = StoreLayout.of_blocks(tuple(args.shape), "uint64", (64, 64, 64), _VOXEL_SIZE)
    store = Store(args.folder / "labels.zarr", layout).created()
    for box in Grid(Box.of_shape(layout.shape), layout.shard):
        store.write_shard(box, cells(box))
    uri, voxels = store.uri, prod(args.shape)
    # One process is to be one core, also for the threads of libraries.
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, cores[:1])
    one = seconds(uri, args.folder / "one", 1)
    os.sched_setaffinity(0, cores)
    several = seconds(uri, args.folder / "several", args.workers)
    print(
        json.dumps(
            {
                "name": "export_throughput",
                "shape": args.shape,
                "workers": args.workers,
                "voxels_per_s_of_one": round(voxels / one),
                "voxels_per_s": round(voxels / several),
                "ratio": round(one / several, 2),
            }
        )
    )
    shutil.rmtree(args.folder)


if __name__ == "__main__":
    main()
