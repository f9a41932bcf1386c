"""GPU and threads of a process that shares its machine with others; through the environment, before TensorFlow or JAX
are loaded."""

import os
from collections.abc import MutableMapping
from pathlib import Path

from ffn.peers import Peer
from ffn.training.threads import INTRA_OP_VARIABLE, own_cores

_VISIBLE = "CUDA_VISIBLE_DEVICES"
_GROWING = {"TF_FORCE_GPU_ALLOW_GROWTH": "true", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
"""Left alone, each process takes all memory of its GPU."""


def share_devices(peer: Peer, variables: MutableMapping[str, str] = os.environ, folder: Path = Path("/dev")) -> None:
    """Give a process one of the machine's GPUs and its part of the cores, unless the launcher has done so.

    A process alone is left as it is. Where there are more processes than GPUs they take turns.

    Args:
        peer: Which process this is.
        variables: The environment; CUDA_VISIBLE_DEVICES, where set, names the GPUs there are.
        folder: Of the device files, one for each GPU.
    """
    if peer.local_size == 1:
        return
    gpus = visible_gpus(variables, folder)
    if gpus:
        variables[_VISIBLE] = gpus[peer.local_rank % len(gpus)]
        if peer.local_size > len(gpus):
            for name, value in _GROWING.items():
                variables.setdefault(name, value)
    variables.setdefault(INTRA_OP_VARIABLE, str(len(own_cores(peer.local_rank, peer.local_size))))


def visible_gpus(variables: MutableMapping[str, str] = os.environ, folder: Path = Path("/dev")) -> list[str]:
    """Names of the NVIDIA GPUs that this process may use, without loading anything."""
    if _VISIBLE in variables:
        return [name for name in variables[_VISIBLE].split(",") if name.strip() not in ("", "-1")]
    return [str(number) for number in range(len(list(folder.glob("nvidia[0-9]*"))))]
