"""The stage `agglomerate`: pieces of one neuron in the assembled segmentation become one object.

    pairs.h5          where large segments meet, in the order in which they are tried
    results.jsonl     only while unfinished: a line for each pair that has been tried
    candidates.*      all that were tried, the most doubtful first
    objects.json      which segments were joined
    segmentation.h5   the result, filled as `assembly.fill_nm` says

A pair is judged by the assembled segmentation alone, whatever was found for others; so neither the order nor where a
run was interrupted shows in the result.
"""

import json
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ffn.agglomeration.candidates import in_source, listed, merged_ids, write_candidates
from ffn.agglomeration.ledger import Ledger
from ffn.agglomeration.pairs import Pair, Pairs, find_pairs, largest_fill, read_pairs, write_pairs
from ffn.agglomeration.refill import Record, Refill, refill_pairs
from ffn.agglomeration.relabel import write_relabelled
from ffn.assembly.fill import open_filling
from ffn.config import Config
from ffn.errors import ConfigError, DataError, StageError
from ffn.files import remove, write_json
from ffn.geometry import Box
from ffn.inference.drive import BatchedNetwork, side_by_side
from ffn.inference.fingerprint import checkpoint_fingerprint
from ffn.inference.results import LABELS
from ffn.inference.tiles import region_box
from ffn.progress import Progress, log
from ffn.runs import RunPaths, checkpoint_prefix, image_uri
from ffn.stages import Stage, done_digest
from ffn.volumes import Volume, VoxelSize, open_image, open_labels

_INFERENCE = (
    *("segment_threshold", "move_threshold", "deltas", "disco_seed_threshold"),
    *("least_unseen", "offers_compared", "precision"),
)
RESULTS = "results.jsonl"
_RADII = ("radius", "analysis_radius", "exclusion_radius")


@dataclass(frozen=True)
class _Inputs:
    """The test region of a run, before agglomeration."""

    box: Box
    image: Volume
    labels: Volume
    voxel_size: VoxelSize


def agglomerate(config: Config) -> None:
    """Write results/<run>/agglomerate.

    Raises StageError where the assembly is not finished or the folder belongs to other settings; CheckpointError
    where there are no weights; ConfigError where agglomeration is not enabled or nothing states the voxel size.
    """
    config, paths = config.of_pass(0), RunPaths.of(config)
    folder = paths.agglomerate
    with ExitStack() as files:
        inputs = _open(config, files)
        stage = Stage(folder, _settings(config, inputs))
        if stage.is_done():
            remove(folder / RESULTS)
            stage.clear_lock()
            log(f"{folder} is already complete.")
            return
        # Before the stage begins: weights of another network leave no trace of settings that never worked.
        network = _network(config)
        with stage.locked():
            if stage.begin():
                _judge(config, stage, inputs, network)


def _judge(config: Config, stage: Stage, inputs: _Inputs, network: BatchedNetwork) -> None:
    folder, results = stage.folder, stage.folder / RESULTS
    if not (path := folder / "pairs.h5").exists():
        write_pairs(path, find_pairs(config, inputs.labels, inputs.voxel_size))
    count, tried = read_pairs(path, config.agglomeration.max_pairs)
    ledger = Ledger(results)
    _try(config, inputs, network, count, tried, ledger)
    records = [ledger.records[pair.point.a, pair.point.b] for pair in tried]
    facts = _write(config, inputs, folder, records)
    stage.finish(pairs=count, tried=len(tried), **facts)
    remove(results)
    log(f"{folder / 'segmentation.h5'}: {facts['joined']} of {len(tried)} pairs joined, {facts['objects']} objects")


def examine_pair(config: Config, a: int, b: int) -> dict[str, Any]:
    """What the stage would find for one pair of segments; nothing is written.

    Raises DataError where there is no such segment, or the two do not meet; otherwise as `agglomerate`.
    """
    config = config.of_pass(0)
    with ExitStack() as files:
        inputs, network = _open(config, files), _network(config)
        pairs = find_pairs(config, inputs.labels, inputs.voxel_size)
        found = pairs.between(a, b)
        if found is None:
            raise DataError(_why_no_pair(config, a, b, pairs))
        records: list[Record] = []
        refill_pairs(_refill(config, inputs), [found], network, 2, records.append)
        return in_source(records[0], inputs.box.start)


def _why_no_pair(config: Config, a: int, b: int, pairs: Pairs) -> str:
    settings, where = config.agglomeration, RunPaths.of(config).assembled
    unknown = [str(number) for number in (a, b) if not pairs.meets(number)]
    if not unknown:
        return (
            f"Segments {a} and {b} of {where} do not meet when each is extended by agglomeration.max_distance_nm "
            f"({settings.max_distance_nm:g}). Raise it, or name a pair of {where.parent.with_name('agglomerate')}."
        )
    return (
        f"Segment {' and '.join(unknown)} meets no other in {where}: there is none of that id with at least "
        f"agglomeration.min_segment_size voxels ({settings.min_segment_size}), or it stands alone. Name two ids of the "
        "assembled segmentation."
    )


def _open(config: Config, files: ExitStack) -> _Inputs:
    if not config.agglomeration.enabled:
        raise ConfigError(
            "agglomeration.enabled is false. Set it to true, so that assembly leaves voxels unfilled for now, and what "
            "is scored and exported is the result of agglomeration."
        )
    paths, box = RunPaths.of(config), region_box(config)
    done_digest(paths.assemble, "ffn assemble --config FILE")
    _refuse_filled(paths.assemble)
    image = files.enter_context(
        open_image(image_uri(config, config.data.test), box=box, voxel_size=config.data.voxel_size)
    )
    labels = files.enter_context(open_labels(f"{paths.assembled}:{LABELS}"))
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
    return _Inputs(box, image, labels, voxel_size)


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


def _settings(config: Config, inputs: _Inputs) -> dict[str, Any]:
    """All that decides the result."""
    return {
        "image": image_uri(config, config.data.test),
        "box": str(inputs.box),
        "voxel_size": inputs.voxel_size,
        "segmentation": done_digest(RunPaths.of(config).assemble, "ffn assemble --config FILE"),
        "checkpoint_sha256": checkpoint_fingerprint(checkpoint_prefix(config)),
        "network": config.network.model_dump(),
        "inference": {key: getattr(config.inference, key) for key in _INFERENCE},
        "agglomeration": config.agglomeration.model_dump(exclude={"enabled", *_RADII}),
        "radii": asdict(config.radii),
        "assembly": {key: getattr(config.assembly, key) for key in ("fill_nm", "dtype", "block")},
    }


def _try(
    config: Config, inputs: _Inputs, network: BatchedNetwork, count: int, tried: list[Pair], ledger: Ledger
) -> None:
    """Fill again what is not in the ledger yet."""
    settings = config.agglomeration
    log(
        f"{count} pairs of segments meet, {len(tried)} of them are tried. A pair takes 2 fills of at most "
        f"{largest_fill(config)} fields of view, and up to {settings.max_retry_iters} times that where seeds fail."
    )
    left = [pair for pair in tried if (pair.point.a, pair.point.b) not in ledger.records]
    if not left:
        return
    concurrent = side_by_side(config.inference.concurrent, network.batch_size)
    began, fovs = time.monotonic(), 0
    joined = sum(record["joined"] for record in ledger.records.values())
    with Progress("agglomerate", len(tried), "pairs", done=len(tried) - len(left)) as progress:

        def found(record: Record) -> None:
            nonlocal fovs, joined
            ledger.add(record)
            fovs, joined = fovs + record["fovs"], joined + record["joined"]
            rate = fovs / max(time.monotonic() - began, 1e-9)
            progress.advance(1, f"{joined} joined, {rate:.1f} FOVs/s")

        refill_pairs(_refill(config, inputs), left, network, concurrent, found)


def _refill(config: Config, inputs: _Inputs) -> Refill:
    return Refill(config, inputs.image, inputs.labels, inputs.voxel_size)


def _network(config: Config) -> BatchedNetwork:
    # Imported here so that a finished stage does not wait for TensorFlow.
    from ffn.inference.executor import load_executor

    inference = config.inference
    return load_executor(
        config.network,
        checkpoint_prefix(config),
        threads=inference.intra_op_threads,
        batch_size=inference.batch_size,
        precision=inference.precision,
    )


def _write(config: Config, inputs: _Inputs, folder: Path, records: list[dict[str, Any]]) -> dict[str, int]:
    """The lists and the relabelled volume; returns what there is to say about them."""
    pairs = [(record["a"], record["b"]) for record in records if record["joined"]]
    objects = merged_ids(pairs, max((record["b"] for record in records), default=0))
    write_candidates(folder, listed(records, objects, inputs.box.start))
    joined = np.unique(np.array(pairs, np.int64))
    write_json(
        folder / "objects.json",
        {str(number): joined[objects[joined] == number].tolist() for number in np.unique(objects[joined])},
    )
    path, rule = folder / "segmentation.h5", config.assembly
    with open_filling(config, config.assembly.fill_nm, inputs.voxel_size) as filling:
        present = write_relabelled(path, inputs.labels, objects, inputs.box, rule, inputs.voxel_size, filling)
    return {"joined": len(pairs), "objects": present, "fovs": sum(record["fovs"] for record in records)}
