"""`ffn report`: pictures and tables of a run, or of repeated runs."""

import argparse
from pathlib import Path

from ffn.cli.options import add_command, add_wait


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `report`."""
    parser = add_command(
        commands,
        "report",
        "draw training curves, a slice with its segmentation, and the scores of a run; or repeated runs together",
        "  ffn report --config config.yaml\n"
        "  ffn report repeats results/a results/b results/c --output repeats.png\n"
        "  snakemake --report report.html      # all of it as one page",
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="configuration file (YAML) of the run")
    add_wait(parser)
    parser.set_defaults(run=_report)
    parts = parser.add_subparsers(title="instead", metavar="PART")
    repeats = parts.add_parser(
        "repeats",
        help="mean and standard deviation of repeated runs (training curves)",
        description="Accuracy, F1, precision, recall of repeated runs: the mean, and a band of 1 standard deviation.",
    )
    repeats.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="results/<run>, or a folder of `ffn train`")
    repeats.add_argument(
        "--output",
        type=Path,
        default=Path("repeats.png"),
        metavar="FILE",
        help="PNG (default repeats.png); CSV beside it",
    )
    repeats.add_argument("--smoothing", type=_factor, default=0.9, metavar="F", help="TensorBoard's (default 0.9)")
    repeats.set_defaults(run=_repeats)


def _factor(text: str) -> float:
    value = float(text)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not from 0 to below 1")
    return value


def _report(args: argparse.Namespace) -> None:
    from ffn.config import load_config
    from ffn.errors import ConfigError
    from ffn.report import report_run

    if args.config is None:
        raise ConfigError("give --config FILE, or `repeats` with the folders of repeated runs.")
    print(f"report in {report_run(load_config(args.config))}")


def _repeats(args: argparse.Namespace) -> None:
    from ffn.report.repeats import report_repeats

    table = report_repeats(args.runs, args.output, args.smoothing)
    print(f"{args.output}, {table}")
