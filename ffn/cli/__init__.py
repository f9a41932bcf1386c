"""The `ffn` command: argument parsing and printing only; the work is done by the packages."""

import argparse
import errno
import importlib
import pkgutil
import sys
from collections.abc import Sequence

import ffn
from ffn.attempts import telling_end
from ffn.errors import FFNError


def build_parser() -> argparse.ArgumentParser:
    """The parser with all commands; each module of this package that has `register` adds its own."""
    parser = argparse.ArgumentParser(
        prog="ffn", description="From a raw electron-microscopy volume to a neuron segmentation."
    )
    parser.add_argument("--version", action="version", version=f"ffn {ffn.__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for module in pkgutil.iter_modules(__path__):
        register = getattr(importlib.import_module(f"{__name__}.{module.name}"), "register", None)
        if register is not None:
            register(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code. A user's mistake is one message on stderr, without a traceback."""
    args = build_parser().parse_args(argv)
    try:
        if getattr(args, "wait", False):
            from ffn.locks import wait_for_others

            wait_for_others()
        with telling_end():
            args.run(args)
    except FFNError as error:
        print(f"ffn: error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("ffn: interrupted; the same command continues where it stopped.", file=sys.stderr)
        return 130
    except OSError as error:
        if error.errno not in _DISK_ERRORS:
            raise
        print(f"ffn: error: {_DISK_ERRORS[error.errno]}: {error}. {_AFTER_DISK_ERROR}", file=sys.stderr)
        return 2
    return 0


_DISK_ERRORS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "your disk quota is used up",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "no permission",
}
_AFTER_DISK_ERROR = "Nothing half-written was kept; make room or choose another place, then run the same command again."
