"""How much of TensorFlow's bare speed the training loop keeps with the small network of config.yaml.

As `train_loop_vs_bare`, with network, training and augmentation of the default configuration, whose steps take
milliseconds: here whatever is done outside the network shows. `ratio` must be at least 0.90.
"""

import argparse
import json
import tempfile
from pathlib import Path

from _training import loop_against_bare, stand_in

from ffn.config import parse_config
from ffn.config.load import read_values

CONFIG = Path(__file__).resolve().parents[1] / "config.yaml"


def main() -> None:
    """Parse the arguments, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=CONFIG, help="whose network to take (default: %(default)s)")
    parser.add_argument("--turns", type=int, default=60)
    parser.add_argument("--seconds", type=float, default=0.5, help="length of one turn")
    args = parser.parse_args()
    values = read_values(args.config)
    kept = {key: values[key] for key in ("network", "training", "augmentation") if key in values}
    kept["training"] = {**kept["training"], "steps": 1_000_000}
    network = values["network"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = parse_config({**stand_in(folder, max(network["fov"]), network.get("downsample", (1, 1, 1))), **kept})
        result = loop_against_bare(config, folder, args.turns, args.seconds)
    print(json.dumps({"name": "train_loop_small_vs_bare", **result}))


if __name__ == "__main__":
    main()
