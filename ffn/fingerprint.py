"""The settings that decide what a stage makes: for its marker, its ledger, the message that names what differs, and for
Snakemake, which starts a rule again when they change."""

import json
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import asdict
from typing import Any

from ffn.config import Config
from ffn.config.inference import WITHOUT_EFFECT as INFERENCE_WITHOUT_EFFECT
from ffn.config.reach import lom_radius, training_margin
from ffn.runs import SYNTHETIC, image_uri, labels_uri

STAGE_KEYS = {
    "assemble": ("assembly", "agglomeration.enabled", "data.test"),
    "agglomerate": ("agglomeration", "assembly", "data.test", "data.voxel_size", "network", "inference"),
    "evaluate": ("data.test",),
    "export": ("export", "data.test", "data.voxel_size"),
    "prepare": (*("data.train", "data.validation", "data.voxel_size", "network", "prepare", "training.moves", "seed"),),
}
"""Keys of the configuration that a blockwise stage reads."""

_WITHOUT_EFFECT: dict[str, Collection[str]] = {
    "training": {"checkpoint_every", "keep_checkpoints", "log_every", "microbatch"},
    "inference": INFERENCE_WITHOUT_EFFECT,
    "assembly": {"workers", "shard"},
    "export": {"workers"},
}
"""Settings that change how fast or how safely a stage works, but not what it makes."""

_FLOOD = (
    *("segment_threshold", "move_threshold", "deltas", "disco_seed_threshold"),
    *("least_unseen", "offers_compared", "precision"),
)
_RADII = ("radius", "analysis_radius", "exclusion_radius")


def fingerprint(config: Config, stage: str) -> dict[str, Any]:
    """The settings (JSON) of a stage by its name; what it reads, its inputs' digests and its grid come beside them."""
    return _SETTINGS[stage](config)


def trigger(values: Mapping[str, Any], keys: Iterable[str], without: Collection[str] = ()) -> str:
    """The values of these keys (`prepare`, `data.test`) as text: as a param, a change starts a rule again.

    Args:
        values: A whole configuration.
        keys: Sections, or keys of theirs.
        without: Names in these sections that do not count.
    """
    found = {key: _effective(values, key, without) for key in keys}
    return json.dumps(found, sort_keys=True)


def _assemble(config: Config) -> dict[str, Any]:
    # With agglomeration gaps are filled behind it, and not before.
    fill = {"fill_nm": 0.0} if config.agglomeration.enabled else {}
    return {"assembly": {**_effective(config.model_dump(mode="json"), "assembly"), **fill}}


def _agglomerate(config: Config) -> dict[str, Any]:
    return {
        "network": config.network.model_dump(),
        "inference": {key: getattr(config.inference, key) for key in _FLOOD},
        "agglomeration": config.agglomeration.model_dump(exclude={"enabled", *_RADII}),
        "radii": asdict(config.radii),
        "assembly": {key: getattr(config.assembly, key) for key in ("fill_nm", "dtype", "block")},
    }


def _evaluate(config: Config) -> dict[str, Any]:
    region = config.data.test
    return {"truth": labels_uri(config, region), "box": region.box}


def _export(config: Config) -> dict[str, Any]:
    region = config.data.test
    return {
        "format": "sharded precomputed",
        "image": image_uri(config, region),
        "truth": labels_uri(config, region),
        "box": region.box,
        "voxel_size": config.data.voxel_size,
        "export": _effective(config.model_dump(mode="json"), "export"),
    }


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


_SETTINGS: dict[str, Callable[[Config], dict[str, Any]]] = {
    "assemble": _assemble,
    "agglomerate": _agglomerate,
    "evaluate": _evaluate,
    "export": _export,
    "prepare": _prepare,
}


def _effective(values: Mapping[str, Any], key: str, without: Collection[str] = ()) -> Any:
    found: Any = values
    for part in key.split("."):
        found = found[part]
    ignored = {*_WITHOUT_EFFECT.get(key, ()), *without}
    return {name: value for name, value in found.items() if name not in ignored} if isinstance(found, dict) else found
