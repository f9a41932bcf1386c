"""The passes over a sub-volume become one segmentation of it, in the sub-volume's own folder."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ffn.assembly.consensus import Pieces, agreed
from ffn.assembly.finished import finished
from ffn.assembly.split_consensus import split_consensus
from ffn.config import Config
from ffn.files import write_json
from ffn.geometry import Box
from ffn.inference.results import LABELS, ORIGINS_FILE, SEGMENTATION_FILE, write_labels
from ffn.inference.tiles import tile, tile_box
from ffn.progress import Progress, log
from ffn.runs import RunPaths
from ffn.stages import Stage
from ffn.volumes import open_volume


def join_passes(config: Config, index: int) -> None:
    """Write `segmentation.h5` and `origins.json` of sub-volume `index` from its passes.

    Raises GeometryError if there is no such sub-volume, StageError where a pass is not finished or was made for another
    box or with other settings.
    """
    box = tile_box(config, index)
    passes = [finished_pass(config, index, number, box) for number in range(len(config.inference.all_passes))]
    stage = Stage(RunPaths.of(config).tile(index), {"box": str(box), "passes": passes, **consensus_rule(config)})
    with stage.locked():
        if stage.begin():
            _join(config, index, stage, box)
        else:
            log(f"{stage.folder} is already complete.")


def _join(config: Config, index: int, stage: Stage, box: Box) -> None:
    paths, inference = RunPaths.of(config), config.inference
    numbers = range(len(inference.all_passes))
    uris = [f"{paths.tile_pass(index, number) / SEGMENTATION_FILE}:{LABELS}" for number in numbers]
    with open_volume(uris[0]) as first:
        voxel_size = first.voxel_size
    with Progress(f"consensus {index}", len(uris), "passes") as progress:
        join = _voted if inference.consensus == "vote" else _split
        labels = join(config, _labels(uris, progress)).reshape(box.shape)
    write_labels(stage.folder / SEGMENTATION_FILE, labels, box, voxel_size)
    voxels = np.bincount(labels.ravel())
    write_json(
        stage.folder / ORIGINS_FILE, [{"id": number, "voxels": int(n)} for number, n in enumerate(voxels) if number]
    )
    stage.finish(segments=len(voxels) - 1, largest_id=len(voxels) - 1)
    log(f"{stage.folder}: {len(voxels) - 1} objects, {1 - voxels[0] / labels.size:.1%} of the voxels")


def consensus_rule(config: Config) -> dict[str, Any]:
    """The settings by which passes are joined."""
    of_vote, of_split = ("agreement", "majority", "min_segment_size"), ("split_min_size",)
    keys = of_vote if config.inference.consensus == "vote" else of_split
    return {key: getattr(config.inference, key) for key in ("consensus", *keys)}


def finished_pass(config: Config, index: int, number: int, box: Box) -> str:
    """The hash of the settings of a finished pass over a sub-volume.

    Raises StageError where it is not finished, holds another box or was made with other settings than those of now.
    """
    what = f"Pass {number} over sub-volume {index} of run {config.run}"
    command = f"ffn infer --config FILE --tile {index} --pass {number}"
    expected = tile(config, index, box, number).settings(config.of_pass(number), box)
    return finished(RunPaths.of(config).tile_pass(index, number), box, what, command, expected).hash


def _voted(config: Config, labels: Iterator[NDArray[np.unsignedinteger]]) -> NDArray[np.unsignedinteger]:
    pieces, factors = Pieces(labels), config.network.downsample
    # Half of what an object needs: of two passes that part it differently, one half is that large.
    smallest = max(config.inference.min_segment_size * math.prod(factors) // 2, 1)
    return agreed(pieces, config.inference.agreement, config.inference.majority, smallest)[pieces.places]


def _split(config: Config, labels: Iterator[NDArray[np.unsignedinteger]]) -> NDArray[np.unsignedinteger]:
    """Ids without gaps: what a tile needs to be assembled."""
    joined = split_consensus(labels, config.inference.split_min_size)
    # A zero at the end, so that the first id is 0 where every voxel has an object.
    _, places = np.unique(np.append(joined.ravel(), np.uint64(0)), return_inverse=True)
    return places[:-1].astype(np.uint32)


def _labels(uris: list[str], progress: Progress) -> Iterator[NDArray[np.unsignedinteger]]:
    for uri in uris:
        with open_volume(uri) as volume:
            yield volume[...]
        progress.advance(1)
