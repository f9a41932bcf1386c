"""A process that runs bare training steps when it is told to: one rank of a candidate of `ffn train --autotune`.

Started with the environment to try; reads one line of JSON from stdin that says what to run, builds it, and answers
with a line of JSON; then for each further line, a number of seconds, runs steps for so long and answers with what it
did. It ends with its stdin, so it cannot outlive the process that started it.
"""

import json
import resource
import sys
import time
from pathlib import Path
from typing import Any


def main() -> None:
    """Serve turns until stdin ends."""
    order = json.loads(sys.stdin.readline())

    from ffn.config import Config
    from ffn.training.bare import bare_step
    from ffn.training.ranks import Ranks
    from ffn.training.threads import use_devices

    config = Config.model_validate(order["config"])
    use_devices(config, Ranks(local_rank=order["local_rank"], local_size=order["local_size"]))
    step = bare_step(config, order["batch"])
    step()
    _answer(openmp=_has_openmp(), bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
    for line in sys.stdin:
        began, steps = time.perf_counter(), 0
        while time.perf_counter() - began < float(line):
            step()
            steps += 1
        _answer(fovs=steps * order["batch"], seconds=time.perf_counter() - began)


def _answer(**values: Any) -> None:
    print(json.dumps(values), flush=True)


def _has_openmp() -> bool:
    """Whether an OpenMP runtime is loaded, which is then what oneDNN may run on."""
    maps = Path("/proc/self/maps")
    return maps.exists() and any(name in maps.read_text() for name in ("libiomp", "libgomp", "libomp"))


if __name__ == "__main__":
    main()
