"""How many fields of view a voxel takes and how many a process evaluates in a second: measured, or from a default, and
where from."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from math import prod
from statistics import median
from typing import Any

import numpy as np

from ffn.config import Config
from ffn.config.inference import FEWER_FOVS, LEAST_UNSEEN
from ffn.files import write_json
from ffn.planning.records import job_records, tile_records
from ffn.runs import RunPaths

PUBLISHED_FOVS, PUBLISHED_VOXELS, PUBLISHED_STEP = 25_799, 250**3, 8**3
PUBLISHED_FOV = 33**3
"""The released segmentation of FIB-25's 250^3 sample (Januszewski et al.; google/ffn): deltas 8,8,8, fov 33,33,33."""


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
    """On average over the passes: from those of finished sub-volumes, else from the published run.

    Of that steps, pooling and `inference.quality` are accounted for. Along an axis on which the field of view never
    moves its own size counts as its step.
    """
    works = [_work(config, number) for number in _kinds(config)]
    return Work(sum(work.fovs_per_voxel for work in works) / len(works), _listed(work.basis for work in works))


def known_speed(config: Config, measured: bool = False) -> Speed | None:
    """From this run's jobs or finished sub-volumes, else what `store_speed` kept for this network; None if unknown.

    With `measured` what was kept goes first. Of passes that differ it is the speed at which all their work is done;
    None where that of one is unknown.
    """
    rates = _rates(config, measured)
    if rates is None:
        return None
    if len(rates) == 1:
        return rates[0][1]
    seconds = sum(work.fovs_per_voxel / speed.fovs_per_s for work, speed in rates)
    return Speed(
        sum(work.fovs_per_voxel for work, _ in rates) / seconds,
        max(speed.concurrent for _, speed in rates),
        _listed(speed.basis for _, speed in rates),
    )


def slowest_pass(config: Config, measured: bool = False) -> float:
    """How many times as long as the average over the passes that one takes which takes longest; 1 if unknown."""
    seconds = [work.fovs_per_voxel / speed.fovs_per_s for work, speed in _rates(config, measured) or ()]
    return max(seconds) * len(seconds) / sum(seconds) if seconds else 1.0


def store_speed(config: Config, speed: Speed) -> None:
    """Keep a measured speed with the run, beside those of other networks."""
    path, settings = RunPaths.of(config).speed, _settings(config)
    others = [kept for kept in _stored(config) if kept["settings"] != settings]
    write_json(path, [*others, {"speed": asdict(speed), "settings": settings}])


def to_measure(config: Config) -> list[Config]:
    """Configurations of passes of which each is as fast as no other."""
    passes = [config.of_pass(number or 0) for number in _kinds(config)]
    return [one for place, one in enumerate(passes) if _settings(one) not in map(_settings, passes[:place])]


def _kinds(config: Config) -> Sequence[int | None]:
    """The passes that may differ in their work, by number; None = all are alike."""
    passes = config.inference.passes
    return [None] if isinstance(passes, int) else range(len(passes))


def _rates(config: Config, measured: bool) -> list[tuple[Work, Speed]] | None:
    """Of each kind of pass; None where the speed of one is unknown."""
    known = [(_work(config, number), _speed(config, number, measured)) for number in _kinds(config)]
    found = [(work, speed) for work, speed in known if speed is not None]
    return found if len(found) == len(known) else None


def _work(config: Config, number: int | None) -> Work:
    records = tile_records(config, number)
    if sum(record.fovs for record in records):
        count = _counted(len(records), "finished sub-volume")
        return Work(sum(r.fovs for r in records) / sum(r.voxels for r in records), f"{count} of this run")
    return _published_work(config.of_pass(number or 0))


def _published_work(config: Config) -> Work:
    network, inference = config.network, config.inference
    deltas = inference.deltas or network.deltas
    step = prod(delta or size for delta, size in zip(deltas, network.fov, strict=True))
    scale = PUBLISHED_STEP / step
    basis = "scaled by deltas and downsample"
    if inference.least_unseen:
        # Places are left out by what is unseen of a field of view, so its size counts rather than the steps offered.
        scale = min(scale, PUBLISHED_FOV / prod(network.fov) / _fewer(inference.least_unseen))
        basis = "scaled by quality, deltas and downsample"
    scaled = PUBLISHED_FOVS / PUBLISHED_VOXELS * scale / prod(network.downsample)
    return Work(scaled, f"{PUBLISHED_FOVS:,} for 250^3 voxels in the published run, {basis}")


def _fewer(least_unseen: float) -> float:
    """How many times fewer fields of view, between the levels that were measured and no more than at the last."""
    levels = sorted((LEAST_UNSEEN[quality], factor) for quality, factor in FEWER_FOVS.items())
    return float(np.interp(least_unseen, [level for level, _ in levels], [factor for _, factor in levels]))


def _speed(config: Config, number: int | None, measured: bool) -> Speed | None:
    settings = _settings(config.of_pass(number or 0))
    stored = next((Speed(**kept["speed"]) for kept in _stored(config) if kept["settings"] == settings), None)
    if measured and stored is not None:
        return stored
    jobs = job_records(config, number)
    if jobs:
        rate = sum(job.fovs for job in jobs) / sum(job.seconds for job in jobs)
        return Speed(rate, max(job.concurrent for job in jobs), f"{_counted(len(jobs), 'job')} of this run")
    tiles = [record.fovs_per_s for record in tile_records(config, number) if record.fovs_per_s is not None]
    if tiles:
        return Speed(median(tiles), 1, f"{_counted(len(tiles), 'finished sub-volume')} of this run")
    return stored


def _stored(config: Config) -> list[dict[str, Any]]:
    """What `store_speed` kept; what cannot be read is left out."""
    try:
        stored = json.loads(RunPaths.of(config).speed.read_text(encoding="utf-8"))
        for kept in stored:
            Speed(**kept["speed"])
            kept["settings"]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return list(stored)


def _listed(texts: Iterable[str]) -> str:
    """Each once, in their order."""
    return "; ".join(dict.fromkeys(texts))


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
