"""The sub-volumes of a run's test region, and the passes over them that a job makes."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ffn.batches import Batch
from ffn.config import Config
from ffn.errors import ConfigError, GeometryError, StageError
from ffn.files import write_json
from ffn.geometry import Box, overlapping_tiles
from ffn.inference.kept import Keeper, copy_files, ledger_of
from ffn.inference.subvolume import run_tiles
from ffn.inference.tile import Tile
from ffn.peers import ALONE, Peer
from ffn.progress import log
from ffn.runs import RunPaths, checkpoint_prefix, image_uri
from ffn.stages import Stage
from ffn.volumes import open_volume


def region_box(config: Config) -> Box:
    """The voxels of the test image that are segmented: the region's box, else the whole image.

    Raises GeometryError where the box reaches outside the image.
    """
    region = config.data.test
    with open_volume(image_uri(config, region)) as image:
        whole = Box.of_shape(image.shape)
        return whole if region.bounds is None else image.view(region.bounds).bounds


def tiles(config: Config) -> list[Box]:
    """The overlapping sub-volumes in voxels of the test image, z slowest; one where no size is configured.

    Raises GeometryError where the region or a sub-volume does not hold a field of view.
    """
    box = region_box(config)
    size = config.inference.subvolume_size or box.shape
    overlap = config.inference.subvolume_overlap if config.inference.subvolume_size else (0, 0, 0)
    for axis, extent, fov in zip("zyx", box.shape, config.network.fov_in_image_voxels, strict=True):
        if extent < fov:
            raise GeometryError(
                f"The test region {box} has {extent} voxels along {axis}, fewer than the network's fov {fov}. "
                "Choose a larger data.test.box, or a network with a smaller fov."
            )
    return overlapping_tiles(box, size, overlap)


def tile_boxes(config: Config, indices: Sequence[int]) -> list[Box]:
    """The boxes of these sub-volumes. Raises GeometryError if there is no such one."""
    boxes = tiles(config)
    for index in indices:
        if not 0 <= index < len(boxes):
            raise GeometryError(f"There is no tile {index}: run {config.run} has the tiles 0 to {len(boxes) - 1}.")
    return [boxes[index] for index in indices]


def infer_tiles(config: Config, indices: Sequence[int], number: int = 0, peer: Peer = ALONE) -> None:
    """Pass `number` over sub-volumes of the run, which are kept as `ffn.inference.kept` says.

    Of several processes each takes every so many-th of the sub-volumes, and then what nobody has in hand. What they
    reached is written down for `ffn plan`.

    Raises GeometryError if there is no such sub-volume, ConfigError if there is no such pass.
    """
    passes = len(config.inference.all_passes)
    if not 0 <= number < passes:
        raise ConfigError(f"There is no pass {number}: inference.passes has {passes}, so there are 0 to {passes - 1}.")
    boxes, batch = tile_boxes(config, indices), Batch(indices[0], indices[-1])
    jobs = [tile(config, index, box, number) for index, box in zip(indices, boxes, strict=True)]
    own = jobs[peer.rank :: peer.size]
    others = [job for place, job in enumerate(jobs) if place % peer.size != peer.rank]
    with Keeper(pass_stage(config, number), len(tiles(config)), indices) as keeper:
        done = run_tiles(config.of_pass(number), own, others, keeper, shows_progress=peer.rank == 0)
    if done is not None:
        name = f"{batch}-pass-{number}-rank-{peer.rank}.json"
        write_json(RunPaths.of(config).infer_jobs / name, asdict(done))


def copy_tile(config: Config, index: int, output: Path, number: int | None = None) -> None:
    """Copy the files of a finished sub-volume from its archive into the folder `output`.

    Args:
        config: Of the run.
        index: Of the sub-volume.
        output: A new folder.
        number: Of a pass; None = what all passes agree on.

    Raises GeometryError if there is no such sub-volume, StageError where it is not finished or the folder is not empty.
    """
    tile_boxes(config, [index])
    paths, passes = RunPaths.of(config), len(config.inference.all_passes)
    folder = paths.filled(passes) if number is None else paths.infer_pass(number)
    ledger = ledger_of(folder)
    if ledger is None or index not in ledger:
        raise StageError(f"Sub-volume {index} of run {config.run} is not finished: {folder} does not have it.")
    copy_files(ledger[index], output)
    log(f"{output}: the files of sub-volume {index} of run {config.run}")


def pass_stage(config: Config, number: int) -> Stage:
    """A pass over all sub-volumes of the run, bound to all that decides its labels."""
    region, chosen = region_box(config), config.of_pass(number)
    whole = tile(config, 0, region, number).stage(chosen, region)
    return Stage(RunPaths.of(config).infer_pass(number), {**whole.settings, **grid_of(config)})


def pass_settings(config: Config, number: int) -> dict[str, Any]:
    """The settings of a pass but its weights, which may be gone when their work is read."""
    region, chosen = region_box(config), config.of_pass(number)
    return {**tile(config, 0, region, number).settings(chosen, region), **grid_of(config)}


def grid_of(config: Config) -> dict[str, Any]:
    """How the region is cut into sub-volumes."""
    inference = config.inference
    if inference.subvolume_size is None:
        return {"subvolume_size": None}
    return {key: getattr(inference, key) for key in ("subvolume_size", "subvolume_overlap")}


def tile(config: Config, index: int, box: Box, number: int = 0) -> Tile:
    """Pass `number` over the sub-volume `index` of the run, which lies at `box`."""
    paths, passes = RunPaths.of(config), config.inference.all_passes
    return Tile(
        image_uri(config, config.data.test),
        checkpoint_prefix(config.of_pass(number)),
        box,
        paths.tile_pass(index, number) if len(passes) > 1 else paths.tile(index),
        passes[number].turn,
        may_be_empty=config.inference.subvolume_size is not None,
        index=index,
    )
