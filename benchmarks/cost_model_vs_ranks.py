"""What the cost model predicts for 1, 2 and 4 real ranks, against what they train, with the network of the paper.

Runs `ffn study cost` on a small volume, about five minutes. Prints one JSON line; `ratio` is predicted over measured
FOVs/s of the number of ranks for which it is farthest from 1, and must lie between 0.9 and 1.1. Needs Horovod.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml
from _training import add_network, network_of, stand_in

from ffn.config import parse_config
from ffn.scaling.paths import StudyPaths

BIN = Path(sys.executable).parent


def main() -> None:
    """Parse the arguments, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_network(parser)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 4])
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        values = {
            **stand_in(folder, args.fov),
            "network": network_of(args),
            "training": {"batch": args.batch},
            "study": {"cost": {"ranks": args.ranks, "rounds": args.rounds}},
        }
        path = folder / "config.yaml"
        path.write_text(yaml.safe_dump(values), encoding="utf-8")
        command = [str(BIN / "ffn"), "study", "cost", "--config", str(path)]
        variables = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=variables)
        if done.returncode != 0:
            sys.exit(f"{' '.join(command)} failed:\n{done.stderr}")
        found = json.loads((StudyPaths.of(parse_config(values)).cost / "cost.json").read_text(encoding="utf-8"))
    errors = {row["ranks"]: row["error"] for row in found["calibration"]}
    result = {
        "name": "cost_model_vs_ranks",
        "ratio": round(1 + max(errors.values(), key=abs), 4),
        "ratios": {ranks: round(1 + error, 4) for ranks, error in errors.items()},
        "measured_fovs_per_s": {row["ranks"]: round(row["measured_fovs_per_s"], 3) for row in found["calibration"]},
        "depth": args.depth,
        "features": args.features,
        "fov": args.fov,
        "batch": args.batch,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
