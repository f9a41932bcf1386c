"""Seeds of an earlier segmentation, the last segment first: for a consensus of both orders.

folder/origins.json                    one sub-volume, or
folder/*/origins.json                  those of a run, or
folder/*/*/origins.json                of a run with several passes: found by the box in their started.json
"""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from ffn.config.seeds import PolicyInvertOrigins
from ffn.errors import DataError
from ffn.geometry import Box
from ffn.inference.seeds.view import Seeds, SeedView
from ffn.prepare.seeds import in_coarse_voxels
from ffn.runs import ORIGINS, origins_files


def inverted_origins(view: SeedView, settings: PolicyInvertOrigins) -> Seeds:
    """Where the segments of an earlier run began, in descending order of their ids.

    Raises DataError where the folder holds no such segmentation of this sub-volume, or more than one.
    """
    path = _origins_file(Path(settings.folder), view.box, settings.pass_number)
    seeds = _read(path)
    if view.fine is None:
        return seeds
    coarse = [in_coarse_voxels(seed[None], view.fine.factors, view.fine.phase) for seed in seeds]
    return np.concatenate([np.empty((0, 3), np.int64), *coarse])


def _origins_file(folder: Path, box: Box | None, number: int) -> Path:
    if not folder.is_dir():
        raise DataError(f"PolicyInvertOrigins: there is no folder {folder}; name the results of an earlier inference.")
    there = origins_files(folder)
    if there == [folder / ORIGINS]:
        return there[0]
    found = [path for path in there if _made_for(path.parent, box, number)]
    if len(found) != 1:
        raise DataError(
            f"PolicyInvertOrigins: {folder} holds {len(there)} segmentations, {len(found)} of which are pass {number} "
            f"over the box {box}; expected exactly one. Name a run with the same sub-volumes, or one folder that holds "
            f"{ORIGINS}."
        )
    return found[0]


def _made_for(folder: Path, box: Box | None, number: int) -> bool:
    try:
        settings = json.loads((folder / "started.json").read_text(encoding="utf-8"))["settings"]
        # What passes agree on lies beside them, and has no turn.
        return bool(settings["box"] == str(box) and "pass" in settings and number == _pass_of(folder))
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _pass_of(folder: Path) -> int:
    """Which of a run's passes the folder is of; 0 where it makes one. Passes may be turned alike, so settings do not
    tell."""
    found = re.fullmatch(r"pass-(\d+)", folder.name)
    return 0 if found is None else int(found[1])


def _read(path: Path) -> Seeds:
    try:
        records: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
        # Segments that were there from the beginning have no seed.
        grown = [record for record in records if "given" not in record]
        ordered = sorted(grown, key=lambda record: int(record["id"]), reverse=True)
        return np.array([[int(n) for n in record["seed_zyx"]] for record in ordered], np.int64).reshape(-1, 3)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"PolicyInvertOrigins: {path} does not list segments with `id` and `seed_zyx` ({error!r}); name the "
            "results of an earlier inference (not of a consensus)."
        ) from error
