"""`ffn attend`."""

import argparse
import sys
from pathlib import Path

from ffn.cli.options import add_command


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the commands of this module."""
    parser = add_command(
        commands,
        "attend",
        "Start a command, and start it again if it was killed but got further; used by the workflow.",
        "  ffn attend --notes train.attempt --progress results/demo/train/checkpoints -- \\\n"
        "      horovodrun --gloo -np 2 -H localhost:2 ffn train --config config.yaml\n"
        "\n"
        "Exit code 0: done. 75: not done, and the same command can go on later, after SIGTERM for example. Anything\n"
        "else: it failed, and would fail again.",
    )
    parser.add_argument("--notes", type=Path, required=True, metavar="DIR", help="folder for notes on the attempts")
    parser.add_argument("--progress", type=Path, metavar="DIR", help="folder in which names change with progress")
    parser.add_argument("--restarts", type=int, default=3, metavar="N", help="starts after the first (default: 3)")
    parser.add_argument(
        "--attempt", type=int, default=1, metavar="N", help="from 2 on: do nothing if the last attempt failed for good"
    )
    parser.add_argument("command", nargs=argparse.REMAINDER, help="after --: the command and its arguments")
    parser.set_defaults(run=_attend)


def _attend(args: argparse.Namespace) -> None:
    from ffn.cluster.attend import FAILED, Attendance
    from ffn.errors import ClusterError

    command = args.command[1:] if args.command[:1] == ["--"] else args.command
    if not command:
        raise ClusterError("There is nothing to attend to: give a command after --.")
    attendance = Attendance(command, args.notes, args.progress, args.restarts)
    reason = attendance.failed_before() if args.attempt > 1 else None
    if reason is not None:
        print(f"ffn attend: not tried again, it would fail again: {reason}", file=sys.stderr)
        sys.exit(FAILED)
    sys.exit(attendance.run())
