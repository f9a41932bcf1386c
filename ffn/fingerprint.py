"""The settings that decide what a stage makes: for its marker, its ledger, and the message that names what differs."""

from dataclasses import asdict
from typing import Any

from ffn.config import Config

_FLOOD = (
    *("segment_threshold", "move_threshold", "deltas", "disco_seed_threshold"),
    *("least_unseen", "offers_compared", "precision"),
)
_RADII = ("radius", "analysis_radius", "exclusion_radius")


def fingerprint(config: Config, stage: str) -> dict[str, Any]:
    """The settings (JSON) of a stage by its name; what it reads, its inputs' digests and its grid come beside them."""
    if stage == "assemble":
        # The shard comes with the store that is written. With agglomeration gaps are filled behind it, and not before.
        fill = {"fill_nm": 0.0} if config.agglomeration.enabled else {}
        return {"assembly": {**config.assembly.model_dump(exclude={"workers", "shard"}), **fill}}
    if stage == "agglomerate":
        return {
            "network": config.network.model_dump(),
            "inference": {key: getattr(config.inference, key) for key in _FLOOD},
            "agglomeration": config.agglomeration.model_dump(exclude={"enabled", *_RADII}),
            "radii": asdict(config.radii),
            "assembly": {key: getattr(config.assembly, key) for key in ("fill_nm", "dtype", "block")},
        }
    raise KeyError(stage)
