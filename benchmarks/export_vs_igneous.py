"""How fast a layer with its lower resolutions is exported, compared with igneous' own transfer and downsample tasks.

Both read the same precomputed layer of labels and write compressed_segmentation and gzip into shards, with the same
lower resolutions, by the same number of processes, bound to as many cores; the voxels are compared. Ratio = our voxels
per second over igneous'. They take turns, and the faster turn of each counts; `core_ratio` is the same by the time that
their processes were at work, which other load on the machine changes less.

igneous is under the GPL and no part of this project: it gets an environment of its own below the user's cache.
Labels are those of FIB-25 where they are at hand ($FFN_TEST_DATA, ../shared/data), repeated; else made-up cells.

    python benchmarks/export_vs_igneous.py [--edge 512 --mips 3 --processes 1 --turns 2]
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import venv
from functools import partial
from pathlib import Path

import cloudvolume  # noqa: F401  (loaded before the clock runs, as in igneous' process)
import numpy as np
import tensorstore as ts

from ffn.blockwise import Pool
from ffn.export.layer import LayerSpec, stored_type
from ffn.export.run import Layer, LayerTask, write_upper_levels
from ffn.geometry import Box, blocks
from ffn.volumes import open_labels, open_volume

IGNEOUS = "4.37.0"
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "ffn-workflow" / f"igneous-{IGNEOUS}"
DATA = Path(os.environ.get("FFN_TEST_DATA", "../shared/data"))
TRUTH = DATA / "neuroproof_examples" / "training_sample2" / "groundtruth.h5.gz"
CHUNK = 64


def environment() -> Path:
    """The Python of igneous' environment, made where it is not there yet."""
    python = CACHE / "bin" / "python"
    if not (CACHE / "complete").exists():
        shutil.rmtree(CACHE, ignore_errors=True)
        venv.create(CACHE, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", f"igneous-pipeline=={IGNEOUS}"], check=True)
        (CACHE / "complete").touch()
    return python


def labels(edge: int) -> np.ndarray:
    """A cube of uint64 labels, zyx."""
    if not TRUTH.exists():
        z, y, x = np.ix_(*[np.arange(edge, dtype=np.float32)] * 3)
        places = [np.floor((a + 9 * np.sin(b / 23)) / 40) for a, b in ((z, y), (y, x), (x, z))]
        return (1 + places[0] + 100 * places[1] + 10_000 * places[2]).astype(np.uint64)
    with open_labels(str(TRUTH)) as truth:
        cube = truth[...]
    whole = np.zeros((edge,) * 3, np.uint64)
    for number, box in enumerate(blocks(Box.of_shape(whole.shape), cube.shape)):
        part = cube[tuple(slice(0, n) for n in box.shape)]
        whole[box.slices] = np.where(part > 0, part + np.uint64(100_000 * number), 0)
    return whole


def write_source(folder: Path, values: np.ndarray) -> None:
    """A layer of one level, a file a chunk and not compressed, so that reading it takes little."""
    spec = {
        "driver": "neuroglancer_precomputed",
        "kvstore": f"file://{folder}/",
        "store_data_equal_to_fill_value": True,
        "multiscale_metadata": {"type": "segmentation", "data_type": values.dtype.name, "num_channels": 1},
        "scale_metadata": {
            "size": values.shape[::-1],
            "chunk_size": [CHUNK] * 3,
            "resolution": [8, 8, 8],
            "encoding": "raw",
        },
    }
    store = ts.open(spec, create=True).result()
    store[..., 0].write(values.T).result()


def ours(source: str, target: Path, mips: int, processes: int) -> tuple[float, float]:
    """Seconds and core-seconds of the work of `ffn export` for one layer."""
    began, used = time.perf_counter(), core_seconds()
    with open_volume(source) as volume, Pool(processes) as pool:
        box, dtype = Box.of_shape(volume.shape), stored_type(volume, "segmentation")
        spec = LayerSpec.of(target.name, "segmentation", dtype, box, (8.0, 8.0, 8.0), (CHUNK,) * 3, mips)
        layer = Layer(target, spec, partial(open_volume, source))
        task = LayerTask([layer])
        for _ in pool.results(task, range(len(task))):
            pass
        write_upper_levels(layer, volume)
    return time.perf_counter() - began, core_seconds() - used


def core_seconds() -> float:
    """Of this process and of those that it started and that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def theirs(python: Path, source: str, target: Path, args: argparse.Namespace) -> tuple[float, float]:
    """Seconds and core-seconds of igneous."""
    command = [python, Path(__file__).with_name("_igneous_export.py"), source, f"precomputed://file://{target}"]
    options = {"--mips": args.mips, "--processes": args.processes, "--memory": args.memory}
    words = [str(word) for pair in options.items() for word in pair]
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    ended = subprocess.run([*command, *words], check=True, capture_output=True, text=True, env=clean)
    seconds, used, made = ended.stdout.split()[-3:]
    if int(made) != args.mips:
        sys.exit(f"igneous made {made} lower resolutions of {args.mips}: use a larger --memory")
    return float(seconds), float(used)


def level(folder: Path, number: int) -> np.ndarray:
    """Voxels of a level of a layer, xyz."""
    spec = {"driver": "neuroglancer_precomputed", "kvstore": f"file://{folder}/", "scale_index": number}
    return np.asarray(ts.open(spec).result()[..., 0].read().result())


def size(folder: Path) -> tuple[int, int]:
    """Files below a folder, and their bytes."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return len(files), sum(path.stat().st_size for path in files)


def main() -> None:
    """Print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--edge", type=int, default=512, help="voxels of the cube")
    parser.add_argument("--mips", type=int, default=3)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--memory", type=int, default=3_500_000_000, help="bytes of one of igneous' tasks; its default")
    args = parser.parse_args()
    python = environment()
    # Both get as many cores as processes, also for the threads of their libraries.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: args.processes])
    mine, other = [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_source(folder / "source", labels(args.edge))
        source = f"precomputed://file://{folder / 'source'}"
        for _ in range(args.turns):
            for target in ("ours", "igneous"):
                shutil.rmtree(folder / target, ignore_errors=True)
            mine.append(ours(source, folder / "ours", args.mips, args.processes))
            other.append(theirs(python, source, folder / "igneous", args))
        same = [np.array_equal(level(folder / "ours", n), level(folder / "igneous", n)) for n in range(args.mips + 1)]
        sizes = {target: size(folder / target) for target in ("ours", "igneous")}
    # Seconds and core-seconds of the faster turn, ours and theirs.
    best = [tuple(map(min, zip(*turns, strict=True))) for turns in (mine, other)]
    print(
        json.dumps(
            {
                "name": "export_vs_igneous",
                "edge": args.edge,
                "mips": args.mips,
                "processes": args.processes,
                "mvoxels_per_s": round(args.edge**3 / best[0][0] / 1e6, 1),
                "igneous_mvoxels_per_s": round(args.edge**3 / best[1][0] / 1e6, 1),
                "levels_equal": same,
                "files": sizes["ours"][0],
                "igneous_files": sizes["igneous"][0],
                "bytes": sizes["ours"][1],
                "igneous_bytes": sizes["igneous"][1],
                "core_ratio": round(best[1][1] / best[0][1], 2),
                "ratio": round(best[1][0] / best[0][0], 2),
            }
        )
    )


if __name__ == "__main__":
    main()
