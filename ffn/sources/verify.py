"""Whether a folder holds a public data set, whole and unchanged."""

from pathlib import Path

from ffn.errors import FFNError
from ffn.geometry import Box
from ffn.sources.catalogue import Dataset, Stack
from ffn.sources.githash import blob_sha1, tree_sha1
from ffn.volumes import open_volume


def problems_of(folder: Path, dataset: Dataset) -> list[str]:
    """What is wrong with `folder` as a copy of `dataset`; empty if nothing is."""
    missing = [name for name in dataset.files if not (folder / name).is_file()]
    if missing:
        return [f"{missing[0]} is missing" + (f", and {len(missing) - 1} more files" if len(missing) > 1 else "")]
    problems = []
    for name, expected in dataset.blobs.items():
        found = blob_sha1(folder / name)
        if found != expected:
            problems.append(f"{name} has git SHA-1 {found}, expected {expected}")
    if dataset.stack is not None:
        problems += _stack_problems(folder / dataset.stack.folder, dataset.stack)
    return problems


def _stack_problems(folder: Path, stack: Stack) -> list[str]:
    extra = sorted({path.name for path in folder.iterdir()} - set(stack.files))
    if extra:
        return [f"{stack.folder} holds {extra[0]}, which does not belong to the data set"]
    if stack.tree_sha1 is not None:
        found = tree_sha1(folder)
        return [] if found == stack.tree_sha1 else [f"{stack.folder} has git SHA-1 {found}, expected {stack.tree_sha1}"]
    try:
        volume = open_volume(str(folder))
        if volume.shape[1:] != stack.slice_shape:
            return [f"the slices in {stack.folder} are {volume.shape[1:]}, expected {stack.slice_shape}"]
        for z in range(volume.shape[0]):
            volume.read(Box((z, 0, 0), (z + 1, *stack.slice_shape)))
    except FFNError as error:
        return [str(error)]
    return []
