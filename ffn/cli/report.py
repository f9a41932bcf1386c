"""`ffn report`: pictures and tables of a run."""

import argparse

from ffn.cli.options import add_command, add_config


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `report`."""
    parser = add_command(
        commands,
        "report",
        "draw training curves, a slice with its segmentation, and the scores of a run",
        "  ffn report --config config.yaml\n  snakemake --report report.html      # all of it as one page",
    )
    add_config(parser)
    parser.set_defaults(run=_report)


def _report(args: argparse.Namespace) -> None:
    from ffn.config import load_config
    from ffn.report import report_run

    print(f"report in {report_run(load_config(args.config))}")
