"""The stage `assemble`: all sub-volumes of a run become one label volume."""

import json
from dataclasses import asdict
from pathlib import Path

from ffn.assembly.fill import check_fill, open_filling
from ffn.assembly.finished import finished_hash
from ffn.assembly.reconcile import Equivalence, count_pairs, equivalences, global_ids, overlapping_pairs
from ffn.assembly.write import LABELS, LabelledTile, write_segmentation
from ffn.config import Config
from ffn.files import write_json
from ffn.geometry import ZYX, Box
from ffn.inference.results import ORIGINS_FILE, SEGMENTATION_FILE
from ffn.inference.tiles import region_box, tiles
from ffn.progress import Progress, log
from ffn.runs import RunPaths
from ffn.stages import Stage
from ffn.volumes import open_volume


def assemble(config: Config) -> None:
    """Write results/<run>/assemble: `segmentation.h5:labels` over the test box, and `equivalences.json`.

    Raises StageError where a sub-volume is not finished, or was made for another box; ConfigError where voxels shall be
    filled up to a distance and nothing states the voxel size.
    """
    paths = RunPaths.of(config)
    boxes = tiles(config)
    # What is filled now could not be told from what an object took, and would be joined as if it were.
    fill_nm = 0.0 if config.agglomeration.enabled else config.assembly.fill_nm
    folders = [paths.tile(index) for index in range(len(boxes))]
    settings = {
        "box": str(region_box(config)),
        "tiles": [
            _finished(config, index, folder, box)
            for index, (folder, box) in enumerate(zip(folders, boxes, strict=True))
        ],
        "assembly": {**config.assembly.model_dump(), "fill_nm": fill_nm},
    }
    uris = [f"{folder / SEGMENTATION_FILE}:{LABELS}" for folder in folders]
    with open_volume(uris[0]) as first:
        voxel_size = first.voxel_size
    check_fill(fill_nm, voxel_size)
    stage = Stage(paths.assemble, settings)
    if not stage.begin():
        log(f"{paths.assemble} is already complete.")
        return
    segments = [len(json.loads((folder / ORIGINS_FILE).read_text(encoding="utf-8"))) for folder in folders]
    rule = config.assembly
    same = find_equivalences(boxes, uris, rule.min_overlap_voxels, rule.min_overlap_fraction, rule.block)
    tables = global_ids(segments, same)
    labelled = [LabelledTile(*parts) for parts in zip(boxes, uris, tables, strict=True)]
    with open_filling(config, fill_nm, voxel_size) as filling:
        present = write_segmentation(paths.assembled, labelled, region_box(config), rule.block, voxel_size, filling)
    facts = {
        "tiles": len(boxes),
        "segments_in_tiles": sum(segments),
        "equivalences": len(same),
        "objects": len(present),
    }
    write_json(
        paths.assemble / "equivalences.json",
        {
            "min_overlap_voxels": rule.min_overlap_voxels,
            "min_overlap_fraction": rule.min_overlap_fraction,
            **facts,
            "pairs": [asdict(pair) for pair in same],
        },
    )
    stage.finish(**facts)
    log(f"{paths.assembled}: {len(present)} objects from {sum(segments)} segments in {len(boxes)} sub-volumes")


def find_equivalences(
    boxes: list[Box], uris: list[str], min_voxels: int, min_fraction: float, block: ZYX
) -> list[Equivalence]:
    """All equivalences between the label volumes `uris` that lie at `boxes` of the common volume."""
    found = []
    pairs = list(overlapping_pairs(boxes))
    with Progress("reconcile", len(pairs), "overlaps") as progress:
        for i, j, shared in pairs:
            with open_volume(uris[i]) as first, open_volume(uris[j]) as second:
                table = count_pairs(first, second, (boxes[i], boxes[j]), shared, block)
            found += equivalences(table, (i, j), min_voxels, min_fraction)
            progress.advance(1, f"{len(found)} equivalences")
    return found


def _finished(config: Config, index: int, folder: Path, box: Box) -> str:
    command = "consensus" if config.inference.passes > 1 else "infer"
    what = f"Sub-volume {index} ({box}) of run {config.run}"
    return finished_hash(folder, box, what, f"ffn {command} --config FILE --tile {index}")
