"""The stage `assemble`: all sub-volumes of a run become one label volume."""

import json

from ffn.assembly.fill import check_fill
from ffn.assembly.inputs import finished_tiles
from ffn.assembly.spec import AssemblySpec
from ffn.assembly.tasks import tasks_of
from ffn.blockwise import EVERYTHING, BlockwiseStage, Share, suitable_workers
from ffn.config import Config, overlap_problems
from ffn.errors import ConfigError
from ffn.fingerprint import fingerprint
from ffn.inference.tiles import region_box, tiles
from ffn.progress import log
from ffn.runs import RunPaths, image_uri
from ffn.stages import Stage

_VOXELS_OF_A_WORKER = 1 << 22
"""Fewer are assembled before another process has started."""


def assemble(config: Config, share: Share = EVERYTHING) -> None:
    """Write results/<run>/assemble: the store `segmentation.zarr` over the test box, `equivalences.h5` and its summary.

    Work is done block by block by `assembly.workers` processes; the labels are the same whatever their number.

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
    spec = AssemblySpec(
        found.segmented, box, rule, paths.assemble, image_uri(config, config.data.test), found.voxel_size
    )
    settings = {
        "box": str(box),
        "sub_volumes": len(boxes),
        "sub_volumes_sha256": found.digest,
        **fingerprint(config, "assemble"),
    }
    if _made_by_an_older_version(Stage(paths.assemble, settings)):
        log(f"{paths.assemble} is already complete, in one HDF5 file of an older version.")
        return
    stage = Stage(paths.assemble, {**settings, "shard": spec.segmentation.layout.shard})
    steps = BlockwiseStage(stage, tasks_of(spec, found.segments, stage), "ffn assemble", spec.clean)
    worthwhile = -(-box.voxels // _VOXELS_OF_A_WORKER)
    workers = suitable_workers(rule.workers, min(len(spec.grid), worthwhile))
    if not steps.run(workers, share):
        log(f"{paths.assemble} is already complete.")
    elif stage.done_marker.exists():
        facts = json.loads(stage.done_marker.read_text(encoding="utf-8"))["facts"]
        log(
            f"{spec.segmentation.path}: {facts['objects']} objects from {found.segments} segments in {len(boxes)} "
            "sub-volumes"
        )


def _made_by_an_older_version(stage: Stage) -> bool:
    """Whether an assembly is complete that was written before there were stores."""
    return (stage.folder / "segmentation.h5").exists() and stage.done_marker.exists() and stage.is_done()
