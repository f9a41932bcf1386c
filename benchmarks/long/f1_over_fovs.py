"""Held-out F1 against the fields of view seen, from the checkpoints that finished runs kept.

Judges every run on the same examples, drawn from --box of the test volume of the first configuration, and writes f1.csv
with one row for each checkpoint. The runs must have one kind of network, and must not have learned from that box.

    python benchmarks/long/f1_over_fovs.py --config old.yaml new.yaml --box 150:250,0:250,0:250 --output f1

About ten seconds for each checkpoint of config/fib25_split.yaml and 64 examples.
"""

import argparse
from pathlib import Path

import ffn.model  # noqa: F401  (before TensorFlow)

# isort: split
from _checkpoints import average_at, fovs_per_step, kept_checkpoints

from ffn.config import Config, load_config, parse_config
from ffn.files import write_text
from ffn.prepare.run import prepare_training
from ffn.progress import log
from ffn.training.ranks import Ranks
from ffn.training.validation import Validation

COLUMNS = ("run", "step", "fovs", "loss", "precision", "recall", "f1")


def main() -> None:
    """Parse the arguments, judge every checkpoint, write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True, nargs="+", help="of the finished runs")
    parser.add_argument("--box", required=True, help="zyx voxels to judge on")
    parser.add_argument("--examples", type=int, default=64, help="how many (default 64)")
    parser.add_argument("--every", type=int, default=1, metavar="K", help="every Kth checkpoint (default 1)")
    parser.add_argument("--output", type=Path, required=True, help="folder for f1.csv")
    args = parser.parse_args()
    configs = [load_config(path) for path in args.config]
    judged = _judged(configs[0], args.box, args.examples, args.output)
    prepare_training(judged)
    lines = [",".join(COLUMNS)]
    for config in configs:
        for step, prefix in kept_checkpoints(config, args.every).items():
            validation = Validation.of(judged, average_at(config, prefix), Ranks())
            assert validation is not None  # `judged` has a region for it
            measures = validation.measures().as_dict()
            values = [f"{measures[name]:.4f}" for name in COLUMNS[3:]]
            lines.append(",".join([config.run, str(step), str(step * fovs_per_step(config)), *values]))
            log(lines[-1])
            write_text(args.output / "f1.csv", "\n".join(lines) + "\n")


def _judged(config: Config, box: str, examples: int, output: Path) -> Config:
    """The configuration with held-out examples of its test volume, as a run of its own."""
    values = config.model_dump(mode="json")
    values |= {"run": "judged", "results": str(output)}
    values["data"]["validation"] = {**config.data.test.model_dump(mode="json"), "box": box}
    values["training"]["validation_examples"] = examples
    return parse_config(values, "what judges")


if __name__ == "__main__":
    main()
