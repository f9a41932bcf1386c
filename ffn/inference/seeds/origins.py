"""Seeds of an earlier segmentation, the last segment first: for a consensus of both orders.

folder/origins.json                    one sub-volume, or
folder/pass-0/                         those of a run (`ffn.inference.kept`): found by the box
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from ffn.bundles import open_file
from ffn.config.seeds import PolicyInvertOrigins
from ffn.errors import DataError
from ffn.geometry import Box
from ffn.inference.kept import folder_of, ledger_of
from ffn.inference.seeds.view import Seeds, SeedView
from ffn.prepare.seeds import in_coarse_voxels
from ffn.runs import ORIGINS


def inverted_origins(view: SeedView, settings: PolicyInvertOrigins) -> Seeds:
    """Where the segments of an earlier run began, in descending order of their ids.

    Raises DataError where the folder holds no such segmentation of this sub-volume.
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
    if (folder / ORIGINS).is_file():
        return folder / ORIGINS
    ledger = ledger_of(folder / f"pass-{number}")
    entries = [] if ledger is None else list(ledger.entries())
    for entry in entries:
        if entry.facts["box"] == str(box):
            return folder_of(entry) / ORIGINS
    raise DataError(
        f"PolicyInvertOrigins: pass {number} in {folder} has {len(entries)} sub-volumes, none of them with the box "
        f"{box}. Name the folder `infer` of a run with the same sub-volumes, or one folder that holds {ORIGINS}."
    )


def _read(path: Path) -> Seeds:
    try:
        with open_file(path) as file:
            records: list[dict[str, Any]] = json.load(file)
        # Segments that were there from the beginning have no seed.
        grown = [record for record in records if "given" not in record]
        ordered = sorted(grown, key=lambda record: int(record["id"]), reverse=True)
        return np.array([[int(n) for n in record["seed_zyx"]] for record in ordered], np.int64).reshape(-1, 3)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"PolicyInvertOrigins: {path} does not list segments with `id` and `seed_zyx` ({error!r}); name the "
            "results of an earlier inference (not of a consensus)."
        ) from error
