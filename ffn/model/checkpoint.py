"""Weights in TensorFlow's V2 checkpoint format, under the tensor names of google/ffn.

A checkpoint `PREFIX` is the two files `PREFIX.index` and `PREFIX.data-00000-of-00001`. A convolution called `name` is
stored as `seed_update/name/weights` (float32 [kz, ky, kx, in, out]) and `seed_update/name/biases` (float32 [out]), so
google/ffn's released models can be read here and ours there. Other tensors in the file are ignored.

The same arrays may also come as one NumPy archive `NAME.npz` (`ffn export-weights`), for machines without TensorFlow,
which is imported only where its own format is read or written.
"""

import errno
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import ffn.model  # noqa: F401  (before TensorFlow)

# isort: split
import keras
import numpy as np

from ffn.errors import CheckpointError
from ffn.files import atomic_path, remove, sync, temporary_path

SCOPE = "seed_update"
DATA_SUFFIX = ".data-00000-of-00001"
INDEX_SUFFIX = ".index"
ARCHIVE_SUFFIX = ".npz"


def with_suffix(prefix: Path, suffix: str) -> Path:
    """`prefix` with `suffix` appended (prefixes contain dots, so Path.with_suffix would cut them)."""
    return prefix.with_name(prefix.name + suffix)


def read_tensors(prefix: Path) -> dict[str, np.ndarray[Any, Any]]:
    """All tensors of a checkpoint by name. Raises CheckpointError if it is missing or damaged."""
    if prefix.suffix == ARCHIVE_SUFFIX:
        return _read_archive(prefix)
    prefix = _plain_prefix(prefix)
    for suffix in (INDEX_SUFFIX, DATA_SUFFIX):
        if not with_suffix(prefix, suffix).is_file():
            raise CheckpointError(
                f"There is no checkpoint {prefix}: the file {with_suffix(prefix, suffix)} is missing. "
                "Give the common beginning of the .index and .data files, for example results/demo/train/model.ckpt."
            )
    try:
        import tensorflow as tf
    except ModuleNotFoundError as error:
        raise CheckpointError(
            f"{prefix} is in TensorFlow's format, and TensorFlow is not installed here. Where it is, run "
            f"`ffn export-weights {prefix} weights.npz`, and give that file instead."
        ) from error
    try:
        reader = tf.train.load_checkpoint(str(prefix))
        return {name: np.asarray(reader.get_tensor(name)) for name in sorted(reader.get_variable_to_shape_map())}
    except (tf.errors.OpError, ValueError, RuntimeError, LookupError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(
            f"The checkpoint {prefix} is damaged ({reason}). Copy or download it again, or train anew."
        ) from error


def write_tensors(prefix: Path, tensors: Mapping[str, Any]) -> None:
    """Write a checkpoint of named arrays. `PREFIX.index` appears last, so a readable checkpoint is a whole one.

    Raises OSError, with ENOSPC where the disk is full; what was there under the prefix may then be gone.
    """
    import tensorflow as tf

    names = sorted(tensors)
    with temporary_path(prefix) as folder:
        folder.mkdir()
        try:
            tf.raw_ops.SaveV2(
                prefix=str(folder / prefix.name),
                tensor_names=names,
                shape_and_slices=[""] * len(names),
                tensors=[tf.convert_to_tensor(tensors[name]) for name in names],
            )
        except tf.errors.OpError as error:
            raise _as_os_error(error, prefix) from error
        remove(with_suffix(prefix, INDEX_SUFFIX))
        for suffix in (DATA_SUFFIX, INDEX_SUFFIX):
            written = folder / (prefix.name + suffix)
            sync(written)
            written.replace(with_suffix(prefix, suffix))
        sync(prefix.parent)


def _read_archive(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in sorted(archive)}
    except FileNotFoundError as error:
        raise CheckpointError(f"There are no weights {path}. `ffn export-weights` writes such a file.") from error
    except (OSError, ValueError, EOFError, BadZipFile) as error:
        raise CheckpointError(f"{path} is not an archive of weights ({error}). Export or copy them again.") from error


def export_weights(prefix: Path, output: Path) -> None:
    """Write the network's weights of a checkpoint as a NumPy archive, under the same names, atomically.

    Raises CheckpointError if the checkpoint is missing, damaged or not of a flood-filling network, or `output` does not
    end in .npz.
    """
    if output.suffix != ARCHIVE_SUFFIX:
        raise CheckpointError(f"Weights are written to a file NAME.npz, not {output}: by that ending they are known.")
    tensors = read_tensors(prefix)
    weights = {name: tensors[name] for name in _weight_names(tensors, prefix)}
    with atomic_path(output) as partial, partial.open("wb") as file:
        np.savez(file, allow_pickle=False, **weights)


def load_weights(model: keras.Model, prefix: Path) -> None:
    """Set the weights of `model` (of `build_network`) from a checkpoint, ours or google/ffn's.

    Raises CheckpointError if it is missing or damaged, or holds another architecture: the message then names the
    first layer that differs and both shapes.
    """
    tensors = read_tensors(prefix)
    expected = dict(_named_variables(model))
    theirs = _weight_names(tensors, prefix)
    for name, variable in expected.items():
        if name not in tensors:
            raise _other_architecture(prefix, name, None, tuple(variable.shape))
        if tensors[name].shape != tuple(variable.shape):
            raise _other_architecture(prefix, name, tensors[name].shape, tuple(variable.shape))
    for name in theirs:
        if name not in expected:
            raise _other_architecture(prefix, name, tensors[name].shape, None)
    for name, variable in expected.items():
        variable.assign(tensors[name])


def save_weights(model: keras.Model, prefix: Path, extra: Mapping[str, Any] | None = None) -> None:
    """Write the weights of `model`, and `extra` arrays beside them, as the checkpoint `prefix`."""
    weights = {name: np.asarray(variable) for name, variable in _named_variables(model)}
    write_tensors(prefix, {**weights, **(extra or {})})


def _weight_names(tensors: Mapping[str, Any], prefix: Path) -> list[str]:
    names = [name for name in tensors if re.fullmatch(rf"{SCOPE}/\w+/(weights|biases)", name)]
    if not names:
        raise CheckpointError(f"The checkpoint {prefix} holds no flood-filling network: no tensor '{SCOPE}/...'.")
    return names


def _named_variables(model: keras.Model) -> Iterator[tuple[str, keras.Variable]]:
    for layer in model.layers:
        if isinstance(layer, keras.layers.Conv3D):
            yield f"{SCOPE}/{layer.name}/weights", layer.kernel
            yield f"{SCOPE}/{layer.name}/biases", layer.bias


def _plain_prefix(prefix: Path) -> Path:
    for suffix in (INDEX_SUFFIX, DATA_SUFFIX):
        if prefix.name.endswith(suffix):
            return prefix.with_name(prefix.name.removesuffix(suffix))
    return prefix


def _other_architecture(
    prefix: Path, name: str, theirs: tuple[int, ...] | None, ours: tuple[int, ...] | None
) -> CheckpointError:
    layer = name.split("/")[1]
    kind = name.split("/")[-1]
    there = f"{list(theirs)}" if theirs is not None else "no such layer"
    here = f"{list(ours)}" if ours is not None else "no such layer"
    return CheckpointError(
        f"The checkpoint {prefix} is of another architecture: layer {layer}, {kind}: {there} in the checkpoint, "
        f"{here} in the configured network. Set network.depth and network.features to those it was trained with."
    )


def _as_os_error(error: Exception, prefix: Path) -> OSError:
    # TensorFlow keeps only the text of the system's error.
    codes = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EFBIG)
    code = next((code for code in codes if os.strerror(code) in str(error)), errno.EIO)
    return OSError(code, os.strerror(code), str(prefix))
