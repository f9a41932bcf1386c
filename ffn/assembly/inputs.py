"""The sub-volumes of a run as they are found on disk, or all that is wrong with them in one report."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ffn.assembly.finished import Begun, Finished, begun, report
from ffn.assembly.folders import are_in_folders, in_folders
from ffn.assembly.labelled import Segmented
from ffn.assembly.passes import consensus_rule
from ffn.config import Config
from ffn.errors import FFNError, StageError, VolumeError
from ffn.geometry import Box
from ffn.inference.kept import labels_of
from ffn.inference.tiles import grid_of, pass_settings, region_box
from ffn.runs import RunPaths
from ffn.stages import settings_hash
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
    """Look at what is said of all sub-volumes of a run, and at the headers of their labels.

    Raises StageError, or VolumeError where all are finished but labels are not right, naming all that are wrong.
    """
    rule = consensus_rule(config) if len(config.inference.all_passes) > 1 else None
    found = in_folders(config, boxes, rule) if are_in_folders(config) else _in_archives(config, boxes)
    # Where nothing says otherwise, ids have no gaps.
    largest_ids = [one.count("largest_id", default=one.count("segments")) for one in found]
    sizes, problems = list[VoxelSize | None](), list[str]()
    for one, box in zip(found, boxes, strict=True):
        try:
            sizes.append(_voxel_size(one.labels, box))
        except FFNError as error:
            problems.append(str(error))
    if problems:
        raise VolumeError(report(problems, _bad(len(problems), boxes, config)))
    return SubVolumes(
        Segmented(boxes, [one.labels for one in found], largest_ids),
        sum(one.count("segments") for one in found),
        settings_hash({"hashes": [one.facts["hash"] for one in found]}),
        sizes[0],
    )


def _in_archives(config: Config, boxes: Sequence[Box]) -> list[Finished]:
    found = _begun(config, len(boxes))
    ledger, several = found.ledger(), len(config.inference.all_passes) > 1
    command = f"ffn {'consensus' if several else 'infer'} --config FILE --tile"
    problems = [
        f"Sub-volume {index} ({boxes[index]}) of run {config.run} is not finished. Run `{command} {index}` first."
        for index in ledger.missing(range(len(boxes)))
    ]
    if problems:
        raise StageError(report(problems, _bad(len(problems), boxes, config)))
    return [Finished(labels_of(entry), entry.facts, str(entry.arrays.parent)) for entry in ledger.entries()]


def _begun(config: Config, count: int) -> Begun:
    """The pass over the sub-volumes, or the consensus of several; StageError where it is one of other settings."""
    paths, passes = RunPaths.of(config), len(config.inference.all_passes)
    what = f"The inference of run {config.run}"
    if passes == 1:
        command = f"ffn infer --config FILE --tile 0-{count - 1}"
        return begun(paths.infer_pass(), count, what, command, pass_settings(config, 0))
    command = f"ffn consensus --config FILE --tile 0-{count - 1}"
    rule = {"box": str(region_box(config)), **grid_of(config), **consensus_rule(config)}
    found = begun(paths.consensus, count, what, command, rule)
    joined, again = found.settings["passes"], f"Delete {found.folder} and run `{command}` again."
    if len(joined) != passes:
        raise StageError(f"{what} was made with inference.passes {len(joined)}, now it is {passes}. {again}")
    for number, digest in enumerate(joined):
        # Passes may have been deleted to make room.
        if (paths.infer_pass(number) / "started.json").exists():
            now = begun(paths.infer_pass(number), count, f"Pass {number}", command, pass_settings(config, number))
            if now.step.fingerprint != digest:
                raise StageError(f"{what} was joined from another pass {number} than the one that is there. {again}")
    return found


def _bad(count: int, boxes: Sequence[Box], config: Config) -> str:
    return f"{count} of the {len(boxes)} sub-volumes of run {config.run} cannot be assembled"


def _voxel_size(uri: str, box: Box) -> VoxelSize | None:
    with open_volume(uri) as volume:
        if volume.shape != box.shape or volume.dtype != np.uint64:
            raise VolumeError(
                f"{uri} holds {volume.dtype} of the shape {volume.shape}; expected uint64 of the shape {box.shape} "
                "(z,y,x). Delete that archive and run the inference again."
            )
        return volume.voxel_size
