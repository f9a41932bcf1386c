"""Whether what is to be joined is there: begun with the settings of now, and finished."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ffn.blockwise import Ledger, Step
from ffn.blockwise.stage import KEPT
from ffn.errors import StageError
from ffn.inference.kept import without_lost
from ffn.stages import differences

SHOWN = 20


@dataclass(frozen=True)
class Finished:
    """A finished sub-volume.

    Attributes:
        labels: URI of its labels.
        facts: What was noted of it: `hash` of its settings, `segments`, where these have gaps `largest_id`.
        source: Where the facts are from, for messages.
    """

    labels: str
    facts: Mapping[str, Any]
    source: str

    def count(self, name: str, default: int | None = None) -> int:
        """A number of its facts. Raises StageError where it is none."""
        value = self.facts.get(name, default)
        if not isinstance(value, int):
            raise StageError(
                f"{self.source} does not say how many segments {self.labels} has ({name}: {value!r}). Delete it and "
                "run the inference again."
            )
        return value


@dataclass(frozen=True)
class Begun:
    """A pass over the sub-volumes of a run, or the consensus of several, of which some may be finished.

    Attributes:
        folder: See `ffn.inference.kept`.
        settings: With which it was begun.
        step: Where its ledger is.
    """

    folder: Path
    settings: Mapping[str, Any]
    step: Step

    def ledger(self, reads: Callable[[str], bool] = lambda job: True) -> Ledger:
        """Which sub-volumes are finished; for `reads` see `Ledger`."""
        return without_lost(self.step.ledger(reads))


def begun(folder: Path, count: int, what: str, command: str, expected: Mapping[str, Any]) -> Begun:
    """What was begun in a folder.

    Args:
        folder: See `ffn.inference.kept`.
        count: Sub-volumes of the run.
        what: How a message calls it.
        command: What fills it.
        expected: Settings of now; compared where the marker has them too.

    Raises StageError where nothing was, or it was with other settings.
    """
    marker = folder / "started.json"
    if not marker.exists():
        raise StageError(f"{what} is not finished: {marker} is missing. Run `{command}` first.")
    try:
        record = json.loads(marker.read_text(encoding="utf-8"))
        settings, digest = dict(record["settings"]), str(record["hash"])
    except (ValueError, KeyError, TypeError) as error:
        raise StageError(f"{marker} is not a marker of this workflow ({error}); {_again(folder)}.") from error
    now = json.loads(json.dumps(expected))
    if unlike := differences(settings, now, missing=False):
        raise StageError(f"{what} was made with other settings ({unlike}); {_again(folder)}.")
    return Begun(folder, settings, Step(folder / KEPT, digest, count))


def _again(folder: Path) -> str:
    return f"choose another run name, or delete {folder} and run the inference again"


def report(problems: Sequence[str], what: str) -> str:
    """All problems as one text: a single one as it is, of many the first ones and how many more there are."""
    if len(problems) == 1:
        return problems[0]
    shown = "".join(f"\n  - {problem}" for problem in problems[:SHOWN])
    more = f"\n  - and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
    return f"{what}:{shown}{more}"
