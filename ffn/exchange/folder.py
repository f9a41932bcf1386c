"""Between google/ffn's files and a stage's folder, so that either side's sub-volumes can be used by the other.

segmentation         segmentation.h5:labels, uint64
origins              origins.json: id, voxels, and where known seed_zyx, fovs, seconds
overlaps, counters   overlaps.json, counters.json
request              request.pb, as it is
.prob: qprob         probability.h5:qprob, uint8
corner in the name   attribute offset_zyx, and box in the markers
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ffn.errors import ExchangeError, StageError
from ffn.exchange import names
from ffn.exchange.cleaning import Cleaned, Cleaning, clean
from ffn.exchange.names import corner_of, file_of, find_result
from ffn.exchange.results import Facts, Origin, read_probability, read_result
from ffn.exchange.write import write_probability, write_result
from ffn.files import atomic_path, write_json
from ffn.geometry import ZYX, Box
from ffn.inference.results import LABELS, ORIGINS_FILE, PROBABILITY, PROBABILITY_FILE, SEGMENTATION_FILE
from ffn.inference.tile import refuse_foreign
from ffn.progress import log
from ffn.runs import labels_in
from ffn.stages import Stage, done_digest
from ffn.volumes import VoxelSize, create_hdf5, open_volume

OVERLAPS_FILE, COUNTERS_FILE, REQUEST_FILE = "overlaps.json", "counters.json", "request.pb"
_SECTIONS = 64


def import_segmentation(
    source: Path,
    output: Path,
    *,
    probability: Path | None = None,
    corner: ZYX | None = None,
    voxel_size: VoxelSize | None = None,
    cleaning: Cleaning | None = None,
) -> None:
    """Make the finished stage folder `output` from a sub-volume of google/ffn.

    Objects are numbered 1..n in the order of their ids. Pieces of a split object all keep its origin, as with
    google/ffn; which of them ran into others is not known, so there is no `overlaps.json` then.

    Args:
        source: The .npz, or google/ffn's output folder.
        output: The folder to make. Complete already from the same files with the same settings: nothing is done.
        probability: The .prob file of the same sub-volume.
        corner: Where the sub-volume lies, zyx; None = as the file's name says, or 0,0,0. In a folder: which one.
        voxel_size: Nanometres zyx, to be stored with the labels.
        cleaning: What to leave out or split.

    Raises:
        ExchangeError: a file that is missing, damaged, or holds what is never read.
        StageError: `output` belongs to something else.
    """
    cleaning = cleaning or Cleaning()
    path = find_result(source, corner) if source.is_dir() else source
    start = corner or corner_of(path) or (0, 0, 0)
    settings = {
        "segmentation_sha256": _digest(path),
        "probability_sha256": None if probability is None else _digest(probability),
        "corner": start,
        "voxel_size": voxel_size,
        "min_probability": cleaning.min_probability,
        "split": cleaning.split,
        "min_size": cleaning.min_size,
    }
    # Everything is read before the stage begins: a file that is refused leaves no trace.
    labels, facts = read_result(path)
    box = Box.of_shape(labels.shape).shifted(start)
    stage = Stage(output, {**settings, "box": str(box)})
    if stage.is_done():
        stage.clear_lock()
        log(f"{output} is already complete.")
        return
    refuse_foreign(stage)
    q = None if probability is None else read_probability(probability, labels.shape)
    cleaned = clean(labels, q, cleaning)
    with stage.locked():
        if not stage.begin():
            return
        _write_volume(output / SEGMENTATION_FILE, LABELS, cleaned.labels, np.dtype(np.uint64), box, voxel_size)
        if q is not None:
            _write_volume(output / PROBABILITY_FILE, PROBABILITY, q, np.dtype(np.uint8), box, voxel_size)
        _write_facts(output, cleaned, facts, cleaning.split)
        stage.finish(segments=len(cleaned.voxels) - 1)
    share = 1 - cleaned.voxels[0] / cleaned.labels.size
    log(f"{output}: {len(cleaned.voxels) - 1} objects of {path}, {share:.1%} of the voxels, box {box}")


def export_segmentation(folder: Path, output: Path) -> Path:
    """Write a finished folder as google/ffn's files below its output folder `output`; returns the .npz.

    The folder is one that `ffn infer`, `consensus`, `assemble`, `agglomerate` or `import_segmentation` made. Objects
    without a known seed are missing in `origins`; seconds that are not known are 0.

    Raises StageError where the folder is not finished or the files are there and hold something else, ExchangeError
    where they cannot hold the labels.
    """
    start = _finished_box(folder).start
    path = file_of(output, start)
    with open_volume(labels_in(folder)) as labels:
        write_result(path, labels, _read_facts(folder))
    if (folder / PROBABILITY_FILE).exists():
        with open_volume(f"{folder / PROBABILITY_FILE}:{PROBABILITY}") as q:
            write_probability(file_of(output, start, names.PROBABILITY), q)
    return path


def _digest(path: Path) -> str:
    if not path.is_file():
        raise ExchangeError(f"There is no file {path}.")
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_volume(
    path: Path, dataset: str, values: NDArray[Any], kind: np.dtype[Any], box: Box, voxel_size: VoxelSize | None
) -> None:
    with create_hdf5(path, dataset, box.shape, kind, voxel_size, offset=box.start) as volume:
        depth, height, width = box.shape
        for z in range(0, depth, _SECTIONS):
            part = Box((z, 0, 0), (min(z + _SECTIONS, depth), height, width))
            volume.write(part, values[part.slices].astype(kind))


def _write_facts(output: Path, cleaned: Cleaned, facts: Facts, split: bool) -> None:
    numbered = list(enumerate(cleaned.parents.tolist()))[1:]
    write_json(
        output / ORIGINS_FILE,
        [
            {"id": number, **_origin_record(facts.origins.get(parent)), "voxels": int(cleaned.voxels[number])}
            for number, parent in numbered
        ],
    )
    if not split:
        number_of = {parent: number for number, parent in numbered}
        overlaps = {
            number: [(number_of[other], voxels) for other, voxels in facts.overlaps[parent] if other in number_of]
            for number, parent in numbered
            if parent in facts.overlaps
        }
        write_json(output / OVERLAPS_FILE, {number: pairs for number, pairs in overlaps.items() if pairs})
    write_json(output / COUNTERS_FILE, dict(sorted(facts.counters.items())))
    if facts.request:
        with atomic_path(output / REQUEST_FILE) as partial:
            partial.write_bytes(facts.request)


def _origin_record(origin: Origin | None) -> dict[str, Any]:
    return {} if origin is None else {"seed_zyx": origin.seed, "fovs": origin.fovs, "seconds": origin.seconds}


def _finished_box(folder: Path) -> Box:
    done_digest(folder, "ffn infer")
    marker = folder / "done.json"
    try:
        return Box.parse(json.loads(marker.read_text(encoding="utf-8"))["settings"]["box"])
    except (ValueError, KeyError, TypeError) as error:
        raise StageError(
            f"{marker} names no box: {folder} is not a folder of ffn infer, consensus, assemble or import-segmentation."
        ) from error


def _read_facts(folder: Path) -> Facts:
    origins = _json(folder / ORIGINS_FILE, [])
    overlaps = _json(folder / OVERLAPS_FILE, {})
    # Segments that became one with another have no voxels of their own, and google/ffn knows no such thing.
    joined = {record["id"] for record in origins if "joined" in record}
    seeded = [record for record in origins if "seed_zyx" in record and record["id"] not in joined]
    if not seeded:
        log(f"{folder} does not say where objects started: google/ffn gets no origins.")
    request = folder / REQUEST_FILE
    return Facts(
        origins={r["id"]: Origin(tuple(r["seed_zyx"]), r["fovs"], r.get("seconds", 0.0)) for r in seeded},
        overlaps={
            int(number): [(other, voxels) for other, voxels in pairs if other not in joined]
            for number, pairs in overlaps.items()
            if int(number) not in joined
        },
        counters=_json(folder / COUNTERS_FILE, {}),
        request=request.read_bytes() if request.exists() else b"",
    )


def _json(path: Path, missing: Any) -> Any:
    if not path.exists():
        return missing
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise StageError(f"{path} is no JSON ({error}); make the folder again.") from error
