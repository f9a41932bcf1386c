"""The export stage of a run."""

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from math import ceil, prod
from pathlib import Path

from ffn.agglomeration.candidates import read_candidates
from ffn.config import Config
from ffn.errors import VolumeError
from ffn.export.precomputed import Bench, Kind, stored_type, write_layer
from ffn.export.state import contrast_of, viewer_state, with_candidates
from ffn.files import write_json
from ffn.runs import RunPaths, image_uri, labels_uri
from ffn.stages import Stage, done_digest
from ffn.volumes import Volume, VoxelSize, open_image, open_labels
from ffn.workers import Workers, usable_cores

STATE = "state.json"
_VOXELS_OF_A_WORKER = 1 << 24
"""Fewer are written before another process has started."""


def export_run(config: Config) -> Path:
    """Write the test region's image, ground truth (where there is one) and segmentation as layers, and the state.

    Returns the folder. Layers lie where the region lies in its source volume. What is complete is kept: a finished
    export does nothing, a killed one goes on with the first incomplete layer.
    """
    region, paths = config.data.test, RunPaths.of(config)
    truth = labels_uri(config, region)
    stage = Stage(
        paths.export,
        {
            "image": image_uri(config, region),
            "truth": truth,
            "box": region.box,
            "voxel_size": config.data.voxel_size,
            "export": config.export.model_dump(exclude={"workers"}),
            "segmentation": done_digest(paths.segmented, f"ffn {paths.segmented.name}"),
        },
    )
    with ExitStack() as files:
        sources: dict[str, Callable[[], Volume]] = {
            "image": partial(
                open_image, image_uri(config, region), box=region.bounds, voxel_size=config.data.voxel_size
            ),
            "segmentation": partial(open_labels, paths.segmentation),
        }
        if truth is not None:
            sources["truth"] = partial(open_labels, truth, box=region.bounds)
        # Before the folder is claimed: what is wrong here is put right in the configuration, which the claim holds.
        layers: dict[str, tuple[Kind, Volume]] = {
            name: ("image" if name == "image" else "segmentation", files.enter_context(source()))
            for name, source in sources.items()
        }
        image = layers["image"][1]
        box, voxel_size = image.bounds, _known(image)
        for kind, volume in layers.values():
            stored_type(volume, kind)
            _require_shape(volume, image)
        if not stage.begin():
            return paths.export
        count = min(config.export.workers or usable_cores(), ceil(prod(image.shape) / _VOXELS_OF_A_WORKER))
        with Workers(count, partial(Bench, sources), "Use fewer export.workers.") as workers:
            for name, (kind, volume) in layers.items():
                write_layer(
                    paths.export / name, volume, kind, voxel_size, box.start, config.export.chunk, config.export.mips,
                    workers if count > 1 else None,
                )  # fmt: skip
        state = viewer_state(config.run, list(layers), box, voxel_size, contrast_of(image))
        if paths.agglomerates:
            state = with_candidates(state, read_candidates(paths.agglomerate))
        write_json(paths.export / STATE, state)
        stage.finish(box=str(box), layers=list(layers))
    return paths.export


def _require_shape(volume: Volume, image: Volume) -> None:
    if volume.shape != image.shape:
        raise VolumeError(f"{volume.uri} has shape {volume.shape}, the image {image.uri} {image.shape} (z,y,x).")


def _known(image: Volume) -> VoxelSize:
    if image.voxel_size is None:
        raise VolumeError(
            f"{image.uri} does not state its voxel size; set data.voxel_size in the configuration, "
            "nanometres z,y,x such as [10, 10, 10]."
        )
    return image.voxel_size
