"""`ffn agglomerate`: pieces of one neuron become one object."""

import argparse
import json
from functools import partial

from ffn.cli.options import add_blockwise, add_command, add_config, share_of

_EXAMPLES = """\
  ffn agglomerate --config config.yaml
  ffn agglomerate --config config.yaml --step resegment --part 2/5
  ffn agglomerate --config config.yaml --pair 17 23

The first tries all candidate pairs of the run's assembled segmentation and joins those that the network fills as one;
a command that was killed continues when it is run again. The second does a fifth of one step, which several jobs
can do side by side. The third prints what the first would find for one pair."""


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = add_command(
        commands, "agglomerate", "join pieces of one neuron in a run's assembled segmentation", _EXAMPLES
    )
    add_config(parser)
    parser.add_argument(
        "--pair", type=int, nargs=2, metavar=("A", "B"), help="only look at these two segments, and write nothing"
    )
    add_blockwise(parser)
    parser.set_defaults(run=partial(_agglomerate, parser))


def _agglomerate(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    from ffn.agglomeration.run import agglomerate, examine_pair
    from ffn.config import load_config

    config = load_config(args.config)
    if args.pair is not None and (args.step or args.ranks):
        parser.error("--pair looks at two segments; it goes without --step, --part and --ranks")
    if args.pair is None:
        agglomerate(config, share_of(parser, args))
    else:
        print(json.dumps(examine_pair(config, *args.pair), indent=2))
