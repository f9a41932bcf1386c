"""From two volumes, or a run, to scores.json and scores.md."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from ffn.config import Config
from ffn.errors import ConfigError, DataError, StageError, VolumeError
from ffn.evaluation.contingency import DEFAULT_BLOCK, Contingency, contingency_of_volumes
from ffn.evaluation.scores import TREATMENTS, coverage, score
from ffn.evaluation.table import scores_table
from ffn.evaluation.worst import worst_merges, worst_splits
from ffn.files import write_json, write_text
from ffn.geometry import ZYX, Box
from ffn.runs import RunPaths, labels_uri
from ffn.stages import Stage, done_digest
from ffn.volumes import Volume, open_labels

WORST = 10


def evaluate(
    truth_uri: str, segmentation_uri: str, box: Box | None = None, worst: int = WORST, block: ZYX = DEFAULT_BLOCK
) -> dict[str, Any]:
    """Score a segmentation; the result is what scores.json holds.

    Args:
        truth_uri: ground truth, 0 = unknown.
        segmentation_uri: labels, 0 = background; of the shape of the truth, or of the box.
        box: voxels (zyx) of the truth to score; also taken from the segmentation if that has the truth's shape.
        worst: how many of the worst splits and merges to list.
        block: voxels (zyx) read at once.

    Raises VolumeError for volumes that do not fit, DataError where nothing in the truth is known.
    """
    with open_labels(truth_uri) as whole, open_labels(segmentation_uri) as labels:
        truth, segmentation = _paired(whole, labels, box)
        table = contingency_of_volumes(truth, segmentation, block)
        voxel_size = truth.voxel_size or segmentation.voxel_size
    if table.voxels == 0:
        where = f" in {box}" if box else ""
        raise DataError(f"The ground truth {truth_uri} has no label other than 0{where}; there is nothing to score.")
    return {
        **{treatment: score(table, treatment).as_dict() for treatment in TREATMENTS},
        "coverage": coverage(table),
        **_sizes(table),
        "worst": {
            "splits": [mistake.as_dict() for mistake in worst_splits(table, worst)],
            "merges": [mistake.as_dict() for mistake in worst_merges(table, worst)],
        },
        "inputs": _inputs(truth_uri, segmentation_uri, box),
        "shape_zyx": list(truth.shape),
        "voxel_size_nm_zyx": None if voxel_size is None else list(voxel_size),
        "conventions": {
            "log_base": 2,
            "ignored_truth_labels": [0],
            "background_label": 0,
            "treatments": dict(TREATMENTS),
            "voi_split": "H(segmentation | truth), bits",
            "voi_merge": "H(truth | segmentation), bits",
            "precision": "sum n_ij^2 / sum segment_j^2",
            "recall": "sum n_ij^2 / sum body_i^2",
            "are": "1 - 2 precision recall / (precision + recall)",
            "coverage": "voxels with truth > 0 and segment > 0 / voxels with truth > 0",
            "worst": "bits added to VOI split or merge, background left out",
        },
    }


def evaluate_to(output: Path, truth_uri: str, segmentation_uri: str, box: Box | None = None, worst: int = WORST) -> str:
    """Score a segmentation, write `output` (JSON) and beside it the table (.md); returns the table.

    Scores of the same inputs are replaced; an `output` with anything else in it is left alone: StageError.
    """
    if output.suffix != ".json":
        raise StageError(f"The output {output} must end in .json; the table goes beside it, ending in .md.")
    if output.exists() and (theirs := _inputs_of(output)) != _inputs(truth_uri, segmentation_uri, box):
        held = "something else" if theirs is None else f"the scores of {_described(theirs)}"
        raise StageError(f"{output} exists and holds {held}; choose another name or delete it.")
    return _write(evaluate(truth_uri, segmentation_uri, box, worst), output)


def evaluate_run(config: Config) -> str:
    """Score the run's assembled segmentation in its evaluate folder; returns the table.

    A finished evaluation of the same segmentation is not repeated.
    """
    region, paths = config.data.test, RunPaths.of(config)
    truth = labels_uri(config, region)
    if truth is None:
        raise ConfigError("data.test.labels is empty: without ground truth there is nothing to score against.")
    segmentation = done_digest(paths.segmented, f"ffn {paths.segmented.name}")
    stage = Stage(paths.evaluate, {"truth": truth, "box": region.box, "segmentation": segmentation})
    if stage.done_marker.exists():
        stage.begin()
        return scores_table(json.loads(paths.scores.read_text(encoding="utf-8")))
    # Before the folder is claimed: a wrong box that is put right later must not meet a claim of the wrong one.
    result = evaluate(truth, paths.segmentation, region.bounds)
    stage.begin()
    table = _write(result, paths.scores)
    stage.finish(coverage=result["coverage"])
    return table


def _paired(truth: Volume, segmentation: Volume, box: Box | None) -> tuple[Volume, Volume]:
    if box is None:
        return truth, segmentation
    if segmentation.shape == truth.shape:
        return truth.view(box), segmentation.view(box)
    if segmentation.shape == box.shape:
        return truth.view(box), segmentation
    raise VolumeError(
        f"Segmentation {segmentation.uri} has shape {segmentation.shape}; with the box {box} it must have the box's "
        f"shape {box.shape}, or that of the ground truth {truth.uri}, {truth.shape} (z,y,x)."
    )


def _sizes(table: Contingency) -> dict[str, int]:
    return {
        "voxels": table.voxels,
        "truth_bodies": int(np.unique(table.truth).size),
        "segments": int(np.unique(table.segmentation[table.segmentation != 0]).size),
    }


def _write(result: dict[str, Any], output: Path) -> str:
    table = scores_table(result)
    write_text(output.with_suffix(".md"), table)
    write_json(output, result)
    return table


def _inputs(truth_uri: str, segmentation_uri: str, box: Box | None) -> dict[str, str | None]:
    return {"truth": truth_uri, "segmentation": segmentation_uri, "box": None if box is None else str(box)}


def _described(inputs: dict[str, str | None]) -> str:
    return f"{inputs['segmentation']} against {inputs['truth']}" + (f" in {inputs['box']}" if inputs["box"] else "")


def _inputs_of(path: Path) -> dict[str, str | None] | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["inputs"]
        return {key: found[key] for key in ("truth", "segmentation", "box")}
    except (OSError, ValueError, KeyError, TypeError):
        return None
