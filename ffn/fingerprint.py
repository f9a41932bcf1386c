"""Which settings of a configuration decide the result of a stage."""

from collections.abc import Callable
from typing import Any

from ffn.config import Config
from ffn.runs import labels_uri


def fingerprint(config: Config, stage: str) -> dict[str, Any]:
    """The settings (JSON) that decide what `stage` makes; what it reads of other stages is not among them."""
    return _SETTINGS[stage](config)


def _evaluate(config: Config) -> dict[str, Any]:
    region = config.data.test
    return {"truth": labels_uri(config, region), "box": region.box}


_SETTINGS: dict[str, Callable[[Config], dict[str, Any]]] = {
    "evaluate": _evaluate,
}
