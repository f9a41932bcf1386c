"""Preparing one volume with labels, to learn from or to judge on."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ffn.config import Config, Region
from ffn.errors import DataError, GeometryError
from ffn.geometry import ZYX, Box, overlapping_tiles
from ffn.prepare.centres import Centres
from ffn.prepare.coordinates import CoordinateStream, write_coordinates
from ffn.prepare.partitions import write_partitions
from ffn.prepare.seeds import peak_seeds, write_seeds
from ffn.progress import Progress, log
from ffn.runs import VolumeFiles, image_uri, labels_uri
from ffn.volumes import Volume, check_pair, coarsen, open_image, open_labels, open_volume

PARTITIONS = "partitions"
# A region larger than this gets its seeds piece by piece: 512^3 voxels take about 3 GB.
_SEED_TILE = (512, 512, 512)
_SEED_OVERLAP = (64, 64, 64)


@dataclass(frozen=True)
class LabelledVolume:
    """An open region with labels; `image` and `labels` in network voxels, `fine_image` as it is stored."""

    key: str
    region: Region
    files: VolumeFiles
    fine_image: Volume
    image: Volume
    labels: Volume


@contextmanager
def labelled_volume(config: Config, key: str, region: Region, files: VolumeFiles) -> Iterator[LabelledVolume]:
    """Open a region that the configuration has at `key`, whose prepared files are or will be `files`.

    Raises VolumeError where image and labels do not belong together, GeometryError where no training example fits.
    """
    voxel_size = config.data.voxel_size
    with (
        open_image(image_uri(config, region), box=region.bounds, voxel_size=voxel_size) as fine_image,
        open_labels(str(labels_uri(config, region)), box=region.bounds, voxel_size=voxel_size) as fine_labels,
    ):
        check_pair(fine_image, fine_labels)
        image = coarsen(fine_image, config.network.downsample, labels=False)
        labels = coarsen(fine_labels, config.network.downsample, labels=True)
        _check_size(key, image.shape, training_margin(config))
        yield LabelledVolume(key, region, files, fine_image, image, labels)


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


def _check_size(key: str, shape: ZYX, margin: ZYX) -> None:
    for axis, size, reach in zip("zyx", shape, margin, strict=True):
        if size <= 2 * reach:
            raise GeometryError(
                f"{key} has {size} network voxels along {axis}, but a training patch (field of view and its moves) "
                f"has {2 * reach + 1}. Use a larger region, or a smaller network.fov or network.deltas."
            )


def made_files(volume: LabelledVolume) -> list[Path]:
    """Everything that `prepare_volume` may leave behind."""
    return [volume.files.partitions, volume.files.coordinates, volume.files.seeds]


def prepare_volume(config: Config, volume: LabelledVolume, seed: int, with_seeds: bool) -> dict[str, Any]:
    """Make what is missing of the volume's files; `seed` decides the order of its coordinates.

    Returns:
        Numbers of voxels: `seeds`, `coordinates` by class, and `left_out` as centres by reason.

    Raises:
        DataError: There is nothing to learn from.
    """
    files, labels = volume.files, volume.labels
    voxel_size = labels.voxel_size or volume.image.voxel_size
    if not files.partitions.exists():
        write_partitions(
            labels,
            files.partitions,
            PARTITIONS,
            config.prepare.thresholds,
            lom_radius(config),
            config.prepare.min_size,
            voxel_size,
        )
    if not files.coordinates.exists():
        with open_volume(f"{files.partitions}:{PARTITIONS}") as partitions:
            centres = Centres(
                partitions,
                labels,
                config.prepare.min_boundary_nm,
                voxel_size or (1.0, 1.0, 1.0),
                zero_is_unknown=volume.region.label_zero == "unknown",
            )
            write_coordinates(centres, files.coordinates, training_margin(config), seed, centres.left_out)
    facts: dict[str, Any] = {}
    if with_seeds:
        if not files.seeds.exists():
            write_seeds(files.seeds, _region_seeds(config, volume.fine_image))
        facts["seeds"] = len(files.seeds.read_text(encoding="utf-8").splitlines())
    with CoordinateStream(files.coordinates, seed) as stream:
        facts["coordinates"] = {str(value): count for value, count in stream.counts.items()}
        facts["left_out"] = stream.left_out
    log(f"{volume.key}: {_summary(facts['coordinates'], facts['left_out'])}")
    return facts


def _summary(coordinates: dict[str, int], left_out: dict[str, int]) -> str:
    """How many centres there are, and which part of the voxels is left out at each filter, of those that reach it."""
    reasons = {
        "outside": "too near the faces",
        "ignored": "without a class",
        "unlabelled": "unlabelled",
        "near_boundary": "within prepare.min_boundary_nm of another object",
    }
    kept = sum(coordinates.values())
    remaining, parts = kept + sum(left_out.values()), []
    for reason, words in reasons.items():
        if left_out[reason]:
            parts.append(f"{left_out[reason] / remaining:.1%} {words}")
            remaining -= left_out[reason]
    dropped = f" (left out, of the voxels that remain each time: {', '.join(parts)})" if parts else ""
    return f"{kept} centres of examples in {len(coordinates)} classes{dropped}"


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
