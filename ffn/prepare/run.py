"""The stage `prepare`: everything that training needs, from one configuration."""

from collections.abc import Sequence
from math import prod

from ffn.blockwise import EVERYTHING, BlockwiseStage, Share, Step, Task, usable_cores
from ffn.blockwise.stage import STEPS
from ffn.config import Config, Region
from ffn.errors import DataError
from ffn.files import remove
from ffn.fingerprint import fingerprint
from ffn.prepare.steps import ClassCounts, Classes, Coordinates, LabelSizes, Objects, Sample
from ffn.prepare.summary import SeedTiles, Summary
from ffn.prepare.volume import LabelledVolume, Limits
from ffn.progress import log
from ffn.runs import SYNTHETIC, RunPaths, VolumeFiles
from ffn.stages import Stage
from ffn.synthetic.run import synthesize

# Runs with different seeds are judged on the same examples.
VALIDATION_SEED = 1
# A pool starts in about two seconds, in which one process prepares this many voxels.
_SMALL = 1 << 22


def prepare_inputs(config: Config) -> None:
    """All that training reads: the synthetic volume where one is used, then `prepare_training`."""
    if any(SYNTHETIC in (region.image, region.labels) for region in config.data.labelled.values()):
        synthesize(config)
    prepare_training(config)


def prepare_training(
    config: Config, share: Share = EVERYTHING, workers: int | None = None, limits: Limits | None = None
) -> None:
    """Make results/<run>/prepare with the files (`VolumeFiles`) of all volumes that training reads.

    Coordinates count network voxels (`network.downsample`) from the corner of a volume's box. A stage that was killed
    continues with the units that are not done.

    Args:
        config: Of the run.
        share: What of the stage this process is to do.
        workers: Processes; None = one for each core, where the volumes are worth it.
        limits: How large volumes and their pieces may be.

    Raises DataError where there is nothing to learn from, VolumeError where image and labels do not belong together,
    GeometryError where a region is too small; none of these leaves a trace in the folder.
    """
    if not config.data.volumes or None in (region.labels for region in config.data.labelled.values()):
        raise DataError(
            f"Run {config.run} has nothing to prepare: data.train with image and labels is needed. "
            "A run with a ready-made checkpoint starts at inference."
        )
    volumes = []
    for key, (region, files) in labelled_files(config).items():
        judges = region is config.data.validation
        seed = VALIDATION_SEED if judges else config.seed
        volumes.append(LabelledVolume.of(config, key, region, files, seed, not judges, limits or Limits()))
    if workers is None:
        workers = usable_cores() if sum(prod(volume.shape) for volume in volumes) > _SMALL else 1
    cut = {volume.key: volume.cut for volume in volumes if volume.cut}
    stage = Stage(RunPaths.of(config).prepare, {**fingerprint(config, "prepare"), **({"cut": cut} if cut else {})})
    try:
        done = not BlockwiseStage(stage, steps(stage, volumes), "ffn prepare").run(workers, share)
    except DataError:
        # Other settings are needed, and they must find the folder free.
        made = [path for volume in volumes for path in volume.made]
        for path in (*made, stage.folder / STEPS, stage.started_marker):
            remove(path)
        raise
    if done:
        log(f"{stage.folder} is already complete.")


def steps(stage: Stage, volumes: Sequence[LabelledVolume]) -> list[Task]:
    """The steps of the stage, in their order (`ffn.prepare.steps` says what they do)."""

    def step(task: Task) -> Step:
        return BlockwiseStage.step_of(stage, task)

    sizes = LabelSizes(volumes)
    objects = Objects(volumes, sizes, step(sizes), stage.folder / STEPS / Objects.name)
    classes = Classes(volumes, objects)
    counts = ClassCounts(volumes, classes, step(classes))
    sample = Sample(volumes, step(counts))
    coordinates = Coordinates(volumes, (classes, step(classes)), step(counts), (sample, step(sample)))
    seeds = SeedTiles(volumes)
    summary = Summary(volumes, seeds, step(seeds), stage.folder / STEPS / Summary.name)
    return [sizes, objects, classes, counts, sample, coordinates, seeds, summary]


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
