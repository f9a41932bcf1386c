"""`ffn synth`: the embedded EM-like volume."""

import argparse
from pathlib import Path

from ffn.cli.options import add_command, add_config, add_wait


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `ffn synth`."""
    parser = add_command(
        commands,
        "synth",
        "Make the synthetic EM volume with exact labels: volume.h5 with the data sets image and labels.",
        "  ffn synth --config config.yaml\n  ffn synth --config config.yaml --output my_volume",
    )
    add_config(parser)
    add_wait(parser)
    parser.add_argument("--output", type=Path, metavar="DIR", help="folder (default: results/<run>/synth)")
    parser.set_defaults(run=_synth)


def _synth(args: argparse.Namespace) -> None:
    from ffn.config import load_config
    from ffn.synthetic.run import synthesize

    synthesize(load_config(args.config), args.output)
