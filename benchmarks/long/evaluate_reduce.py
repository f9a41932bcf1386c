"""Time and peak memory of scoring 10^7 or 10^8 pairs of a body and a segment, as the step `scores` of `ffn evaluate`.

The tables of 50 blocks are made up and noted as done: every segment meets two bodies, a quarter of the pairs of a
block are those of the next one too, ids have no order, and each body has background. Then `ffn evaluate --step scores`
adds them up and scores them, in a process of its own. The last line is one JSON object; `peak_mb` is the largest
resident set of that process, `ratio` 4 GB over it, and `scores` a digest of what it found.

    python benchmarks/long/evaluate_reduce.py --folder scratch --pairs 100000000
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import yaml

from ffn.blockwise import BlockwiseStage
from ffn.blockwise.ledger import LedgerWriter
from ffn.config import load_config
from ffn.evaluation.tables import Pair, Tables
from ffn.files import write_json
from ffn.fingerprint import fingerprint
from ffn.runs import SEGMENTATION_STORE, RunPaths
from ffn.stages import Stage, done_digest
from ffn.volumes import Store, StoreLayout

BLOCKS = 50
SHAPE = (2 * 256, 5 * 256, 5 * 256)
PAIRS_OF_A_BODY = 50
ALLOWED_MB = 4000

# The kernel tells a process's largest resident set; what is inherited from its parent does not count.
_SCORES = """
import json, re, sys, time
from pathlib import Path
from ffn.config import load_config
from ffn.evaluation import evaluate_run
began = time.perf_counter()
evaluate_run(load_config(Path(sys.argv[1])))
peak = int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
seconds = {"seconds": time.perf_counter() - began, "processor_seconds": time.process_time()}
print(json.dumps({**{name: round(used, 1) for name, used in seconds.items()}, "peak_mb": round(peak / 1000 * 1.024)}))
"""


def scrambled(ids: np.ndarray) -> np.ndarray:
    """Other ids, uint64, one for each, in no order."""
    return ids.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) | np.uint64(1)


def table_of_block(block: int, pairs: int) -> dict[str, np.ndarray]:
    """Truth, segment and voxels of the pairs in one block, in order, as `Tables` leaves them."""
    own = pairs // BLOCKS
    bodies = pairs // PAIRS_OF_A_BODY
    numbers = np.arange(block * own, block * own + own + own // 4)
    there = np.unique(numbers // PAIRS_OF_A_BODY % bodies)
    truth = scrambled(2 * np.concatenate([numbers * 7919 // 16 % bodies, there]))
    segmentation = np.concatenate([scrambled(numbers // 2 * 2), np.zeros(there.size, np.uint64)])
    order = np.lexsort((segmentation, truth))
    truth, segmentation = truth[order], segmentation[order]
    new = np.ones(order.size, np.bool_)
    new[1:] = (truth[1:] != truth[:-1]) | (segmentation[1:] != segmentation[:-1])
    count = np.random.default_rng([1, block]).integers(1, 100_000, int(new.sum()))
    return {"truth": truth[new], "segmentation": segmentation[new], "count": count}


def prepared(folder: Path, pairs: int) -> tuple[Path, int]:
    """Configuration of a run whose tables are done, and the rows of all tables."""
    layout = StoreLayout.of_blocks(SHAPE, "uint64", (64, 64, 64), (10.0, 10.0, 10.0))
    truth = Store(folder / "truth.zarr", layout).created()
    values = {
        "run": "many-pairs",
        "results": str(folder / "results"),
        "data": {"test": {"image": "none.h5:image", "labels": truth.uri, "box": "0:512,0:1280,0:1280"}},
        "network": {"fov": [9, 9, 9], "deltas": [2, 2, 2]},
        "inference": {"checkpoint": "none"},
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    config = load_config(path)
    paths = RunPaths.of(config)
    Store(paths.segmented / SEGMENTATION_STORE, layout).created()
    write_json(paths.segmented / "done.json", {})
    pair = Pair(truth.uri, paths.segmentation, config.data.test.bounds)
    tables = Tables(pair, pair.grid())
    settings = {**fingerprint(config, "evaluate"), "segmentation": done_digest(paths.segmented, "ffn assemble")}
    stage = Stage(paths.evaluate, {**settings, "block": tables.grid.block})
    stage.begin()
    step, rows = BlockwiseStage.step_of(stage, tables), 0
    with LedgerWriter(step.folder / "1-of-1", step.fingerprint, step.units) as writer:
        for block in range(step.units):
            columns = table_of_block(block, pairs)
            rows += columns["count"].size
            writer.add(block, columns, {})
    return path, rows


def main() -> None:
    """Print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=10**7, help="different ones of a body and a segment, about")
    parser.add_argument("--folder", type=Path, required=True, help="for tables; what is in it is deleted")
    args = parser.parse_args()
    shutil.rmtree(args.folder, ignore_errors=True)
    args.folder.mkdir(parents=True)
    config, rows = prepared(args.folder.resolve(), args.pairs)
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", _SCORES, str(config)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=variables)
    measured = json.loads(done.stdout.splitlines()[-1])
    found = json.loads(RunPaths.of(load_config(config)).scores.read_text(encoding="utf-8"))
    found.pop("inputs")
    result = {
        "name": "evaluate_reduce",
        "pairs": args.pairs,
        "rows": rows,
        **measured,
        "ratio": round(ALLOWED_MB / measured["peak_mb"], 2),
        "voi": found["object"]["voi"],
        "segments": found["segments"],
        "bodies": found["truth_bodies"],
        "scores": hashlib.sha256(json.dumps(found).encode()).hexdigest()[:16],
    }
    print(json.dumps(result))
    shutil.rmtree(args.folder)


if __name__ == "__main__":
    main()
