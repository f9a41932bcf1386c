"""Voxels per second of writing a segmentation layer, by one process and by several, in one run.

Writes synthetic labels as a layer with three lower resolutions, and prints one JSON line: `ratio` is the seconds of one
process over those of several, their start included.

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

import numpy as np
from _tiles import cells

from ffn.export.precomputed import Bench, write_layer
from ffn.geometry import Box, blocks
from ffn.volumes import create_hdf5, open_labels
from ffn.workers import Workers

_VOXEL_SIZE = (10.0, 10.0, 10.0)


def seconds(uri: str, folder: Path, count: int) -> float:
    """Of writing one layer with so many processes."""
    began = time.perf_counter()
    with (
        open_labels(uri) as volume,
        Workers(count, partial(Bench, {folder.name: partial(open_labels, uri)})) as workers,
    ):
        write_layer(folder, volume, "segmentation", _VOXEL_SIZE, (0, 0, 0), (64, 64, 64), 3, workers)
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
    with create_hdf5(args.folder / "labels.h5", "labels", tuple(args.shape), np.uint64, _VOXEL_SIZE) as volume:
        for box in blocks(Box.of_shape(volume.shape), volume.chunk):
            volume.write(box, cells(box))
    uri, voxels = f"{args.folder / 'labels.h5'}:labels", prod(args.shape)
    one, several = (seconds(uri, args.folder / name, count) for name, count in (("one", 1), ("several", args.workers)))
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
