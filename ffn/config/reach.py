"""How far training looks around a voxel, in network voxels."""

from ffn.config.sections import Config
from ffn.geometry import ZYX


def lom_radius(config: Config) -> ZYX:
    """Half size of the partitions' cube: as configured, else as far as the field of view reaches in training."""
    return config.prepare.lom_radius or _reach(config, 1)


def training_margin(config: Config) -> ZYX:
    """How far a training patch reaches from its centre: half a field of view and all moves that the policy makes."""
    return _reach(config, 2 if config.training.moves == "max_pred_moves" else 1)


def _reach(config: Config, moves: int) -> ZYX:
    network = config.network
    z, y, x = (size // 2 + moves * delta for size, delta in zip(network.fov, network.deltas, strict=True))
    return z, y, x
