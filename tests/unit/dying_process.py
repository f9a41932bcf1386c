"""Runs the same `ffn` command several times, each time to its death by SIGKILL at another moment.

Usage: dying_process.py MOMENTS FOLDER RANK ffn-arguments. MOMENTS is a comma-separated list: a run with moment N is
killed just before it touches a file below FOLDER for the N-th time, one with moment 0 is not. RANK restricts the deaths
to one Horovod rank (empty: any). Prints a line `run STATUS TOUCHES` for each run, STATUS negative for a signal,
and exits with the last one. The runs are forks, so that TensorFlow is imported only once.
"""

import os
import signal
import sys

import ffn.prepare.run
import ffn.training.run  # noqa: F401  (what `ffn train` imports, before the forks)
from ffn.cli import main as ffn_main

TOUCHES = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.listdir", "os.scandir", "shutil.rmtree")
SIGNS_OF_LIFE = "/ranks/"  # come by the clock


def watch(last: int, folder: str) -> list[int]:
    """Count the touches; die before the one numbered `last`."""
    count = [0]

    def hook(event: str, args: tuple[object, ...]) -> None:
        if event in TOUCHES and args and folder in str(args[0]) and SIGNS_OF_LIFE not in str(args[0]):
            count[0] += 1
            if count[0] == last:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    return count


def run(last: int, folder: str, arguments: list[str]) -> tuple[int, int]:
    """Status and touches (0 where it was killed) of one run in a process of its own."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        touches, status = watch(last, folder), 70
        try:
            status = ffn_main(arguments)
            sys.stdout.flush()
        finally:
            os.write(writer, str(touches[0]).encode())
            os._exit(status)
    os.close(writer)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    with os.fdopen(reader) as answer:
        return status, int(answer.read() or 0)


def main(moments: str, watched: str, rank: str, *command: str) -> int:
    """All runs; the status of the last one."""
    mine = rank in ("", os.environ.get("HOROVOD_RANK", "0"))
    final = 0
    for moment in moments.split(","):
        final, number = run(int(moment) if mine else 0, watched, [*command])
        print(f"run {final} {number}", flush=True)
    return final if final >= 0 else 128 - final


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
