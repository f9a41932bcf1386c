"""What two Horovod ranks with one thread each train, against one rank with two threads.

Real runs of `ffn train`, one after the other in the order ABBA..., with the network of the paper and batch 1. Prints
one JSON line; `ratio` is FOVs/s of two ranks over those of one, the median over neighbouring runs, and must be at least
1.05. Rates are from timing.csv, without the row in which TensorFlow builds its graph. Only for machines with two cores
or more and Horovod.

What there is to gain depends on the processor: `bare_ratio` is the same for TensorFlow alone, two processes of one
thread that know nothing of each other against one of two threads, each doing bare steps.
"""

import argparse
import csv
import json
import shlex
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml
from _training import add_network, bare_side_by_side, network_of, stand_in

from ffn.cluster.launch import Layout, launch_line
from ffn.config import parse_config
from ffn.prepare.run import prepare_training

BIN = Path(sys.executable).parent


def main() -> None:
    """Parse the arguments, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_network(parser)
    parser.add_argument("--pairs", type=int, default=4)
    parser.add_argument("--fovs", type=int, default=40, help="fields of view that each run is timed over")
    parser.add_argument("--bare", type=float, default=15.0, help="seconds of bare steps that are timed")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        values = {**stand_in(folder, args.fov), "network": network_of(args)}
        prepare_training(parse_config(values))
        pairs, bare_pairs = [], []
        for number in range(args.pairs):
            order = (1, 2) if number % 2 == 0 else (2, 1)
            rates = {ranks: _rate(folder, values, ranks, number, args) for ranks in order}
            pairs.append((rates[2], rates[1]))
            bare = {ranks: bare_side_by_side(_values(values, ranks, args.batch), ranks, args.bare) for ranks in order}
            bare_pairs.append((bare[2], bare[1]))
    result = {
        "name": "two_ranks_vs_one",
        "ratio": round(statistics.median(two / one for two, one in pairs), 4),
        "ratios": [round(two / one, 3) for two, one in pairs],
        "two_ranks_fovs_per_s": round(statistics.median(two for two, _ in pairs), 3),
        "one_rank_fovs_per_s": round(statistics.median(one for _, one in pairs), 3),
        "bare_ratio": round(statistics.median(two / one for two, one in bare_pairs), 4),
        "bare_ratios": [round(two / one, 3) for two, one in bare_pairs],
        "depth": args.depth,
        "features": args.features,
        "fov": args.fov,
        "batch": args.batch,
    }
    print(json.dumps(result))


def _values(values: dict[str, Any], ranks: int, batch: int, **training: float) -> dict[str, Any]:
    return {
        **values,
        "training": {"ranks": ranks, "batch": batch, **training},
        "threads": {"intra_op": 2 // ranks},
    }


def _rate(folder: Path, values: dict[str, Any], ranks: int, number: int, args: argparse.Namespace) -> float:
    """FOVs/s of one training run."""
    row = max(args.fovs // (4 * ranks * args.batch), 1)
    steps = {"steps": 5 * row, "log_every": row, "learning_rate": 1e-4}
    config, output = folder / f"{ranks}-{number}.yaml", folder / f"{ranks}-{number}"
    config.write_text(yaml.safe_dump(_values(values, ranks, args.batch, **steps)))
    launch = shlex.split(launch_line("horovodrun", Layout(ranks_per_node=ranks)))
    command = [*launch, str(BIN / "ffn"), "train", "--config", str(config), "--output", str(output)]
    if launch:
        command[0] = str(BIN / launch[0])
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{shlex.join(command)} failed:\n{done.stderr}")
    with (output / "timing.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    steps, seconds = (float(rows[-1][key]) - float(rows[0][key]) for key in ("step", "seconds"))
    return steps * ranks * args.batch / seconds


if __name__ == "__main__":
    main()
