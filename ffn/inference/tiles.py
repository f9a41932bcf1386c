"""The sub-volumes of a run's test region, and the passes over them that a job makes."""

from collections.abc import Sequence
from dataclasses import asdict

from ffn.batches import Batch
from ffn.config import Config
from ffn.errors import ConfigError, GeometryError
from ffn.files import write_json
from ffn.geometry import Box, overlapping_tiles
from ffn.inference.subvolume import run_tiles
from ffn.inference.tile import Tile
from ffn.peers import ALONE, Peer
from ffn.runs import RunPaths, checkpoint_prefix, image_uri
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


def tile_box(config: Config, index: int) -> Box:
    """The box of one sub-volume. Raises GeometryError if there is none."""
    return _boxes(config, [index])[0]


def _boxes(config: Config, indices: Sequence[int]) -> list[Box]:
    boxes = tiles(config)
    for index in indices:
        if not 0 <= index < len(boxes):
            raise GeometryError(f"There is no tile {index}: run {config.run} has the tiles 0 to {len(boxes) - 1}.")
    return [boxes[index] for index in indices]


def infer_tiles(config: Config, indices: Sequence[int], number: int = 0, peer: Peer = ALONE) -> None:
    """Pass `number` over sub-volumes of the run, each into its folder (`run_tiles`).

    Of several processes each takes every so many-th of the sub-volumes, whatever is already done, so that no two ever
    work in one folder. What they reached is written down for `ffn plan`.

    Raises GeometryError if there is no such sub-volume, ConfigError if there is no such pass.
    """
    passes = len(config.inference.all_passes)
    if not 0 <= number < passes:
        raise ConfigError(f"There is no pass {number}: inference.passes has {passes}, so there are 0 to {passes - 1}.")
    boxes = _boxes(config, indices)
    jobs = [tile(config, index, box, number) for index, box in zip(indices, boxes, strict=True)]
    done = run_tiles(config.of_pass(number), jobs[peer.rank :: peer.size], shows_progress=peer.rank == 0)
    if done is not None:
        name = f"{Batch(indices[0], indices[-1])}-pass-{number}-rank-{peer.rank}.json"
        write_json(RunPaths.of(config).infer_jobs / name, asdict(done))


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
    )
