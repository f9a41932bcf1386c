"""Time and peak memory of the reduces of `ffn agglomerate`, with any number of pairs that meet.

The ledgers that they read are made up: blocks of 512^3 voxels with 12,500 pairs each, half of which are seen by the
next block too, five pairs a segment, all tried. Each reduce runs in a process of its own. The last line is one JSON
object; `ratio` is 4 GB over the largest peak.

    python benchmarks/long/agglomerate_pairs.py --pairs 10000000
"""

import argparse
import json
import re
import tempfile
import time
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from ffn.agglomeration.finding import Contacts, Pairs, Places, Rank, Segments, Sizes
from ffn.agglomeration.joining import Join, Resegment
from ffn.agglomeration.records import TYPES
from ffn.agglomeration.spec import Joined, Spec
from ffn.blockwise import Columns, Step
from ffn.blockwise.ledger import LedgerWriter
from ffn.config import parse_config
from ffn.geometry import Box
from ffn.stages import Stage

EDGE = 512
PAIRS_A_BLOCK = 12_500
PAIRS_A_SEGMENT = 5
ALLOWED = 4e9


@dataclass(frozen=True)
class Made:
    """What the maps would have left."""

    spec: Spec
    blocks: int

    def pairs(self, block: int) -> Columns:
        """Of one block, with their rows among all pairs."""
        rows = block * PAIRS_A_BLOCK + np.arange(PAIRS_A_BLOCK)
        a = 1 + rows // PAIRS_A_SEGMENT
        return {"row": rows, "a": a.astype(np.uint64), "b": (a + 1 + 7 * (rows % PAIRS_A_SEGMENT)).astype(np.uint64)}

    def seen(self, block: int) -> Columns:
        """Pairs of a block and half of those of the block before."""
        own = self.pairs(block)
        if block == 0:
            return own
        before = {name: values[::2] for name, values in self.pairs(block - 1).items()}
        return {name: np.concatenate([before[name], own[name]]) for name in own}

    def sizes(self, block: int) -> Columns:
        """Voxels of the segments of a block."""
        seen = self.seen(block)
        ids = np.unique(np.concatenate([seen["a"], seen["b"]]))
        return {"ids": ids, "voxels": np.random.default_rng([0, block]).integers(1000, 10**6, len(ids))}

    def contacts(self, block: int) -> Columns:
        """What `Contacts` leaves: three fifths of the pairs touch."""
        seen, rng = self.seen(block), np.random.default_rng([1, block])
        count = len(seen["a"])
        depth = np.where(rng.random(count) < 0.6, 0, rng.integers(1, 40_000, count))
        pairs = {"a": seen["a"], "b": seen["b"], "depth": depth, "places": rng.integers(1, 500, count)}
        return {**pairs, "total": rng.integers(0, 10**6, (count, 3)), "part": np.zeros(count, np.int32)}

    def places(self, block: int) -> Columns:
        """What `Places` leaves."""
        seen, rng = self.seen(block), np.random.default_rng([2, block])
        count = len(seen["row"])
        place = rng.integers(block * EDGE**3, (block + 1) * EDGE**3, count)
        return {"row": seen["row"], "distance": rng.random(count).round(6), "place": place}

    def records(self, group: int) -> Columns:
        """What `Resegment` leaves: one pair in twenty is joined."""
        plan, rng = self.spec.plan, np.random.default_rng([3, group])
        pairs = self.spec.planned.rows(group * plan["group"], min((group + 1) * plan["group"], plan["tried"]))
        count = len(pairs["a"])
        columns = {}
        for name, kind in TYPES.items():
            chosen = np.dtype(kind)
            values = rng.random((count, *chosen.shape))
            columns[name] = values if chosen.base == np.float64 else (100 * values).astype(chosen.base)
        columns |= {"joined": rng.random(count) < 0.05, "reason": np.full(count, b"iou", TYPES["reason"])}
        return {**columns, **{name: pairs[name] for name in pairs if name in TYPES}}


def noted(step: Step, made, units: int) -> None:
    """Write a ledger."""
    with LedgerWriter(step.folder / "1-of-1", step.fingerprint, step.units) as writer:
        for unit in range(units):
            writer.add(unit, made(unit), {})


def measured(task: Joined, end: Connection) -> None:
    """Run a reduce and note it, as the engine does; tells seconds and peak bytes."""
    began, used = time.perf_counter(), time.process_time()
    result = task.run(0)
    told = {"seconds": round(time.perf_counter() - began, 1), "processor_seconds": round(time.process_time() - used, 1)}
    step = task.spec.reduce(task.name)
    with LedgerWriter(step.folder / "1-of-1", step.fingerprint, step.units) as writer:
        writer.add(0, result.columns, result.facts)
    # The kernel's own counter: what getrusage tells may be inherited from the process that started this one.
    peak = 1024 * int(re.findall(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text(encoding="ascii"))[0])
    end.send({**told, "peak_bytes": peak})


def in_a_process(task: Joined) -> dict[str, float]:
    """What `measured` tells, of a fresh process."""
    here, there = get_context("spawn").Pipe()
    process = get_context("spawn").Process(target=measured, args=(task, there))
    process.start()
    there.close()
    found: dict[str, float] = here.recv()
    process.join()
    return found


def main() -> None:
    """Print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=10**8, help=f"a multiple of {PAIRS_A_BLOCK:,}")
    parser.add_argument("--folder", type=Path, help="where files go; 600 bytes a pair (default: a temporary folder)")
    args = parser.parse_args()
    blocks = args.pairs // PAIRS_A_BLOCK
    config = parse_config(
        {
            "run": "made-up",
            "inference": {"checkpoint": "none"},
            "agglomeration": {"enabled": True, "max_pairs": None},
            "assembly": {"shard": [EDGE] * 3},
            "data": {"test": {"image": "none.h5:image"}},
        }
    )
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        box = Box((0, 0, 0), (blocks * EDGE, EDGE, EDGE))
        spec = Spec(config, Stage(Path(folder), {}), "none", "none", box, (8.0, 8.0, 8.0), "made up")
        made, found = Made(spec, blocks), {}
        noted(spec.over_blocks(Sizes.name), made.sizes, blocks)
        found["segments"] = in_a_process(Segments(spec))
        noted(spec.over_blocks(Contacts.name), made.contacts, blocks)
        found["pairs"] = in_a_process(Pairs(spec))
        noted(spec.over_blocks(Places.name), made.places, blocks)
        found["rank"] = in_a_process(Rank(spec))
        groups = int(spec.plan["groups"])
        noted(spec.step(Resegment.name, groups), made.records, groups)
        found["join"] = in_a_process(Join(spec))
        plan, joined = spec.plan, spec.reduce(Join.name).facts()
    facts = {"pairs": plan["pairs"], "segments": args.pairs // PAIRS_A_SEGMENT, "groups": groups}
    peak = max(step["peak_bytes"] for step in found.values())
    result = {"name": "agglomerate_pairs", **facts, "joined": joined["joined"], "steps": found}
    print(json.dumps({**result, "ratio": round(ALLOWED / peak, 2)}))


if __name__ == "__main__":
    main()
