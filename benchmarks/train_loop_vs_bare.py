"""How much of TensorFlow's bare speed the training loop keeps, with the network of the paper.

Times a training run (examples, moves, updates, metrics, curves, checkpoints) against a bare forward + backward + Adam
step on constant tensors of the same shape, which another process does in turns with it. Prints one JSON line; `ratio`
is the run's FOVs/s over bare FOVs/s, and must be at least 0.95 with the defaults.
"""

import argparse
import json
import tempfile
from pathlib import Path

from _training import add_network, loop_against_bare, network_of, stand_in

from ffn.config import parse_config


def main() -> None:
    """Parse the arguments, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_network(parser)
    parser.add_argument("--turns", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=2.0, help="length of one turn")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        values = {
            **stand_in(folder, args.fov),
            "network": network_of(args),
            "training": {"batch": args.batch, "steps": 1_000_000, "learning_rate": 1e-4},
        }
        result = loop_against_bare(parse_config(values), folder, args.turns, args.seconds)
    print(json.dumps({"name": "train_loop_vs_bare", **result}))


if __name__ == "__main__":
    main()
