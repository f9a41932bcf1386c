"""`ffn agglomerate`: pieces of one neuron become one object."""

import argparse
import json

from ffn.cli.options import add_command, add_config

_EXAMPLES = """\
  ffn agglomerate --config config.yaml
  ffn agglomerate --config config.yaml --pair 17 23

The first tries all candidate pairs of the run's assembled segmentation and joins those that the network fills as one;
a command that was killed continues when it is run again. The second prints what it would find for one pair."""


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = add_command(
        commands, "agglomerate", "join pieces of one neuron in a run's assembled segmentation", _EXAMPLES
    )
    add_config(parser)
    parser.add_argument(
        "--pair", type=int, nargs=2, metavar=("A", "B"), help="only look at these two segments, and write nothing"
    )
    parser.set_defaults(run=_agglomerate)


def _agglomerate(args: argparse.Namespace) -> None:
    from ffn.agglomeration.run import agglomerate, examine_pair
    from ffn.config import load_config

    config = load_config(args.config)
    if args.pair is None:
        agglomerate(config)
    else:
        print(json.dumps(examine_pair(config, *args.pair), indent=2))
