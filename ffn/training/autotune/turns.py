"""A process that runs bare training steps when it is told to: one rank of a candidate of `ffn train --autotune`.

Started with the environment to try and the path of a socket. From there it reads a line of JSON that says what to run,
builds it, and answers with a line of JSON; then for each further line, a number of steps, runs them and answers with
the seconds they took. It ends when the socket is closed, so it cannot outlive the process that started it.
"""

import json
import resource
import socket
import sys
import time
from pathlib import Path


def main() -> None:
    """Serve turns until the other side closes the socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.connect(sys.argv[1])
        with connection.makefile("rw", encoding="utf-8", buffering=1) as lines:
            order = json.loads(lines.readline())

            from ffn.config import Config
            from ffn.training.autotune.bare import bare_step
            from ffn.training.ranks import Ranks
            from ffn.training.threads import use_devices

            config = Config.model_validate(order["config"])
            ranks = Ranks(local_rank=order["local_rank"], local_size=order["local_size"])
            if order["exchange"]:
                ranks = Ranks.start(config.allreduce)
            use_devices(config, ranks)
            step = bare_step(config, order["batch"], ranks)
            step()
            taken = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
            print(json.dumps({"openmp": _has_openmp(), "bytes": taken}), file=lines)
            for line in lines:
                began = time.perf_counter()
                for _ in range(int(line)):
                    step()
                print(json.dumps({"seconds": time.perf_counter() - began}), file=lines)


def _has_openmp() -> bool:
    """Whether an OpenMP runtime is loaded, which is then what oneDNN may run on."""
    maps = Path("/proc/self/maps")
    return maps.exists() and any(name in maps.read_text() for name in ("libiomp", "libgomp", "libomp"))


if __name__ == "__main__":
    main()
