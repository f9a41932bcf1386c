"""The segmentation of a run as one HDF5 file, for programs that want one.

One process copies the segmentation's store block by block, so memory does not grow with the volume. The file appears
under its name when it is complete, and says in the attribute `made_from` of which segmentation it is a copy.
"""

from pathlib import Path

import h5py
import numpy as np

from ffn.config import Config
from ffn.errors import StageError
from ffn.geometry import ZYX, Box, blocks
from ffn.locks import lock
from ffn.progress import Progress
from ffn.runs import SEGMENTATION, RunPaths
from ffn.stages import done_digest
from ffn.volumes import create_hdf5, open_labels

DATASET = "labels"
MADE_FROM = "made_from"
"""Attribute: the stage that made the segmentation, and the SHA-256 of its done-marker."""
SUFFIXES = (".h5", ".hdf5", ".hdf")
BLOCK: ZYX = (64, 256, 256)
"""Voxels in memory at once: whole chunks of the file."""


def export_hdf5(config: Config, output: Path | None = None) -> tuple[Path, bool]:
    """Write the run's segmentation to one HDF5 file: dataset `labels`, uint64 zyx, gzip, with voxel size and offset.

    A killed export begins anew.

    Args:
        config: Of the run, whose segmentation must be complete.
        output: File to write; None = `segmentation.h5` in the folder of the export.

    Returns:
        The file, and whether it was written now: not where it is a copy of the same segmentation already.

    Raises StageError where the segmentation is not complete, the file holds anything else, or another process writes
    it; OSError when the disk is full.
    """
    paths = RunPaths.of(config)
    output = paths.export / SEGMENTATION if output is None else output
    if output.suffix.lower() not in SUFFIXES:
        raise StageError(f"The HDF5 file {output} must end in {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}.")
    made_from = f"{paths.segmented.name} {done_digest(paths.segmented, f'ffn {paths.segmented.name}')}"
    if _is_copy(output, made_from):
        return output, False
    with lock(output.with_name(f"{output.name}.lock")):
        # Another process may have written it before this one held the lock.
        if _is_copy(output, made_from):
            return output, False
        _copy(paths.segmentation, output, made_from)
    return output, True


def _copy(segmentation: str, output: Path, made_from: str) -> None:
    with (
        open_labels(segmentation) as labels,
        create_hdf5(output, DATASET, labels.shape, np.uint64, labels.voxel_size, offset=labels.offset) as copy,
        Progress("export", labels.bounds.voxels, "voxels") as progress,
    ):
        copy.annotate(**{MADE_FROM: made_from})
        for block in blocks(Box.of_shape(labels.shape), BLOCK):
            copy.write(block, labels.read(block))
            progress.advance(block.voxels)


def _is_copy(path: Path, made_from: str) -> bool:
    """Whether the file is there and a copy of this segmentation. Raises StageError where it is anything else."""
    if not path.exists():
        return False
    there = _made_from(path)
    if there == made_from:
        return True
    held = "was not made by this command" if there is None else f"is a copy of another segmentation ({there})"
    raise StageError(f"{path} exists and {held}, now there is {made_from}. Delete it, or choose another --output.")


def _made_from(path: Path) -> str | None:
    try:
        with h5py.File(path, "r", locking=False) as file:
            return str(file[DATASET].attrs[MADE_FROM])
    except PermissionError:
        raise
    except (OSError, KeyError):
        return None
