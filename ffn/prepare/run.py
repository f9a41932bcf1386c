"""The stage `prepare`: everything that training needs, from one configuration."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ffn.config import Config, Region
from ffn.errors import DataError, GeometryError
from ffn.files import remove
from ffn.geometry import ZYX, Box, overlapping_tiles
from ffn.prepare.coordinates import CoordinateStream, write_coordinates
from ffn.prepare.interior import InteriorPartitions
from ffn.prepare.partitions import write_partitions
from ffn.prepare.seeds import peak_seeds, write_seeds
from ffn.progress import Progress, log
from ffn.runs import SYNTHETIC, RunPaths, image_uri, labels_uri
from ffn.stages import Stage
from ffn.volumes import Volume, check_pair, coarsen, open_image, open_labels, open_volume

PARTITIONS = "partitions"
# A region larger than this gets its seeds piece by piece: 512^3 voxels take about 3 GB.
_SEED_TILE = (512, 512, 512)
_SEED_OVERLAP = (64, 64, 64)


def prepare_training(config: Config) -> None:
    """Make results/<run>/prepare with seeds.csv, partitions.h5 and coordinates.h5 for the run's training region.

    Coordinates count network voxels (`network.downsample`) from the corner of the region's box. A stage that was
    killed continues with the first file that is missing. Raises DataError where there is nothing to learn from,
    VolumeError where image and labels do not belong together, GeometryError where the region is too small; none of
    these leaves a trace in the folder.
    """
    region = config.data.train
    if region is None or region.labels is None:
        raise DataError(
            f"Run {config.run} has nothing to prepare: data.train with image and labels is needed. "
            "A run with a ready-made checkpoint starts at inference."
        )
    paths = RunPaths.of(config)
    stage = Stage(paths.prepare, _settings(config, region))
    if stage.is_done():
        log(f"{paths.prepare} is already complete.")
        return
    voxel_size = config.data.voxel_size
    with (
        open_image(image_uri(config, region), box=region.bounds, voxel_size=voxel_size) as fine_image,
        open_labels(str(labels_uri(config, region)), box=region.bounds, voxel_size=voxel_size) as fine_labels,
    ):
        check_pair(fine_image, fine_labels)
        image = coarsen(fine_image, config.network.downsample, labels=False)
        labels = coarsen(fine_labels, config.network.downsample, labels=True)
        _check_size(image.shape, training_margin(config))
        stage.begin()
        try:
            facts = _make_files(config, paths, fine_image, image, labels)
        except DataError:
            # Other settings are needed, and they must find the folder free.
            for path in (paths.partitions, paths.coordinates, paths.seeds, stage.started_marker):
                remove(path)
            raise
    stage.finish(**facts)
    log(f"{paths.prepare}: {facts['seeds']} seeds, {sum(facts['coordinates'].values())} training coordinates")


def lom_radius(config: Config) -> ZYX:
    """Half size of the partitions' cube: as configured, else as far as the field of view reaches in training."""
    return config.prepare.lom_radius or _reach(config, 1)


def training_margin(config: Config) -> ZYX:
    """How far a training patch reaches from its centre: half a field of view and all moves that the policy makes."""
    return _reach(config, 2 if config.training.moves == "max_pred_moves" else 1)


def _reach(config: Config, moves: int) -> ZYX:
    network = config.network
    z, y, x = (size // 2 + moves * delta for size, delta in zip(network.fov, network.deltas, strict=True))
    return z, y, x


def _check_size(shape: ZYX, margin: ZYX) -> None:
    for axis, size, reach in zip("zyx", shape, margin, strict=True):
        if size <= 2 * reach:
            raise GeometryError(
                f"The training region has {size} voxels along {axis}, but a training patch (field of view and its "
                f"moves) has {2 * reach + 1}. Use a larger region, or a smaller network.fov or network.deltas."
            )


def _make_files(config: Config, paths: RunPaths, fine_image: Volume, image: Volume, labels: Volume) -> dict[str, Any]:
    """Make what is missing; returns the numbers of seeds and of coordinates by class."""
    if not paths.partitions.exists():
        write_partitions(
            labels,
            paths.partitions,
            PARTITIONS,
            config.prepare.thresholds,
            lom_radius(config),
            config.prepare.min_size,
            labels.voxel_size or image.voxel_size,
        )
    if not paths.coordinates.exists():
        with open_volume(f"{paths.partitions}:{PARTITIONS}") as partitions:
            voxel_size = labels.voxel_size or image.voxel_size or (1.0, 1.0, 1.0)
            inside = InteriorPartitions(partitions, labels, config.prepare.min_boundary_nm, voxel_size)
            write_coordinates(inside, paths.coordinates, training_margin(config), config.seed)
    if not paths.seeds.exists():
        write_seeds(paths.seeds, _region_seeds(config, fine_image))
    with CoordinateStream(paths.coordinates, config.seed) as stream:
        counts = {str(value): count for value, count in stream.counts.items()}
    return {"seeds": len(paths.seeds.read_text(encoding="utf-8").splitlines()), "coordinates": counts}


def _region_seeds(config: Config, image: Volume) -> NDArray[np.int64]:
    """Seeds of the region in image voxels, ascending; of a large one, the seeds of its tiles, each once."""
    network, voxel_size = config.network, image.voxel_size or (1.0, 1.0, 1.0)
    tiles = overlapping_tiles(Box.of_shape(image.shape), _SEED_TILE, _SEED_OVERLAP)
    found = []
    with Progress("seeds", sum(tile.voxels for tile in tiles), "voxels") as progress:
        for tile in tiles:
            grey = image.read(tile).astype(np.float32)
            grey = (grey - np.float32(network.image_mean)) / np.float32(network.image_stddev)
            found.append(peak_seeds(grey, network.fov_in_image_voxels, voxel_size) + np.array(tile.start))
            progress.advance(tile.voxels)
    seeds = np.unique(np.concatenate(found), axis=0)
    if len(seeds) == 0:
        raise DataError(
            f"No seed was found in {image.uri}: no place inside the box is both away from edges and far enough from "
            "the faces for the field of view. Check that the image is not constant and that the box is right."
        )
    return seeds


def _settings(config: Config, region: Region) -> dict[str, Any]:
    """All that decides the contents of the folder."""
    network = config.network
    synthetic = SYNTHETIC in (region.image, region.labels)
    return {
        "region": region.model_dump(),
        "synthetic": config.synthetic.model_dump() if synthetic else None,
        "voxel_size": config.data.voxel_size,
        "prepare": {**config.prepare.model_dump(), "lom_radius": lom_radius(config)},
        "network": {key: getattr(network, key) for key in ("downsample", "fov", "image_mean", "image_stddev")},
        "margin": training_margin(config),
        "seed": config.seed,
    }
