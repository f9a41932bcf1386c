"""Threads, their places, and devices of a training process.

Two kinds of settings: variables of the environment, which libraries read when they are loaded, and TensorFlow's own,
which it takes until it first runs something. So `set_environment` comes before TensorFlow is imported (this module does
not import it), `use_devices` after the ranks have met.
"""

import os
import sys
from collections.abc import Mapping, MutableMapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from ffn.config import Config, Threads
from ffn.progress import log

if TYPE_CHECKING:
    from ffn.training.ranks import Ranks

INTRA_OP_VARIABLE = "TF_NUM_INTRAOP_THREADS"
"""What TensorFlow reads where it is given no number of threads; launch lines set it."""


def environment(threads: Threads) -> dict[str, str]:
    """The variables that the configuration states; what it leaves open stays as the launcher set it."""
    stated = {
        "TF_ENABLE_ONEDNN_OPTS": None if threads.onednn is None else int(threads.onednn),
        "OMP_NUM_THREADS": threads.omp or None,
        "KMP_BLOCKTIME": threads.kmp_blocktime,
        "KMP_AFFINITY": threads.kmp_affinity,
    }
    return {name: str(value) for name, value in stated.items() if value is not None}


def set_environment(threads: Threads, variables: MutableMapping[str, str] = os.environ) -> None:
    """Put `environment` into effect; says so where TensorFlow is already loaded and it comes too late."""
    wanted = environment(threads)
    changed = [name for name, value in wanted.items() if variables.get(name) != value]
    variables.update(wanted)
    if changed and "tensorflow" in sys.modules:
        log(f"TensorFlow is already loaded in this process: {', '.join(changed)} may have no effect.")


def use_devices(config: Config, ranks: "Ranks") -> None:
    """Threads, GPU and reproducible kernels of this rank; before TensorFlow runs anything.

    Ranks that share a machine share its cores; left to itself, TensorFlow would give each of them all. On a CPU, with
    the same number of threads, the same configuration gives the same bits; a GPU's faster kernels do not promise that.
    """
    import tensorflow as tf

    threads = config.threads
    cores = own_cores(ranks.local_rank, ranks.local_size)
    if threads.pin and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)
    gpus = tf.config.list_physical_devices("GPU")
    try:
        tf.config.threading.set_intra_op_parallelism_threads(intra_op(threads, len(cores), ranks.local_size))
        tf.config.threading.set_inter_op_parallelism_threads(threads.inter_op)
        if gpus:
            mine = gpus[ranks.local_rank % len(gpus)]
            tf.config.set_visible_devices(mine, "GPU")
            tf.config.experimental.set_memory_growth(mine, True)
    except RuntimeError:
        log("TensorFlow is already running in this process: training's thread and GPU settings have no effect.")
    if not gpus:
        tf.config.experimental.enable_op_determinism()


def intra_op(threads: Threads, cores: int, local_size: int, variables: Mapping[str, str] = os.environ) -> int:
    """Threads inside one operation for a rank that owns `cores`; 0 = TensorFlow takes all cores that it may run on."""
    if threads.intra_op or local_size == 1 or INTRA_OP_VARIABLE in variables:
        return threads.intra_op
    return cores


def own_cores(local_rank: int, local_size: int) -> list[int]:
    """Numbers of the cores that belong to one of the `local_size` ranks of this machine.

    Launchers such as aprun, mpiexec and srun bind each rank to its cores: then all that it may run on are its own,
    which shows in the launcher itself being allowed on more. Otherwise the ranks divide what there is.
    """
    allowed, bound = _allowed()
    return allowed if bound else share(allowed, local_rank, local_size)


def common_cores(local_size: int) -> int:
    """How many cores the `local_size` ranks of this machine have together."""
    allowed, bound = _allowed()
    return len(allowed) * (local_size if bound else 1)


def _allowed() -> tuple[list[int], bool]:
    """The cores that this process may run on, and whether its launcher bound it to some of its own."""
    if not hasattr(os, "sched_getaffinity"):  # macOS
        return list(range(os.cpu_count() or 1)), False
    mine, launchers = os.sched_getaffinity(0), set[int]()
    with suppress(OSError):
        launchers = os.sched_getaffinity(os.getppid())
    return sorted(mine), mine < launchers


def share(cores: Sequence[int], local_rank: int, local_size: int) -> list[int]:
    """Part `local_rank` of `local_size` equal parts of the cores; ranks take turns where there are more than cores."""
    size = max(len(cores) // local_size, 1)
    first = local_rank * size % len(cores)
    return list(cores[first : first + size])
