"""How many fields of view a voxel takes and how many a process evaluates in a second: measured, or from a default, and
where from."""

import json
from dataclasses import asdict, dataclass
from math import prod
from statistics import median
from typing import Any

from ffn.config import Config
from ffn.files import write_json
from ffn.planning.records import job_records, tile_records
from ffn.runs import RunPaths

PUBLISHED_FOVS, PUBLISHED_VOXELS, PUBLISHED_STEP = 25_799, 250**3, 8**3
"""The released segmentation of FIB-25's 250^3 sample (Januszewski et al.; google/ffn): deltas 8,8,8."""


@dataclass(frozen=True)
class Work:
    """Fields of view that one pass takes for each image voxel, and where that is known from."""

    fovs_per_voxel: float
    basis: str


@dataclass(frozen=True)
class Speed:
    """What one process reaches.

    Attributes:
        fovs_per_s: Fields of view a second.
        concurrent: Sub-volumes that it filled side by side.
        basis: Where that is known from.
    """

    fovs_per_s: float
    concurrent: int
    basis: str


def expected_work(config: Config) -> Work:
    """From this run's finished sub-volumes, else from the published run, of which steps and pooling are accounted for.

    Along an axis on which the field of view never moves its own size counts as its step.
    """
    records = tile_records(config)
    if records:
        count = _counted(len(records), "finished sub-volume")
        return Work(sum(r.fovs for r in records) / sum(r.voxels for r in records), f"{count} of this run")
    deltas = config.inference.deltas or config.network.deltas
    step = prod(delta or size for delta, size in zip(deltas, config.network.fov, strict=True))
    scaled = PUBLISHED_FOVS / PUBLISHED_VOXELS * PUBLISHED_STEP / step / prod(config.network.downsample)
    return Work(scaled, f"{PUBLISHED_FOVS:,} for 250^3 voxels in the published run, scaled by deltas and downsample")


def known_speed(config: Config) -> Speed | None:
    """From this run's jobs or finished sub-volumes, else what `store_speed` kept for this network; None if unknown."""
    jobs = job_records(config)
    if jobs:
        rate = sum(job.fovs for job in jobs) / sum(job.seconds for job in jobs)
        return Speed(rate, max(job.concurrent for job in jobs), f"{_counted(len(jobs), 'job')} of this run")
    tiles = [record.fovs_per_s for record in tile_records(config) if record.fovs_per_s is not None]
    if tiles:
        return Speed(median(tiles), 1, f"{_counted(len(tiles), 'finished sub-volume')} of this run")
    try:
        kept = json.loads(RunPaths.of(config).speed.read_text(encoding="utf-8"))
        return Speed(**kept["speed"]) if kept["settings"] == _settings(config) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def store_speed(config: Config, speed: Speed) -> None:
    """Keep a measured speed with the run."""
    write_json(RunPaths.of(config).speed, {"speed": asdict(speed), "settings": _settings(config)})


def _settings(config: Config) -> dict[str, Any]:
    """What decides how fast the network is."""
    network, inference = config.network, config.inference
    speed = ("batch_size", "concurrent", "precision", "intra_op_threads")
    return {
        "network": [network.depth, network.features, list(network.fov)],
        **{name: getattr(inference, name) for name in speed},
    }


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" + ("s" if count > 1 else "")
