"""The stage `prepare`: everything that training needs, from one configuration."""

from contextlib import ExitStack
from typing import Any

from ffn.config import Config, Region
from ffn.errors import DataError
from ffn.files import remove
from ffn.prepare.volume import labelled_volume, lom_radius, made_files, prepare_volume, training_margin
from ffn.progress import log
from ffn.runs import SYNTHETIC, RunPaths, VolumeFiles
from ffn.stages import Stage
from ffn.synthetic.run import synthesize

# Runs with different seeds are judged on the same examples.
VALIDATION_SEED = 1


def prepare_inputs(config: Config) -> None:
    """All that training reads: the synthetic volume where one is used, then `prepare_training`."""
    if any(SYNTHETIC in (region.image, region.labels) for region in config.data.labelled.values()):
        synthesize(config)
    prepare_training(config)


def prepare_training(config: Config) -> None:
    """Make results/<run>/prepare with the files (`VolumeFiles`) of all volumes that training reads.

    Coordinates count network voxels (`network.downsample`) from the corner of a volume's box. A stage that was killed
    continues with the first file that is missing. Raises DataError where there is nothing to learn from, VolumeError
    where image and labels do not belong together, GeometryError where a region is too small; none of these leaves a
    trace in the folder.
    """
    if not config.data.volumes or None in (region.labels for region in config.data.labelled.values()):
        raise DataError(
            f"Run {config.run} has nothing to prepare: data.train with image and labels is needed. "
            "A run with a ready-made checkpoint starts at inference."
        )
    paths = RunPaths.of(config)
    stage = Stage(paths.prepare, _settings(config))
    if stage.is_done():
        stage.clear_lock()
        log(f"{paths.prepare} is already complete.")
        return
    with stage.locked(), ExitStack() as opened:
        if stage.is_done():
            return
        volumes = [
            opened.enter_context(labelled_volume(config, key, region, files))
            for key, (region, files) in labelled_files(config).items()
        ]
        stage.begin()
        try:
            facts = {}
            for volume in volumes:
                judges = volume.region is config.data.validation
                seed = VALIDATION_SEED if judges else config.seed
                facts[volume.key] = prepare_volume(config, volume, seed, with_seeds=not judges)
        except DataError:
            # Other settings are needed, and they must find the folder free.
            for path in (*(file for volume in volumes for file in made_files(volume)), stage.started_marker):
                remove(path)
            raise
        stage.finish(**facts)


def labelled_files(config: Config) -> dict[str, tuple[Region, VolumeFiles]]:
    """By its key: each volume that training learns from or judges on, and where its prepared files are."""
    paths, count = RunPaths.of(config), len(config.data.volumes)
    found: dict[str, tuple[Region, VolumeFiles]] = {
        key: (volume, paths.training_volume(index, count))
        for index, (key, volume) in enumerate(config.data.volumes.items())
    }
    if config.data.validation is not None:
        found["data.validation"] = config.data.validation, paths.validation_volume
    return found


def _settings(config: Config) -> dict[str, Any]:
    """All that decides the contents of the folder."""
    network, regions = config.network, config.data.labelled
    synthetic = any(SYNTHETIC in (region.image, region.labels) for region in regions.values())
    return {
        # How often a volume is drawn from is training's affair.
        **{key: region.model_dump(exclude={"weight"}) for key, region in regions.items()},
        "synthetic": config.synthetic.model_dump() if synthetic else None,
        "voxel_size": config.data.voxel_size,
        "prepare": {**config.prepare.model_dump(), "lom_radius": lom_radius(config)},
        "network": {key: getattr(network, key) for key in ("downsample", "fov", "image_mean", "image_stddev")},
        "margin": training_margin(config),
        "seed": config.seed,
    }
