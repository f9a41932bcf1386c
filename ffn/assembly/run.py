"""The stage `assemble`: all sub-volumes of a run become one label volume."""

from collections.abc import Sequence
from functools import partial

from ffn.assembly.bench import Bench, Job, count_group
from ffn.assembly.evidence import groups, part_path, read_evidence, write_evidence
from ffn.assembly.fill import check_fill
from ffn.assembly.inputs import finished_tiles
from ffn.assembly.write import write_segmentation
from ffn.config import Config, overlap_problems
from ffn.errors import ConfigError
from ffn.files import remove, write_json
from ffn.inference.tiles import region_box, tiles
from ffn.progress import Progress, log
from ffn.runs import RunPaths, image_uri
from ffn.stages import Stage
from ffn.workers import Workers, usable_cores

LISTED_PAIRS = 1000


_REMEDY = "Use fewer assembly.workers or a smaller assembly.block."


def assemble(config: Config) -> None:
    """Write results/<run>/assemble: `segmentation.h5:labels` over the test box, `equivalences.h5` and its summary.

    Work is done block by block by `assembly.workers` processes; the files are the same whatever their number.

    Raises:
        StageError: sub-volumes that are not finished, were made for another box or with other settings.
        VolumeError: labels that are missing or damaged.
        ConfigError: overlaps in which nothing could be joined, or voxels shall be filled up to a distance and nothing
            states the voxel size.
        DataError: more objects than ids of the configured type.
        WorkerError: a worker process was killed.
    """
    paths, rule, boxes, box = RunPaths.of(config), config.assembly, tiles(config), region_box(config)
    if config.agglomeration.enabled:
        # What is filled now could not be told from what an object took, and would be joined as if it were.
        rule = rule.model_copy(update={"fill_nm": 0.0})
    if problems := overlap_problems(box.shape, config.inference, rule):
        raise ConfigError("\n".join(problems))
    found = finished_tiles(config, boxes)
    check_fill(rule.fill_nm, found.voxel_size)
    stage = Stage(
        paths.assemble,
        {
            "box": str(box),
            "sub_volumes": len(boxes),
            "sub_volumes_sha256": found.digest,
            "assembly": rule.model_dump(exclude={"workers"}),
        },
    )
    image = image_uri(config, config.data.test)
    job = Job(found.segmented, box, rule, paths.assemble, image, found.voxel_size)
    if not stage.begin():
        _clear(job)
        log(f"{paths.assemble} is already complete.")
        return
    with Workers(rule.workers or usable_cores(), partial(Bench, job), _REMEDY) as workers:
        _reconcile(job, workers)
        pairs, count, largest_id = read_evidence(job.evidence, LISTED_PAIRS)
        objects = write_segmentation(paths.assembled, job, workers, largest_id)
    unused = sum(job.tiles.largest_ids) - found.segments
    facts = {
        "tiles": len(boxes),
        "segments_in_tiles": found.segments,
        "equivalences": count,
        "objects_in_tiles": largest_id - unused,
        "objects": objects,
    }
    thresholds = ("min_overlap_voxels", "min_overlap_fraction", "disconnected", "connectivity", "min_size")
    write_json(
        paths.assemble / "equivalences.json",
        {**{name: getattr(rule, name) for name in thresholds}, **facts, "pairs": pairs.listed(LISTED_PAIRS)},
    )
    stage.finish(**facts)
    _clear(job)
    log(f"{paths.assembled}: {objects} objects from {found.segments} segments in {len(boxes)} sub-volumes")


def _reconcile(job: Job, workers: Workers[Bench]) -> None:
    """Write the job's `evidence`; what is there already was counted with the same settings and is kept."""
    if not job.evidence.exists():
        numbers = range(len(groups(len(job.tiles.boxes))))
        parts = [part_path(job.parts, number) for number in numbers]
        missing: Sequence[int] = [number for number in numbers if not parts[number].exists()]
        count = 0
        with Progress("reconcile", len(parts), "groups of sub-volumes", done=len(parts) - len(missing)) as progress:
            for found in workers.results(count_group, missing):
                count += found
                progress.advance(1, f"{count} equivalences")
        write_evidence(job.evidence, job.tiles.largest_ids, parts)
    remove(job.parts)


def _clear(job: Job) -> None:
    """Remove what only an unfinished assembly needs."""
    remove(job.parts)
    remove(job.pieces)
