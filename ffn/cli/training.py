"""`ffn train`."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ffn.cli.options import add_command, add_config, add_wait

if TYPE_CHECKING:
    from ffn.config import Config


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the commands of this module."""
    parser = add_command(
        commands,
        "train",
        "Train the network, alone or as one of several Horovod ranks; continues where it stopped.",
        "  ffn train --config config.yaml\n"
        "  horovodrun --gloo -np 2 -H localhost:2 ffn train --config config.yaml\n"
        "  mpirun -np 4 ffn train --config config/fib25.yaml\n"
        "  ffn attend --notes notes -- aprun -n 8 -N 1 ffn train --ranks 8 --config config/fib25.yaml\n"
        "  ffn train --autotune --config config.yaml      (trains nothing: finds the best threads on this machine)\n"
        "\n"
        "A run that was killed goes on from its last checkpoint when the same command is given again. SIGTERM saves a\n"
        "checkpoint after the step in progress and ends with exit code 75 (horovodrun reports that as 1).",
    )
    add_config(parser)
    add_wait(parser)
    parser.add_argument("--resume", action="store_true", help="refuse to start from the beginning")
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="folder of weights and curves (default: results/RUN/train)"
    )
    parser.add_argument(
        "--ranks",
        type=int,
        metavar="N",
        help="how many ranks were started, for launchers that do not say it (aprun); with others it is checked",
    )
    parser.add_argument(
        "--autotune",
        action="store_true",
        help="measure ranks and threads for this network on this machine in under a minute, and print the best as "
        "lines for the configuration; --output FILE then takes the table as JSON",
    )
    parser.add_argument("--seconds", type=float, default=50.0, help="time for --autotune (default: %(default)s)")
    parser.set_defaults(run=_train)


def _train(args: argparse.Namespace) -> None:
    from ffn.config import load_config
    from ffn.training.threads import set_environment

    config = load_config(args.config)
    if args.autotune:
        _autotune(config, args)
        return
    set_environment(config.threads)

    from ffn.training.run import train  # imports TensorFlow, which reads the environment

    outcome = train(config, args.output, args.resume, args.ranks)
    if not outcome.first_rank:
        return
    if outcome.result is None:
        print(f"{outcome.folder} is already complete with these settings.")
        return
    result = outcome.result
    print(f"{outcome.folder / 'model.ckpt'}: {result.steps} steps")
    held_out = "" if result.held_out is None else f", held-out F1 {result.held_out.f1:.4f}"
    print(f"final F1 {result.f1:.4f}{held_out}, loss {result.loss:.4f}, {result.fovs_per_s:.1f} FOVs/s")


def _autotune(config: "Config", args: argparse.Namespace) -> None:
    from ffn.files import write_json
    from ffn.training.autotune.search import autotune

    found = autotune(config, args.seconds)
    if args.output is not None:
        write_json(args.output, found.as_json())
    print(f"{found.table()}\n\n{found.yaml()}")
