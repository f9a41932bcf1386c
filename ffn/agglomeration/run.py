"""The stage `agglomerate`: pieces of one neuron in the assembled segmentation become one object.

    sizes        map      ids and voxels of the segments in each block
    segments     reduce   those that are large enough
    contacts     map      the shallowest places of each pair that meets in a block
    pairs        reduce   the same of each pair in the whole volume
    places       map      of these places the one that is nearest to their middle
    rank         reduce   pairs.parquet: all pairs, in the order in which they are tried
    resegment    map      groups of pairs: both segments filled again, and compared
    join         reduce   objects.*, candidates.*: which segments are one, and all that was tried
    relabel      map      segmentation.zarr: the result, filled as `assembly.fill_nm` says
    summary      reduce   what done.json says

A pair is judged by the assembled segmentation alone, whatever was found for others; so neither the order nor who does
what shows in the result.
"""

import json
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ffn.agglomeration.candidates import in_source
from ffn.agglomeration.finding import PAIRS, finding_tasks
from ffn.agglomeration.joining import Resegment, joining_tasks, load_network, open_refill
from ffn.agglomeration.pairs import PairsFile
from ffn.agglomeration.records import Record
from ffn.agglomeration.refill import refill_pairs
from ffn.agglomeration.spec import Spec, layout_of
from ffn.blockwise import EVERYTHING, BlockwiseStage, Share, suitable_workers
from ffn.config import Config
from ffn.errors import ConfigError, DataError, StageError
from ffn.fingerprint import fingerprint
from ffn.inference.devices import share_devices
from ffn.inference.fingerprint import checkpoint_fingerprint
from ffn.inference.tiles import region_box
from ffn.progress import log
from ffn.runs import SEGMENTATION, RunPaths, checkpoint_prefix, image_uri
from ffn.stages import Stage, done_digest, settings_hash
from ffn.volumes import VoxelSize, open_image, open_labels

COMMAND = "ffn agglomerate"
_SHARD = "shard"
_VOXELS_OF_A_WORKER = 1 << 22
"""Fewer are done before another process has started."""


def agglomerate(config: Config, share: Share = EVERYTHING) -> None:
    """Write results/<run>/agglomerate, or do a share of the steps at the top of this module.

    Raises StageError where the assembly is not finished, the folder belongs to other settings, or a step is not ready;
    CheckpointError where there are no weights; ConfigError where agglomeration is not enabled or nothing states the
    voxel size; WorkerError where a worker process was killed.
    """
    config = config.of_pass(0)
    folder = RunPaths.of(config).agglomerate
    spec = spec_of(config, folder)
    if _made_by_an_older_version(spec):
        log(f"{folder} is already complete, in files of an older version.")
        return
    tasks = [*finding_tasks(spec), *joining_tasks(spec)]
    if share.step in (None, Resegment.name) and not spec.stage.is_done():
        share_devices(share.peer)
        # Before the folder is claimed: weights of another network leave no trace of settings that never worked.
        for task in tasks:
            if isinstance(task, Resegment):
                task.load()
    steps = BlockwiseStage(spec.stage, tasks, COMMAND, spec.store.remove_leftovers)
    if not steps.run(_workers(spec), share):
        log(f"{folder} is already complete.")
    elif spec.stage.done_marker.exists():
        facts = json.loads(spec.stage.done_marker.read_text(encoding="utf-8"))["facts"]
        log(
            f"{spec.store.path}: {facts['joined']} of {facts['tried']} pairs joined, {facts['objects']} objects, "
            f"{facts['fovs']} fields of view"
        )


def examine_pair(config: Config, a: int, b: int) -> dict[str, Any]:
    """What the stage would find for one pair of segments; nothing is written.

    Where the stage has listed the pairs already, they are looked up, else found (in a temporary folder).

    Raises DataError where there is no such segment, or the two do not meet; otherwise as `agglomerate`.
    """
    config = config.of_pass(0)
    spec, network = spec_of(config, RunPaths.of(config).agglomerate), load_network(config)
    with ExitStack() as files:
        pairs = _listed_pairs(spec, files)
        found = pairs.between(a, b)
        if found is None:
            raise DataError(_why_no_pair(config, a, b, pairs))
        records: list[Record] = []
        refill_pairs(open_refill(spec, files), [found], network, 2, records.append)
        return in_source(records[0], spec.box.start)


def _listed_pairs(spec: Spec, files: ExitStack) -> PairsFile:
    path = spec.stage.folder / PAIRS
    if path.exists() and (there := PairsFile(path)).made_from == spec.pairs_made_from:
        return there
    folder = Path(files.enter_context(TemporaryDirectory(prefix="ffn-pairs-")))
    elsewhere = spec_of(spec.config, folder)
    BlockwiseStage(elsewhere.stage, finding_tasks(elsewhere), COMMAND).run(_workers(elsewhere))
    return PairsFile(folder / PAIRS)


def _workers(spec: Spec) -> int:
    worthwhile = min(len(spec.grid), -(-spec.box.voxels // _VOXELS_OF_A_WORKER))
    return suitable_workers(spec.config.assembly.workers, worthwhile)


def _made_by_an_older_version(spec: Spec) -> bool:
    """Whether an agglomeration is complete that was written before there were stores."""
    older = Stage(spec.stage.folder, {key: value for key, value in spec.stage.settings.items() if key != _SHARD})
    return (older.folder / SEGMENTATION).exists() and older.done_marker.exists() and older.is_done()


def _why_no_pair(config: Config, a: int, b: int, pairs: PairsFile) -> str:
    settings, paths = config.agglomeration, RunPaths.of(config)
    where = paths.assembled
    unknown = [str(number) for number in (a, b) if not pairs.meets(number)]
    if not unknown:
        return (
            f"Segments {a} and {b} of {where} do not meet when each is extended by agglomeration.max_distance_nm "
            f"({settings.max_distance_nm:g}). Raise it, or name a pair of {paths.agglomerate}."
        )
    return (
        f"Segment {' and '.join(unknown)} meets no other in {where}: there is none of that id with at least "
        f"agglomeration.min_segment_size voxels ({settings.min_segment_size}), or it stands alone. Name two ids of the "
        "assembled segmentation."
    )


def spec_of(config: Config, folder: Path) -> Spec:
    """What there is to do. Raises as `agglomerate` says; nothing is written."""
    if not config.agglomeration.enabled:
        raise ConfigError(
            "agglomeration.enabled is false. Set it to true, so that assembly leaves voxels unfilled for now, and what "
            "is scored and exported is the result of agglomeration."
        )
    paths, box, image = RunPaths.of(config), region_box(config), image_uri(config, config.data.test)
    digest = done_digest(paths.assemble, "ffn assemble --config FILE")
    _refuse_filled(paths.assemble)
    voxel_size = _voxel_size(config, image, paths.assembled)
    settings = config.agglomeration
    where = {"box": str(box), "voxel_size": voxel_size, "segmentation": digest}
    which = {
        "max_distance_nm": settings.max_distance_nm,
        "min_segment_size": settings.min_segment_size,
        "downsample": config.network.downsample,
    }
    decides = {
        **fingerprint(config, "agglomerate"),
        **where,
        "image": image,
        "checkpoint_sha256": checkpoint_fingerprint(checkpoint_prefix(config)),
    }
    stage = Stage(folder, {**decides, _SHARD: layout_of(config, box, voxel_size).shard})
    return Spec(config, stage, image, paths.assembled, box, voxel_size, settings_hash({**where, **which}))


def _voxel_size(config: Config, image_at: str, labels_at: str) -> VoxelSize:
    """Nanometres, zyx. Raises DataError where image and segmentation are not of one region."""
    box = region_box(config)
    with (
        open_image(image_at, box=box, voxel_size=config.data.voxel_size) as image,
        open_labels(labels_at) as labels,
    ):
        voxel_size = image.voxel_size or labels.voxel_size
        if voxel_size is None:
            raise ConfigError(
                "agglomeration.max_distance_nm is in nanometres, but the voxel size is unknown: give data.voxel_size."
            )
        if labels.shape != image.shape:
            raise DataError(
                f"{labels.uri} has shape {labels.shape}, the test region {box} {image.shape} (z,y,x). "
                "Run `ffn assemble` for this region, under another run name."
            )
        return voxel_size


def _refuse_filled(folder: Path) -> None:
    marker = folder / "done.json"
    try:
        made_with = json.loads(marker.read_text(encoding="utf-8")).get("settings", {}).get("assembly", {})
    except (ValueError, AttributeError) as error:
        raise StageError(
            f"{marker} is not a marker of this workflow ({error}); delete {folder} and run "
            "`ffn assemble --config FILE` again."
        ) from error
    if made_with.get("fill_nm", 0) > 0:
        raise StageError(
            f"{folder} was made without agglomeration, with gaps already filled (assembly.fill_nm). "
            "Delete that folder and run `ffn assemble --config FILE` again, or choose another run name."
        )
