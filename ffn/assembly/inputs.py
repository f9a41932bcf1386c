"""The sub-volumes of a run as they are found on disk, or all that is wrong with them in one report."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ffn.assembly.finished import Finished, finished, report
from ffn.assembly.labelled import Segmented
from ffn.assembly.passes import consensus_rule, finished_pass
from ffn.config import Config
from ffn.errors import FFNError, StageError, VolumeError
from ffn.geometry import Box
from ffn.inference.results import LABELS, SEGMENTATION_FILE
from ffn.inference.tiles import tile
from ffn.runs import RunPaths
from ffn.stages import differences, settings_hash
from ffn.volumes import VoxelSize, open_volume


@dataclass(frozen=True)
class SubVolumes:
    """Finished sub-volumes.

    Attributes:
        segmented: Where they are.
        segments: How many they have in all.
        digest: Of the settings that made them all.
        voxel_size: Nanometres zyx, or None.
    """

    segmented: Segmented
    segments: int
    digest: str
    voxel_size: VoxelSize | None


def finished_tiles(config: Config, boxes: Sequence[Box]) -> SubVolumes:
    """Look at the markers and the headers of all sub-volumes of a run.

    Raises StageError, or VolumeError where markers are right but labels are not, naming all that are wrong.
    """
    folders = [RunPaths.of(config).tile(index) for index in range(len(boxes))]
    first: Finished | None = None
    hashes, largest_ids, problems = list[str](), list[int](), list[str]()
    segments = 0
    for index, (folder, box) in enumerate(zip(folders, boxes, strict=True)):
        try:
            record = _finished(config, index, folder, box, first)
        except StageError as error:
            problems.append(str(error))
            continue
        # Of many sub-volumes, all settings would be much to hold.
        first = first or record
        hashes.append(record.hash)
        segments += record.facts["segments"]
        # Where nothing says otherwise, ids have no gaps.
        largest_ids.append(record.facts.get("largest_id", record.facts["segments"]))
    if problems:
        raise StageError(report(problems, _bad(len(problems), boxes, config)))
    uris = [f"{folder / SEGMENTATION_FILE}:{LABELS}" for folder in folders]
    sizes = list[VoxelSize | None]()
    for uri, box in zip(uris, boxes, strict=True):
        try:
            sizes.append(_voxel_size(uri, box))
        except FFNError as error:
            problems.append(str(error))
    if problems:
        raise VolumeError(report(problems, _bad(len(problems), boxes, config)))
    digest = settings_hash({"hashes": hashes})
    return SubVolumes(Segmented(boxes, uris, largest_ids), segments, digest, sizes[0])


def _bad(count: int, boxes: Sequence[Box], config: Config) -> str:
    return f"{count} of the {len(boxes)} sub-volumes of run {config.run} cannot be assembled"


def _finished(config: Config, index: int, folder: Path, box: Box, first: Finished | None) -> Finished:
    several = len(config.inference.all_passes) > 1
    what = f"Sub-volume {index} ({box}) of run {config.run}"
    command = f"ffn {'consensus' if several else 'infer'} --config FILE --tile {index}"
    again = f"Delete {folder} and run `{command}` again."
    record = finished(folder, box, what, command, _expected(config, index, box))
    segments = record.facts.get("segments")
    if not isinstance(segments, int) or not isinstance(record.facts.get("largest_id", segments), int):
        raise StageError(f"{folder / 'done.json'} does not say how many segments there are. Run `{command}` again.")
    _require_passes(config, index, box, record, what, again)
    if first is not None and (unlike := differences(_common(first.settings), _common(record.settings))):
        raise StageError(
            f"{what} was made with other settings than the first one ({unlike.replace('there', 'first', 1)}). {again}"
        )
    return record


def _require_passes(config: Config, index: int, box: Box, record: Finished, what: str, again: str) -> None:
    """Raise StageError where a sub-volume comes from other passes than those of now, as far as its markers tell."""
    now, joined = len(config.inference.all_passes), record.settings.get("passes")
    one = "inference" in record.settings
    there = 1 if one else len(joined) if isinstance(joined, list) else now
    if there != now:
        raise StageError(f"{what} was made with inference.passes {there}, now it is {now}. {again}")
    for number, digest in enumerate(joined or []):
        # Passes may have been deleted to make room.
        marker = RunPaths.of(config).tile_pass(index, number) / "done.json"
        if marker.exists() and finished_pass(config, index, number, box) != digest:
            raise StageError(f"{what} was joined from another pass {number} than the one that is there now. {again}")


def _expected(config: Config, index: int, box: Box) -> Mapping[str, Any]:
    if len(config.inference.all_passes) > 1:
        return consensus_rule(config)
    return tile(config, index, box).settings(config.of_pass(0), box)


def _common(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What all sub-volumes of a run share."""
    return {key: value for key, value in settings.items() if key not in ("box", "passes")}


def _voxel_size(uri: str, box: Box) -> VoxelSize | None:
    with open_volume(uri) as volume:
        if volume.shape != box.shape or volume.dtype != np.uint64:
            raise VolumeError(
                f"{uri} holds {volume.dtype} of the shape {volume.shape}; expected uint64 of the shape {box.shape} "
                "(z,y,x). Delete that folder and run the inference again."
            )
        return volume.voxel_size
