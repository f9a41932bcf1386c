"""Arguments that several commands share."""

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING

from ffn.errors import GeometryError
from ffn.geometry import ZYX, Box, parse_zyx

if TYPE_CHECKING:
    from ffn.blockwise.stage import JobPart, Share


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


def numbers_option(text: str) -> list[int]:
    """Numbers and ranges with both ends, `3` or `0-7,12`: ascending, each once."""
    numbers: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)(?:-(\d+))?\s*", part)
        if match is None or int(match[2] or match[1]) < int(match[1]):
            raise argparse.ArgumentTypeError(f"'{text}' is not a list of numbers and ranges such as 3 or 0-7,12.")
        numbers.update(range(int(match[1]), int(match[2] or match[1]) + 1))
    return sorted(numbers)


def positive_option(text: str) -> int:
    """A whole number from 1."""
    if re.fullmatch(r"\d+", text) is None or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number from 1.")
    return int(text)


def add_config(parser: argparse.ArgumentParser) -> None:
    """The required `--config FILE`."""
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="configuration file (YAML)")


def add_wait(parser: argparse.ArgumentParser) -> None:
    """`--wait`, of the commands that work alone in a folder."""
    parser.add_argument(
        "--wait",
        action="store_true",
        help="where another process works in the same folder: wait until it ends, and use what it has done (default: "
        "say who it is, and end)",
    )


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


def add_blockwise(parser: argparse.ArgumentParser) -> None:
    """`--step`, `--part` and `--ranks` of a stage made of steps (`ffn.blockwise`)."""
    parser.add_argument("--step", metavar="NAME", help="do one step of the stage only (default: all that are not done)")
    parser.add_argument(
        "--part", type=part_option, metavar="K/N", help="do one of N equal parts of that step, counted from 1"
    )
    parser.add_argument(
        "--ranks",
        type=positive_option,
        metavar="N",
        help="processes that a launcher started and that share the work (default: what the environment says; "
        "1 = do not ask it)",
    )


def part_option(text: str) -> "JobPart":
    """`K/N`, counted from 1."""
    from ffn.blockwise.stage import JobPart

    if (part := JobPart.parse(text)) is None:
        raise argparse.ArgumentTypeError(f"'{text}' is not a part such as 2/5, counted from 1.")
    return part


def share_of(parser: argparse.ArgumentParser, args: argparse.Namespace) -> "Share":
    """Which part of a stage's work this process does, by the options of `add_blockwise`."""
    from ffn.blockwise.stage import JobPart, Share
    from ffn.peers import Peer

    if args.part is not None and args.step is None:
        parser.error("--part goes with --step: it is a part of the units of one step")
    return Share(args.step, args.part or JobPart(), Peer.of(ranks=args.ranks))
