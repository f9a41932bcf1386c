"""`ffn study`: throughput over ranks, learning rate over workers, time to a given F1, a model of the costs."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ffn.cli.options import add_command, add_config

if TYPE_CHECKING:
    from ffn.config import Config


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `study` with its parts."""
    parser = add_command(
        commands,
        "study",
        "The scaling study: Figures 3 to 5 of the paper and a model of the costs, from the section `study`.",
        "  snakemake lr_study --cores 2 --configfile config/lr_study_fib25.yaml    # the usual way\n"
        "  ffn study lr --config config/lr_study_fib25.yaml\n"
        "  ffn study cost --config config/lr_study_fib25.yaml\n\n"
        "All parts continue where they stopped.",
    )
    parts = parser.add_subparsers(title="parts", metavar="PART", required=True)
    rate = _part(parts, "rate", "Time training steps with the ranks that were started: one point of `scaling`.", _rate)
    rate.add_argument("--ranks", type=int, required=True, metavar="N", help="ranks that were started")
    rate.add_argument("--repeat", type=int, default=1, metavar="K", help="which repeat (default 1)")
    _part(parts, "scaling", "Throughput over ranks from its points.", _scaling)
    _part(parts, "lr", "Learning rate over workers: train the cells that are missing (unless study.real), fit.", _lr)
    cell = _part(parts, "cell", "Train one cell of `lr` with the ranks that were started.", _cell)
    cell.add_argument("--cell", required=True, metavar="NAME", help="such as w0016-p03-s0")
    next_cells = _part(parts, "next-cells", "Print the cells of `lr` that can be trained now, and prepare them.", _next)
    next_cells.add_argument("--output", type=Path, metavar="FILE", help="write them there instead, one a line")
    _part(parts, "efficiency", "Time and fields of view to a given F1, from the cells of `lr`.", _efficiency)
    cost = _part(parts, "cost", "Calibrate the cost model here, check it, and predict.", _cost)
    cost.add_argument("--launcher", default="horovodrun", metavar="NAME", help="starts the ranks (default horovodrun)")
    ranks = _part(parts, "cost-ranks", "The measurement of `cost` with the ranks that were started.", _cost_ranks)
    ranks.add_argument("--ranks", type=int, required=True, metavar="N", help="ranks that were started")
    ranks.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder of the measurement")


def _part(
    parts: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str, summary: str, run: object
) -> argparse.ArgumentParser:
    parser = parts.add_parser(name, help=summary, description=summary)
    add_config(parser)
    parser.set_defaults(run=run)
    return parser


def _with_threads(args: argparse.Namespace) -> "Config":
    """The configuration of a part that trains; its threads are set before TensorFlow is imported."""
    from ffn.config import load_config
    from ffn.training.threads import set_environment

    config = load_config(args.config)
    set_environment(config.threads)
    return config


def _rate(args: argparse.Namespace) -> None:
    from ffn.scaling.strong import measure_point

    measure_point(_with_threads(args), args.ranks, args.repeat)


def _scaling(args: argparse.Namespace) -> None:
    from ffn.config import load_config
    from ffn.scaling.strong import gather_scaling

    print(f"throughput over ranks in {gather_scaling(load_config(args.config))}")


def _lr(args: argparse.Namespace) -> None:
    from ffn.scaling.lr_study import run_lr_study

    print(f"learning rate over workers in {run_lr_study(_with_threads(args))}")


def _cell(args: argparse.Namespace) -> None:
    from ffn.scaling.cells import Cell

    config, cell = _with_threads(args), Cell.parse(args.cell)
    from ffn.scaling.train_cells import train_cell

    outcome = train_cell(config, cell)
    if outcome is not None:
        print(f"{cell.name}: {'diverged' if outcome.diverged else dict(outcome.scores)}")


def _next(args: argparse.Namespace) -> None:
    from ffn.config import load_config
    from ffn.files import write_text
    from ffn.scaling.outcomes import read_outcomes
    from ffn.scaling.rounds import next_cells
    from ffn.scaling.train_cells import prepare_cells

    config = load_config(args.config)
    cells = next_cells(config.study.lr_study, read_outcomes(config))
    prepare_cells(config, cells)
    text = "".join(f"{cell.name}\n" for cell in cells)
    if args.output is None:
        print(text, end="")
    else:
        write_text(args.output, text)


def _efficiency(args: argparse.Namespace) -> None:
    from ffn.config import load_config
    from ffn.scaling.efficiency import run_efficiency

    print(f"time to a given F1 in {run_efficiency(load_config(args.config))}")


def _cost(args: argparse.Namespace) -> None:
    from ffn.cluster.launch import Layout, launch_line
    from ffn.config import load_config
    from ffn.scaling.cost_run import run_cost

    def launch(ranks: int) -> str:
        return launch_line(args.launcher, Layout(ranks_per_node=ranks))

    folder = run_cost(load_config(args.config), args.config, launch)
    print(f"cost model in {folder}")


def _cost_ranks(args: argparse.Namespace) -> None:
    from ffn.scaling.calibration import measure_ranks

    measure_ranks(_with_threads(args), args.ranks, args.output)
