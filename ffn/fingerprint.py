"""What of a configuration decides the result of a stage: for its markers, its ledgers, and what a message names."""

from collections.abc import Callable, Mapping
from typing import Any

from ffn.config import Config
from ffn.config.reach import lom_radius, training_margin
from ffn.runs import SYNTHETIC


def fingerprint(config: Config, stage: str, cut: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The settings (JSON) that decide what is in the folder of a stage; equal settings make equal results.

    Args:
        config: Of the run.
        stage: The name of its folder.
        cut: How the work is cut, where the result depends on that.
    """
    settings = _DECIDING[stage](config)
    return {**settings, "cut": dict(cut)} if cut else settings


def _prepare(config: Config) -> dict[str, Any]:
    network, regions = config.network, config.data.labelled
    synthetic = any(SYNTHETIC in (region.image, region.labels) for region in regions.values())
    return {
        # How often a volume is drawn from is training's affair.
        **{key: region.model_dump(exclude={"weight"}) for key, region in regions.items()},
        "synthetic": config.synthetic.model_dump() if synthetic else None,
        "voxel_size": config.data.voxel_size,
        "prepare": {**config.prepare.model_dump(), "lom_radius": lom_radius(config)},
        "network": {key: getattr(network, key) for key in ("downsample", "fov", "image_mean", "image_stddev")},
        "margin": training_margin(config),
        "seed": config.seed,
    }


_DECIDING: dict[str, Callable[[Config], dict[str, Any]]] = {"prepare": _prepare}
