"""Runs `ffn` and kills itself with SIGKILL just before the N-th time it touches a file below a folder.

Usage: dying_process.py N FOLDER RANK ffn-arguments. N = 0 never dies but prints the number of touches at the end; RANK
restricts the death to one Horovod rank (empty: any).
"""

import os
import signal
import sys

from ffn.cli import main

TOUCHES = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.listdir", "os.scandir", "shutil.rmtree")


def watch(last: int, folder: str) -> list[int]:
    """Count the touches; die before the one numbered `last`."""
    count = [0]

    def hook(event: str, args: tuple[object, ...]) -> None:
        if event in TOUCHES and args and folder in str(args[0]):
            count[0] += 1
            if count[0] == last:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    return count


if __name__ == "__main__":
    number, watched, rank, *arguments = sys.argv[1:]
    mine = rank in ("", os.environ.get("HOROVOD_RANK", "0"))
    touches = watch(int(number) if mine else 0, watched)
    code = main(arguments)
    print(f"touches {touches[0]}")
    sys.exit(code)
