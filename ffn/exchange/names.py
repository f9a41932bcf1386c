"""Where google/ffn keeps the files of a sub-volume: named by its corner, x first."""

import re
from pathlib import Path

from ffn.errors import ExchangeError
from ffn.geometry import ZYX

SEGMENTATION, PROBABILITY = "npz", "prob"


def file_of(folder: Path, corner: ZYX, suffix: str = SEGMENTATION) -> Path:
    """`<folder>/<x>/<y>/seg-<x>_<y>_<z>.<suffix>` for a corner in z,y,x."""
    z, y, x = corner
    return folder / str(x) / str(y) / f"seg-{x}_{y}_{z}.{suffix}"


def corner_of(path: Path) -> ZYX | None:
    """The corner (zyx) in a name `seg-<x>_<y>_<z>.npz`; None where the file is called otherwise."""
    match = re.fullmatch(r"seg-(\d+)_(\d+)_(\d+)\.npz", path.name)
    return None if match is None else (int(match[3]), int(match[2]), int(match[1]))


def find_result(folder: Path, corner: ZYX | None) -> Path:
    """The .npz of a sub-volume in an output folder of google/ffn, also in the older layout without sub-folders.

    Args:
        folder: google/ffn's segmentation_output_dir.
        corner: Of the sub-volume, zyx; None = the only one.

    Raises:
        ExchangeError: there is no such sub-volume, or several to choose from.
    """
    there = sorted(path for form in ("seg-*_*_*.npz", "*/*/seg-*_*_*.npz") for path in folder.glob(form))
    if corner is not None:
        there = [path for path in there if corner_of(path) == corner]
    if len(there) == 1 or (corner is not None and there):
        # Where both layouts have it, the newer one goes before the older, as in google/ffn.
        return max(there, key=lambda path: len(path.parts))
    if not there:
        what = "no sub-volume (seg-X_Y_Z.npz)" if corner is None else f"no sub-volume with the corner {_shown(corner)}"
        raise ExchangeError(f"There is {what} in {folder}.")
    corners = [_shown(found) for path in there[:8] if (found := corner_of(path)) is not None]
    raise ExchangeError(
        f"{folder} holds {len(there)} sub-volumes; choose one by its corner Z,Y,X, such as {' or '.join(corners)}."
    )


def _shown(corner: ZYX) -> str:
    return ",".join(map(str, corner))
