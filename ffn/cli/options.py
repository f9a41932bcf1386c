"""Arguments that several commands share."""

import argparse
from pathlib import Path

from ffn.errors import GeometryError
from ffn.geometry import ZYX, Box, parse_zyx


def box_option(text: str) -> Box:
    """`Z0:Z1,Y0:Y1,X0:X1`."""
    try:
        return Box.parse(text)
    except GeometryError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def zyx_option(text: str) -> ZYX:
    """`Z,Y,X`."""
    try:
        return parse_zyx(text)
    except GeometryError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def add_config(parser: argparse.ArgumentParser) -> None:
    """The required `--config FILE`."""
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="configuration file (YAML)")


def add_command(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str, summary: str, examples: str
) -> argparse.ArgumentParser:
    """A sub-command whose help shows `summary` and ends in `examples` as written."""
    return commands.add_parser(
        name,
        help=summary,
        description=summary,
        epilog=f"Examples:\n{examples}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
