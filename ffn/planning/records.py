"""What finished sub-volumes and jobs of a run tell: fields of view, voxels, bytes, seconds.

Only small files are read, and of a large run only the first of them, so that a dry-run stays quick. What cannot be
read is left out: a plan is an estimate.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from ffn.blockwise import Entry
from ffn.config import Config
from ffn.errors import GeometryError
from ffn.geometry import Box
from ffn.inference.kept import ledger_of
from ffn.runs import RunPaths

_MOST = 200


@dataclass(frozen=True)
class TileRecord:
    """A finished pass over a sub-volume.

    Attributes:
        voxels: Of the sub-volume.
        fovs: Fields of view that it took.
        label_bytes: Size of its labels on disk.
        fovs_per_s: Of the process that finished it; None where that did nothing.
    """

    voxels: int
    fovs: int
    label_bytes: int
    fovs_per_s: float | None


@dataclass(frozen=True)
class JobRecord:
    """What a process of a job reached (`ffn.inference.tally.Throughput`)."""

    tiles: int
    concurrent: int
    fovs: int
    seconds: float


def tile_records(config: Config, number: int | None = None) -> list[TileRecord]:
    """The finished passes of a run, at most 200 of them: of one of its passes, or all."""
    numbers = range(len(config.inference.all_passes)) if number is None else [number]
    ledgers = (ledger_of(RunPaths.of(config).infer_pass(number)) for number in numbers)
    found = (_tile_record(entry) for ledger in ledgers if ledger is not None for entry in ledger.entries())
    return list(islice((record for record in found if record is not None), _MOST))


def job_records(config: Config, number: int | None = None) -> list[JobRecord]:
    """What processes of the run's jobs reached, where they did something; at most 200 of them, of one pass or all."""
    names = "*.json" if number is None else f"*-pass-{number}-rank-*.json"
    found = (_job_record(path) for path in sorted(RunPaths.of(config).infer_jobs.glob(names)))
    return list(islice((record for record in found if record is not None), _MOST))


def _tile_record(entry: Entry) -> TileRecord | None:
    facts = entry.facts
    try:
        rate = float(facts.get("fovs_per_s", 0))
        voxels = Box.parse(facts["box"]).voxels
        return TileRecord(voxels, int(facts["fovs"]), int(facts["label_bytes"]), rate if rate > 0 else None)
    except (KeyError, TypeError, ValueError, GeometryError):
        return None


def _job_record(path: Path) -> JobRecord | None:
    for values in _values(path):
        try:
            record = JobRecord(**values)
        except TypeError:
            return None
        return record if record.fovs > 0 and record.seconds > 0 else None
    return None


def _values(path: Path) -> Iterator[dict[str, Any]]:
    """The contents of a JSON file of keys and values; nothing where there is none."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return
    if isinstance(values, dict):
        yield values
