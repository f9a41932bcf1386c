"""Processor-nanoseconds a voxel, and peak memory, of the steps of `ffn agglomerate` over blocks.

A volume of cells between which four voxels of 8 nm are free, all of them segments; nothing is joined or filled. One
process. The last line is one JSON object; `ratio` is voxels of all steps a second over a million.

    python benchmarks/long/agglomerate_blocks.py --edge 500
"""

import argparse
import json
import re
import tempfile
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from ffn.agglomeration.finding import finding_tasks
from ffn.agglomeration.joining import Relabel
from ffn.agglomeration.spec import MOVED, Spec
from ffn.blockwise import Grid, Task
from ffn.blockwise.ledger import LedgerWriter
from ffn.blockwise.tables import TableWriter
from ffn.config import parse_config
from ffn.geometry import Box
from ffn.stages import Stage
from ffn.volumes import Store, StoreLayout

TILE = 100
CELLS = 60
GAP = 4.0
VOXEL_SIZE = (8.0, 8.0, 8.0)


def cells() -> NDArray[np.uint64]:
    """A cube of cells 1, 2, ... that can be laid side by side."""
    centres = np.random.default_rng(0).uniform(0, TILE, (CELLS, 3))
    voxels = np.stack(np.meshgrid(*[np.arange(TILE)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    distance, nearest = cKDTree(centres, boxsize=TILE).query(voxels, k=2)
    inside = distance[:, 1] - distance[:, 0] > GAP
    return np.where(inside, nearest[:, 0] + 1, 0).reshape([TILE] * 3).astype(np.uint64)


def write_segments(store: Store) -> None:
    """Fill a store, each cube of cells with ids of its own."""
    cube, side = cells(), -(-max(store.layout.shape) // TILE)
    for box in Grid(Box.of_shape(store.layout.shape), store.layout.shard):
        places = [np.arange(a, b) for a, b in zip(box.start, box.stop, strict=True)]
        labels = cube[np.ix_(*(place % TILE for place in places))]
        z, y, x = np.meshgrid(*(place // TILE for place in places), indexing="ij", sparse=True)
        number = ((z * side + y) * side + x).astype(np.uint64) * np.uint64(CELLS)
        store.write_shard(box, np.where(labels > 0, labels + number, 0).astype(np.uint64))


def done(spec: Spec, task: Task) -> float:
    """Processor-seconds of a step, with its ledger."""
    used = time.process_time()
    step = spec.step(task.name, len(task))
    with LedgerWriter(step.folder / "1-of-1", step.fingerprint, step.units) as writer:
        for unit in range(len(task)):
            result = task.run(unit)
            writer.add(unit, result.columns, result.facts)
    task.close()
    return time.process_time() - used


def main() -> None:
    """Print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--edge", type=int, default=500, help="voxels along each axis")
    parser.add_argument("--folder", type=Path, help="where files go (default: a temporary folder)")
    args = parser.parse_args()
    config = parse_config(
        {
            "run": "made-up",
            "inference": {"checkpoint": "none"},
            "agglomeration": {"enabled": True, "max_pairs": None},
            "data": {"test": {"image": "none.h5:image"}},
        }
    )
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        folder, shape = Path(name), (args.edge,) * 3
        layout = StoreLayout.of_blocks(shape, "uint64", config.assembly.block, VOXEL_SIZE)
        segments = Store(folder / "segments.zarr", layout).created()
        write_segments(segments)
        stage = Stage(folder / "stage", {})
        spec = Spec(config, stage, "none", segments.uri, Box.of_shape(shape), VOXEL_SIZE, "made up")
        seconds = {task.name: done(spec, task) for task in finding_tasks(spec)}
        with TableWriter(spec.moved.path, MOVED):
            pass
        spec.store.created()
        seconds["relabel"] = done(spec, Relabel(spec))
        pairs = spec.plan["pairs"]
    peak = 1024 * int(re.findall(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text(encoding="ascii"))[0])
    voxels = args.edge**3
    print(
        json.dumps(
            {
                "name": "agglomerate_blocks",
                "voxels": voxels,
                "pairs": pairs,
                "nanoseconds_a_voxel": {name: round(1e9 * used / voxels, 1) for name, used in seconds.items()},
                "peak_bytes": peak,
                "ratio": round(voxels / sum(seconds.values()) / 1e6, 2),
            }
        )
    )


if __name__ == "__main__":
    main()
