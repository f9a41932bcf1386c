"""From two volumes, or a run, to scores.json and scores.md."""

import json
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from ffn.blockwise import EVERYTHING, BlockwiseStage, Entry, Pool, Reduce, Result, Share, Step
from ffn.config import Config
from ffn.errors import ConfigError, DataError, StageError
from ffn.evaluation.contingency import Contingency, Rows
from ffn.evaluation.scores import TREATMENTS, coverage, score
from ffn.evaluation.summed import summed
from ffn.evaluation.table import scores_table
from ffn.evaluation.tables import Pair, Tables, table_of
from ffn.evaluation.worst import worst_merges, worst_splits
from ffn.files import write_json, write_text
from ffn.fingerprint import fingerprint
from ffn.geometry import Box
from ffn.progress import Progress
from ffn.runs import RunPaths, labels_uri
from ffn.stages import Stage, done_digest

WORST = 10
_GRID = "block"
"""What the settings call the size of the blocks, in which only an unfinished evaluation must agree."""


def evaluate(
    truth_uri: str,
    segmentation_uri: str,
    box: Box | None = None,
    worst: int = WORST,
    workers: int | None = 1,
    folder: Path | None = None,
) -> dict[str, Any]:
    """Score a segmentation; the result is what scores.json holds.

    Args:
        truth_uri: ground truth, 0 = unknown.
        segmentation_uri: labels, 0 = background; of the shape of the truth, or of the box.
        box: voxels (zyx) of the truth to score; also taken from the segmentation if that has the truth's shape.
        worst: how many of the worst splits and merges to list.
        workers: processes; None = one for each core, for a small volume fewer.
        folder: where temporary files may be, if there are millions of pairs; None = where the system has them.

    Raises VolumeError for volumes that do not fit, DataError where nothing in the truth is known.
    """
    pair = Pair(truth_uri, segmentation_uri, box)
    task = Tables(pair, pair.grid())
    with Pool(workers or task.workers) as pool, Progress("evaluate", task.grid.box.voxels, "voxels") as progress:

        def tables() -> Iterator[Contingency]:
            for unit, result in pool.results(task, range(len(task))):
                yield table_of(result.columns)
                progress.advance(task.size(unit))

        with summed(tables(), folder or Path(tempfile.gettempdir())) as table:
            return scores_of(pair, table, worst)


def evaluate_to(output: Path, truth_uri: str, segmentation_uri: str, box: Box | None = None, worst: int = WORST) -> str:
    """Score a segmentation, write `output` (JSON) and beside it the table (.md); returns the table.

    Scores of the same inputs are replaced; an `output` with anything else in it is left alone: StageError.
    """
    if output.suffix != ".json":
        raise StageError(f"The output {output} must end in .json; the table goes beside it, ending in .md.")
    inputs = Pair(truth_uri, segmentation_uri, box).as_dict()
    if output.exists() and (theirs := _inputs_of(output)) != inputs:
        held = "something else" if theirs is None else f"the scores of {_described(theirs)}"
        raise StageError(f"{output} exists and holds {held}; choose another name or delete it.")
    return write_scores(evaluate(truth_uri, segmentation_uri, box, worst, None, output.parent), output)


def evaluate_run(config: Config, share: Share = EVERYTHING) -> str | None:
    """Score the run's segmentation in its evaluate folder, or do a share of that.

    Returns the table; None where the scores are not there yet. A finished evaluation of the same segmentation is not
    repeated.
    """
    region, paths = config.data.test, RunPaths.of(config)
    truth = labels_uri(config, region)
    if truth is None:
        raise ConfigError("data.test.labels is empty: without ground truth there is nothing to score against.")
    digest = done_digest(paths.segmented, f"ffn {paths.segmented.name}")
    settings = {**fingerprint(config, "evaluate"), "segmentation": digest}
    stage = Stage(paths.evaluate, {**settings, **_grid_of(paths.evaluate / "done.json")})
    if stage.done_marker.exists():
        stage.is_done()
        BlockwiseStage.clear(stage)
    else:
        _score(Pair(truth, paths.segmentation, region.bounds), settings, paths, share)
    return scores_table(json.loads(paths.scores.read_text(encoding="utf-8"))) if stage.done_marker.exists() else None


def _score(pair: Pair, settings: dict[str, Any], paths: RunPaths, share: Share) -> None:
    # Before the folder is claimed: a wrong box that is put right later must not meet a claim of the wrong one.
    tables = Tables(pair, pair.grid())
    stage = Stage(paths.evaluate, {**settings, _GRID: tables.grid.block})
    scores = Scoring(pair, BlockwiseStage.step_of(stage, tables), paths.scores)
    try:
        BlockwiseStage(stage, [tables, scores], "ffn evaluate").run(tables.workers, share)
    except DataError:
        # Nothing is known in that box: no claim of it either.
        stage.started_marker.unlink(missing_ok=True)
        BlockwiseStage.clear(stage)
        raise


class Scoring(Reduce):
    """Scores of the sum of all tables.

    Args:
        pair: What was compared.
        tables: The step of the tables.
        output: `scores.json`; the table goes beside it.
    """

    name = "scores"
    remedy = "Give the job more memory: 16 bytes for each pair of a body and a segment that meet, and each segment."

    def __init__(self, pair: Pair, tables: Step, output: Path) -> None:
        self.pair, self.tables, self.output = pair, tables, output

    def run(self, unit: int) -> Result:
        with summed(map(table_of, self.tables.complete().columns()), self.output.parent) as table:
            result = scores_of(self.pair, table, WORST)
        write_scores(result, self.output)
        return Result(facts={"coverage": result["coverage"]})

    def is_intact(self, entry: Entry) -> bool:
        return self.output.is_file()


def scores_of(pair: Pair, table: Rows, worst: int) -> dict[str, Any]:
    """What scores.json holds, with this many of the worst errors.

    Raises DataError where nothing in the truth is known.
    """
    totals = table.totals
    if totals.voxels == 0:
        where = f" in {pair.box}" if pair.box else ""
        raise DataError(f"The ground truth {pair.truth} has no label other than 0{where}; there is nothing to score.")
    with pair.opened() as (truth, segmentation):
        shape, voxel_size = truth.shape, truth.voxel_size or segmentation.voxel_size
    return {
        **{treatment: score(table, treatment).as_dict() for treatment in TREATMENTS},
        "coverage": coverage(table),
        "voxels": totals.voxels,
        "truth_bodies": totals.bodies.size,
        "segments": int(np.count_nonzero(totals.segments)),
        "worst": {
            "splits": [mistake.as_dict() for mistake in worst_splits(table, worst)],
            "merges": [mistake.as_dict() for mistake in worst_merges(table, worst)],
        },
        "inputs": pair.as_dict(),
        "shape_zyx": list(shape),
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


def write_scores(result: dict[str, Any], output: Path) -> str:
    """Write scores.json and beside it the table (.md); returns the table."""
    table = scores_table(result)
    write_text(output.with_suffix(".md"), table)
    write_json(output, result)
    return table


def _described(inputs: dict[str, str | None]) -> str:
    return f"{inputs['segmentation']} against {inputs['truth']}" + (f" in {inputs['box']}" if inputs["box"] else "")


def _inputs_of(path: Path) -> dict[str, str | None] | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["inputs"]
        return {key: found[key] for key in ("truth", "segmentation", "box")}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _grid_of(marker: Path) -> dict[str, Any]:
    """How the work of a finished evaluation was cut, as part of its settings: the scores are the same however it was.

    Empty where the marker does not say; earlier versions did not cut it.
    """
    with suppress(OSError, ValueError, KeyError, TypeError):
        return {_GRID: json.loads(marker.read_text(encoding="utf-8"))["settings"][_GRID]}
    return {}
