"""Whether what is to be joined is there: finished, made for the same box, and with the settings of now."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ffn.errors import StageError
from ffn.geometry import Box
from ffn.stages import differences

SHOWN = 20


@dataclass(frozen=True)
class Finished:
    """What a done-marker says.

    Attributes:
        hash: Of the settings that made the folder.
        settings: These.
        facts: Of the result.
    """

    hash: str
    settings: dict[str, Any]
    facts: dict[str, Any]


def finished(folder: Path, box: Box, what: str, command: str, expected: Mapping[str, Any] | None = None) -> Finished:
    """The done-marker of a folder.

    Args:
        folder: Of a stage.
        box: For which it must have been made.
        what: How a message calls it.
        command: What makes it.
        expected: Settings of now; compared where the marker has them too.

    Raises StageError where it is not finished, holds another box or was made with other settings.
    """
    marker = folder / "done.json"
    if not marker.exists():
        raise StageError(f"{what} is not finished: {marker} is missing. Run `{command}` first.")
    try:
        record = json.loads(marker.read_text(encoding="utf-8"))
        found = Finished(str(record["hash"]), dict(record["settings"]), dict(record["facts"]))
        there = str(found.settings["box"])
    except (ValueError, KeyError, TypeError) as error:
        raise StageError(f"{marker} is not a marker of this workflow ({error}); {_again(folder)}.") from error
    if there != str(box):
        raise StageError(f"{folder} holds the box {there}, but {what} is now {box}; {_again(folder)}.")
    now = json.loads(json.dumps(expected or {}))
    if unlike := differences(found.settings, now, missing=False):
        raise StageError(f"{what} was made with other settings ({unlike}); {_again(folder)}.")
    return found


def _again(folder: Path) -> str:
    return f"choose another run name, or delete {folder} and run the inference again"


def report(problems: Sequence[str], what: str) -> str:
    """All problems as one text: a single one as it is, of many the first ones and how many more there are."""
    if len(problems) == 1:
        return problems[0]
    shown = "".join(f"\n  - {problem}" for problem in problems[:SHOWN])
    more = f"\n  - and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
    return f"{what}:{shown}{more}"
