"""Sub-volumes in folders of their own, `infer/tile-0000` and on: imported ones, and those of versions before there were
archives (`ffn.inference.kept`)."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ffn.assembly.finished import Finished, report
from ffn.config import Config
from ffn.errors import StageError
from ffn.geometry import Box
from ffn.inference.results import LABELS, SEGMENTATION_FILE
from ffn.inference.tiles import tile
from ffn.runs import RunPaths
from ffn.stages import differences


def are_in_folders(config: Config) -> bool:
    """Whether the run's sub-volumes are in folders and not in archives."""
    paths = RunPaths.of(config)
    in_archives = paths.filled(len(config.inference.all_passes)) / "started.json"
    return not in_archives.exists() and (paths.tile(0) / "done.json").exists()


def in_folders(config: Config, boxes: Sequence[Box], rule: Mapping[str, Any] | None) -> list[Finished]:
    """The finished sub-volumes of a run.

    Args:
        config: Of the run.
        boxes: Of all sub-volumes.
        rule: By which passes were joined; None = each is of one pass.

    Raises StageError, naming all that are not finished or made for other boxes or with other settings.
    """
    found, problems = list[Finished](), list[str]()
    for index, box in enumerate(boxes):
        expected = tile(config, index, box).settings(config.of_pass(0), box) if rule is None else rule
        try:
            found.append(_in_folder(RunPaths.of(config).tile(index), box, f"Sub-volume {index} ({box})", expected))
        except StageError as error:
            problems.append(str(error))
    if problems:
        raise StageError(report(problems, f"{len(problems)} of the {len(boxes)} sub-volumes cannot be assembled"))
    return found


def _in_folder(folder: Path, box: Box, what: str, expected: Mapping[str, Any]) -> Finished:
    marker = folder / "done.json"
    if not marker.exists():
        raise StageError(f"{what} is not finished: {marker} is missing. Fill it, or import it.")
    try:
        record = json.loads(marker.read_text(encoding="utf-8"))
        facts = {**record["facts"], "hash": record["hash"]}
        settings = dict(record["settings"])
    except (ValueError, KeyError, TypeError) as error:
        raise StageError(f"{marker} is not a marker of this workflow ({error}); move {folder} away.") from error
    now = {**json.loads(json.dumps(expected)), "box": str(box)}
    if unlike := differences(settings, now, missing=False):
        raise StageError(f"{what} was made with other settings ({unlike}); delete {folder} and fill it again.")
    return Finished(f"{folder / SEGMENTATION_FILE}:{LABELS}", facts, str(marker))
