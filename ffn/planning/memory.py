"""Memory of inference; the numbers are those of the table in docs/architecture.md."""

from math import prod

from ffn.config import Config
from ffn.config.seeds import PolicyDenseSeeds, PolicyMax
from ffn.geometry import ZYX
from ffn.inference.drive import side_by_side

PROCESS_BYTES = 800_000_000
"""Python, TensorFlow and the network, on a CPU (measured: 0.72 GB with the network of the paper)."""
_CANVAS, _FINE, _BYTE = 12, 4, 1
"""Bytes a voxel of a sub-volume being filled: in network voxels, its mirrored rim included; of its labels in image
voxels where these are others; of each kind of mask and of the probability."""
_BEFORE, _SEEDS, _FINE_SEEDS = 8, 16, 6
"""While its seeds are found: image and object map; what is computed in image voxels; more where these are others."""
_LISTED, _LISTING = 24, 92
"""Of policies that list every voxel: the seeds, and while they are put into order."""


def process_bytes(config: Config, tile: ZYX, concurrent: int = 1) -> int:
    """What a process holds that fills `concurrent` sub-volumes of shape `tile` (image voxels) side by side, at most: in
    the pass that needs most."""
    passes = range(len(config.inference.all_passes))
    return PROCESS_BYTES + max(_tiles_bytes(config.of_pass(number), tile, concurrent) for number in passes)


def _tiles_bytes(config: Config, tile: ZYX, concurrent: int) -> int:
    inference, factors = config.inference, config.network.downsample
    rim = (n // 2 for n in config.network.fov) if inference.mirror else (0, 0, 0)
    seen = prod(-(-n // f) + 2 * r for n, f, r in zip(tile, factors, rim, strict=True))
    voxels, pooled = prod(tile), factors != (1, 1, 1)
    moves = bool(inference.masks or inference.shift_mask)
    kinds = moves + bool(inference.masks or inference.seed_masks) + inference.save_probability
    canvas = seen * (_CANVAS + _BYTE * kinds) + (seen * prod(factors) * _FINE if pooled else 0)
    finding = seen * (_BEFORE + _BYTE * kinds) + voxels * (_SEEDS + (_FINE_SEEDS if pooled else 0))
    if any(isinstance(policy, PolicyMax | PolicyDenseSeeds) for policy in inference.seed_policy):
        canvas, finding = canvas + seen * _LISTED, max(finding, seen * _LISTING)
    # Seeds are found for one sub-volume at a time, while the others are being filled.
    return (concurrent - 1) * canvas + max(canvas, finding)


def concurrent_tiles(config: Config) -> int:
    """Sub-volumes that the configuration fills side by side in a process; 1 where it leaves that to the device."""
    inference = config.inference
    return side_by_side(inference.concurrent, inference.batch_size)
