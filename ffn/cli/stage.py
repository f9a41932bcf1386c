"""`ffn stage`: a blockwise stage of the user's own."""

import argparse
import re

from ffn.cli.options import add_blockwise, add_command, add_config, share_of

_EXAMPLES = """\
  ffn stage invert:stage --config config.yaml
  ffn stage invert:stage --config config.yaml --step invert --part 2/5

`invert` is a module (invert.py in this folder, or an installed one) and `stage` a function in it that is given the
checked configuration and returns an `ffn.blockwise.BlockwiseStage`; CONTRIBUTING.md shows a whole one. A stage that was
killed continues when the command is run again."""


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `stage`."""
    parser = add_command(commands, "stage", "run a blockwise stage of your own", _EXAMPLES)
    parser.add_argument("stage", metavar="MODULE:FUNCTION", help="what makes the stage")
    add_config(parser)
    add_blockwise(parser)
    parser.add_argument("--workers", type=int, default=0, help="processes (default: one for each core)")
    parser.set_defaults(run=lambda args: _run(parser, args))


def _run(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    import importlib
    import sys

    from ffn.blockwise import BlockwiseStage, usable_cores
    from ffn.config import load_config
    from ffn.errors import StageError
    from ffn.progress import log

    found = re.fullmatch(r"([\w.]+):(\w+)", args.stage)
    if found is None:
        parser.error(f"'{args.stage}' is not MODULE:FUNCTION, such as invert:stage")
    sys.path.insert(0, "")  # the working directory, as for `python -m`
    try:
        function = getattr(importlib.import_module(found[1]), found[2])
    except (ModuleNotFoundError, AttributeError) as error:
        raise StageError(f"{args.stage} cannot be loaded ({error}); name a module here or an installed one.") from error
    steps = function(load_config(args.config))
    if not isinstance(steps, BlockwiseStage):
        raise StageError(f"{args.stage} returned {type(steps).__name__}; expected an ffn.blockwise.BlockwiseStage.")
    if not steps.run(args.workers or usable_cores(), share_of(parser, args)):
        log(f"{steps.stage.folder} is already complete.")
