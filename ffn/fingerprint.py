"""The settings that decide what a stage makes: for its marker, its ledger, and the message that names what differs."""

from typing import Any

from ffn.config import Config


def fingerprint(config: Config, stage: str) -> dict[str, Any]:
    """The settings (JSON) of a stage by its name; what it reads, its inputs' digests and its grid come beside them."""
    if stage == "assemble":
        # The shard comes with the store that is written. With agglomeration gaps are filled behind it, and not before.
        fill = {"fill_nm": 0.0} if config.agglomeration.enabled else {}
        return {"assembly": {**config.assembly.model_dump(exclude={"workers", "shard"}), **fill}}
    raise KeyError(stage)
