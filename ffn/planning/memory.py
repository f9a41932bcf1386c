"""Memory of inference; the numbers are those of the table in docs/architecture.md."""

from math import prod

from ffn.config import Config
from ffn.geometry import ZYX
from ffn.inference.drive import side_by_side

PROCESS_BYTES = 800_000_000
"""Python, TensorFlow and the network, on a CPU (measured: 0.72 GB with the network of the paper)."""
_CANVAS, _FINE, _SEEDS = 12, 4, 24
"""Bytes a voxel: of a sub-volume being filled, in network voxels; of its labels in image voxels where these are others;
while its seeds are found."""


def process_bytes(config: Config, tile: ZYX, concurrent: int = 1) -> int:
    """What a process holds that fills `concurrent` sub-volumes of shape `tile` (image voxels) side by side, at most."""
    voxels, pooled = prod(tile), prod(config.network.downsample)
    canvas = voxels * _CANVAS // pooled + (voxels * _FINE if pooled > 1 else 0)
    # Seeds are found for one sub-volume at a time, while the others are being filled.
    return PROCESS_BYTES + (concurrent - 1) * canvas + max(canvas, voxels * _SEEDS)


def concurrent_tiles(config: Config) -> int:
    """Sub-volumes that the configuration fills side by side in a process; 1 where it leaves that to the device."""
    inference = config.inference
    return side_by_side(inference.concurrent, inference.batch_size)
