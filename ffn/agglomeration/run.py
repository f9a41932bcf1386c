"""The stage `agglomerate`: pieces of one neuron in the assembled segmentation become one object.

    pairs.json        where large segments meet, in the order in which they are tried
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
from ffn.agglomeration.decision_points import DecisionPoint, segment_sizes
from ffn.agglomeration.flood import NetworkCall
from ffn.agglomeration.ledger import Ledger
from ffn.agglomeration.pairs import Pair, find_pairs, largest_fill
from ffn.agglomeration.refill import Refill
from ffn.agglomeration.relabel import LABELS, write_relabelled
from ffn.assembly.fill import open_filling
from ffn.config import Config
from ffn.errors import ConfigError, DataError, StageError
from ffn.files import remove, write_json
from ffn.geometry import Box
from ffn.inference.fingerprint import checkpoint_fingerprint
from ffn.inference.tiles import region_box
from ffn.progress import Progress, log
from ffn.runs import RunPaths, checkpoint_prefix, image_uri
from ffn.stages import Stage, done_digest
from ffn.volumes import Volume, VoxelSize, open_image, open_labels

_INFERENCE = ("segment_threshold", "move_threshold", "deltas", "disco_seed_threshold")


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
    paths = RunPaths.of(config)
    folder, results = paths.agglomerate, paths.agglomerate / "results.jsonl"
    with ExitStack() as files:
        inputs = _open(config, files)
        stage = Stage(folder, _settings(config, inputs))
        if not stage.begin():
            remove(results)
            log(f"{folder} is already complete.")
            return
        pairs = _pairs(config, inputs, folder / "pairs.json")
        tried = pairs[: config.agglomeration.max_pairs]
        ledger = Ledger(results)
        _try(config, inputs, pairs, tried, ledger)
        records = [ledger.records[pair.point.a, pair.point.b] for pair in tried]
        facts = _write(config, inputs, folder, records)
    stage.finish(pairs=len(pairs), tried=len(tried), **facts)
    remove(results)
    log(f"{folder / 'segmentation.h5'}: {facts['joined']} of {len(tried)} pairs joined, {facts['objects']} objects")


def examine_pair(config: Config, a: int, b: int) -> dict[str, Any]:
    """What the stage would find for one pair of segments; nothing is written.

    Raises DataError where there is no such segment, or the two do not meet; otherwise as `agglomerate`.
    """
    with ExitStack() as files:
        inputs = _open(config, files)
        pairs = find_pairs(config, inputs.labels, inputs.voxel_size)
        wanted = (min(a, b), max(a, b))
        found = next((pair for pair in pairs if (pair.point.a, pair.point.b) == wanted), None)
        if found is None:
            met = {number for pair in pairs for number in (pair.point.a, pair.point.b)}
            raise DataError(_why_no_pair(config, a, b, met))
        refill = Refill(config, inputs.image, inputs.labels, inputs.voxel_size, _network(config))
        return in_source(refill(found), inputs.box.start)


def _why_no_pair(config: Config, a: int, b: int, met: set[int]) -> str:
    settings, where = config.agglomeration, RunPaths.of(config).assembled
    unknown = [str(number) for number in (a, b) if number not in met]
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
    settings = json.loads(marker.read_text(encoding="utf-8")).get("settings", {})
    if settings.get("assembly", {}).get("fill_nm", 0) > 0:
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
        "agglomeration": config.agglomeration.model_dump(exclude={"enabled"}),
        "fill_nm": config.assembly.fill_nm,
    }


def _pairs(config: Config, inputs: _Inputs, path: Path) -> list[Pair]:
    """All candidates, from the file where a killed run left it."""
    if not path.exists():
        found = find_pairs(config, inputs.labels, inputs.voxel_size)
        write_json(path, [asdict(pair) for pair in found])
    return [_pair(record) for record in json.loads(path.read_text(encoding="utf-8"))]


def _pair(record: dict[str, Any]) -> Pair:
    point = record["point"]
    z, y, x = point["zyx"]
    return Pair(
        DecisionPoint(point["a"], point["b"], point["distance_nm"], (z, y, x)), record["voxels_a"], record["voxels_b"]
    )


def _try(config: Config, inputs: _Inputs, pairs: list[Pair], tried: list[Pair], ledger: Ledger) -> None:
    """Fill again what is not in the ledger yet."""
    settings = config.agglomeration
    log(
        f"{len(pairs)} pairs of segments meet, {len(tried)} of them are tried. A pair takes 2 fills of at most "
        f"{largest_fill(config)} fields of view, and up to {settings.max_retry_iters} times that where seeds fail."
    )
    left = [pair for pair in tried if (pair.point.a, pair.point.b) not in ledger.records]
    if not left:
        return
    refill = Refill(config, inputs.image, inputs.labels, inputs.voxel_size, _network(config))
    began, fovs = time.monotonic(), 0
    joined = sum(record["joined"] for record in ledger.records.values())
    with Progress("agglomerate", len(tried), "pairs", done=len(tried) - len(left)) as progress:
        for pair in left:
            record = refill(pair)
            ledger.add(record)
            fovs, joined = fovs + record["fovs"], joined + record["joined"]
            rate = fovs / max(time.monotonic() - began, 1e-9)
            progress.advance(1, f"{joined} joined, {rate:.1f} FOVs/s")


def _network(config: Config) -> NetworkCall:
    # Imported here so that a finished stage does not wait for TensorFlow.
    from ffn.inference.executor import load_executor

    threads = config.inference.intra_op_threads
    return load_executor(config.network, checkpoint_prefix(config), threads=threads, batch_size=1)


def _write(config: Config, inputs: _Inputs, folder: Path, records: list[dict[str, Any]]) -> dict[str, int]:
    """The lists and the relabelled volume; returns what there is to say about them."""
    ids, _ = segment_sizes(inputs.labels.read, inputs.labels.shape, config.assembly.block)
    pairs = [(record["a"], record["b"]) for record in records if record["joined"]]
    objects = merged_ids(pairs, int(ids.max(initial=0)))
    write_candidates(folder, listed(records, objects, inputs.box.start))
    joined = np.unique(np.array(pairs, np.int64))
    write_json(
        folder / "objects.json",
        {str(number): joined[objects[joined] == number].tolist() for number in np.unique(objects[joined])},
    )
    path, block = folder / "segmentation.h5", config.assembly.block
    with open_filling(config, config.assembly.fill_nm, inputs.voxel_size) as filling:
        present = write_relabelled(path, inputs.labels, objects, inputs.box, block, inputs.voxel_size, filling)
    return {"joined": len(pairs), "objects": present, "fovs": sum(record["fovs"] for record in records)}
