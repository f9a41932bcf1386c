"""`ffn examples`: what training looks at."""

import argparse
from pathlib import Path

from ffn.cli.options import add_command, add_config


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `examples`."""
    parser = add_command(
        commands,
        "examples",
        "Draw the first training examples of a run, with and without their augmentations.",
        "  ffn examples --config config.yaml --output examples.png\n"
        "  ffn examples --config config/fib25.yaml --count 8 --validation --output held_out.png\n"
        "\n"
        "The object to learn is green, what is not labelled red. Prepares the run first where it is not yet.",
    )
    add_config(parser)
    parser.add_argument("--output", required=True, type=Path, metavar="FILE", help="PNG to write")
    parser.add_argument("--count", type=_count, default=16, metavar="N", help="number of examples (default 16)")
    parser.add_argument("--validation", action="store_true", help="the held-out examples of data.validation")
    parser.set_defaults(run=_examples)


def _count(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= 256:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number of examples from 1 to 256")
    return int(text)


def _examples(args: argparse.Namespace) -> None:
    from ffn.config import load_config
    from ffn.report.examples import draw_examples

    draw_examples(load_config(args.config), args.output, args.count, args.validation)
    print(f"{args.count} examples in {args.output}")
