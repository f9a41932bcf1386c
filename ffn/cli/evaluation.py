"""`ffn evaluate`: scores of a segmentation against ground truth."""

import argparse
from pathlib import Path

from ffn.cli.options import add_blockwise, add_command, box_option, share_of

_EXAMPLES = """\
  ffn evaluate --truth groundtruth.h5.gz --segmentation segmentation.h5:labels --output scores.json
  ffn evaluate --truth truth.h5:labels --segmentation seg.zarr --box 150:250,0:250,0:250 --output scores.json
  ffn evaluate --config config.yaml
  ffn evaluate --config config.yaml --step tables --part 2/5
  ffn evaluate --config config.yaml --step scores
"""


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `evaluate`."""
    parser = add_command(
        commands, "evaluate", "score a segmentation: variation of information, adapted Rand error, coverage", _EXAMPLES
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--config", type=Path, metavar="FILE", help="score the segmentation of this configuration's run")
    what.add_argument("--truth", metavar="URI", help="ground truth labels, 0 = unknown")
    parser.add_argument("--segmentation", metavar="URI", help="labels to score, 0 = background")
    parser.add_argument(
        "--box",
        type=box_option,
        metavar="Z0:Z1,Y0:Y1,X0:X1",
        help="score only these voxels of the truth; the segmentation has the shape of the truth or of the box",
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="scores.json; the table goes beside it as .md")
    parser.add_argument("--worst", type=_count, metavar="N", help="list the N worst splits and merges (default 10)")
    add_blockwise(parser)
    parser.set_defaults(run=lambda args: _run(parser, args))


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number, 0 or greater")
    return int(text)


def _run(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    from ffn.config import load_config
    from ffn.evaluation import WORST, evaluate_run, evaluate_to

    if args.config is not None:
        single = ("segmentation", "box", "output", "worst")
        given = [f"--{name}" for name in single if getattr(args, name) is not None]
        if given:
            parser.error(f"{', '.join(given)} cannot be combined with --config: the run decides them")
        share = share_of(parser, args)
        table = evaluate_run(load_config(args.config), share)
        if table is not None and share.peer.rank == 0:
            print(table, end="")
        return
    given = [f"--{name}" for name in ("step", "part", "ranks") if getattr(args, name) is not None]
    if given:
        parser.error(f"{', '.join(given)} goes with --config: two volumes are compared as a whole")
    missing = [f"--{name}" for name in ("segmentation", "output") if getattr(args, name) is None]
    if missing:
        parser.error(f"--truth also needs {' and '.join(missing)}")
    worst = WORST if args.worst is None else args.worst
    print(evaluate_to(args.output, args.truth, args.segmentation, args.box, worst), end="")
