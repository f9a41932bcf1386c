"""The passes over a sub-volume become one segmentation of it, in the sub-volume's own folder."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ffn.assembly.consensus import Pieces, agreed
from ffn.assembly.finished import finished
from ffn.config import Config
from ffn.files import write_json
from ffn.geometry import Box
from ffn.inference.results import LABELS, ORIGINS_FILE, SEGMENTATION_FILE, write_labels
from ffn.inference.tiles import tile_box
from ffn.progress import Progress, log
from ffn.runs import RunPaths
from ffn.stages import Stage
from ffn.volumes import open_volume


def join_passes(config: Config, index: int) -> None:
    """Write `segmentation.h5` and `origins.json` of sub-volume `index` from its passes.

    Raises GeometryError if there is no such sub-volume, StageError where a pass is not finished or was made for another
    box.
    """
    box, paths = tile_box(config, index), RunPaths.of(config)
    folders = [paths.tile_pass(index, number) for number in range(config.inference.passes)]
    settings = {
        "box": str(box),
        "passes": [_finished(config, index, number, box) for number in range(config.inference.passes)],
        "agreement": config.inference.agreement,
        "min_segment_size": config.inference.min_segment_size,
    }
    stage = Stage(paths.tile(index), settings)
    if not stage.begin():
        log(f"{stage.folder} is already complete.")
        return
    uris = [f"{folder / SEGMENTATION_FILE}:{LABELS}" for folder in folders]
    with open_volume(uris[0]) as first:
        voxel_size = first.voxel_size
    z, y, x = config.network.downsample
    with Progress(f"consensus {index}", len(uris), "passes") as progress:
        pieces = Pieces(_labels(uris, progress))
    # Half of what an object needs: of two passes that part it differently, one half is that large.
    objects = agreed(pieces, config.inference.agreement, max(config.inference.min_segment_size * z * y * x // 2, 1))
    labels = objects[pieces.places].reshape(box.shape)
    write_labels(stage.folder / SEGMENTATION_FILE, labels, box, voxel_size)
    voxels = np.bincount(objects, weights=pieces.voxels, minlength=1).astype(np.int64)
    write_json(
        stage.folder / ORIGINS_FILE, [{"id": number, "voxels": int(n)} for number, n in enumerate(voxels) if number]
    )
    stage.finish(segments=len(voxels) - 1, pieces=len(pieces.voxels))
    log(f"{stage.folder}: {len(voxels) - 1} objects, {1 - voxels[0] / labels.size:.1%} of the voxels")


def _labels(uris: list[str], progress: Progress) -> Iterator[NDArray[np.unsignedinteger]]:
    for uri in uris:
        with open_volume(uri) as volume:
            yield volume[...]
        progress.advance(1)


def _finished(config: Config, index: int, number: int, box: Box) -> str:
    what = f"Pass {number} over sub-volume {index} of run {config.run}"
    command = f"ffn infer --config FILE --tile {index} --pass {number}"
    return finished(RunPaths.of(config).tile_pass(index, number), box, what, command).hash
