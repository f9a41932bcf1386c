"""Pooling against the definition, cell by cell."""

from collections import Counter
from itertools import product

import numpy as np
import pytest

from ffn.geometry import ZYX
from ffn.volumes import pool, pooling

STEPS = [(2, 2, 2), (1, 2, 2), (1, 1, 2), (2, 1, 1), (3, 1, 2), (3, 3, 3), (1, 1, 1)]


def reference(values: np.ndarray, step: ZYX, labels: bool) -> np.ndarray:
    result = np.zeros([n // s for n, s in zip(values.shape, step, strict=True)], values.dtype)
    for at in product(*(range(n) for n in result.shape)):
        cell = values[tuple(slice(i * s, (i + 1) * s) for i, s in zip(at, step, strict=True))].ravel().tolist()
        if labels:
            votes = Counter(cell)
            result[at] = next(value for value in cell if votes[value] == max(votes.values()))
        elif values.dtype.kind == "f":
            result[at] = np.mean(cell)
        else:
            result[at] = (2 * sum(cell) + len(cell)) // (2 * len(cell))
    return result


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("kind", ["uint8", "uint16", "uint64", "bool"])
@pytest.mark.parametrize("at_once", [1, 1 << 18])
def test_labels_take_the_most_frequent_and_of_several_the_first(
    step: ZYX, kind: str, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pooling, "_VOXELS", at_once)
    shape = [n * s for n, s in zip((3, 4, 5), step, strict=True)]
    # Few labels: many ties, and cells that hold one label only.
    values = np.random.default_rng(7).integers(0, 4, shape).astype(kind)
    values[: step[0], : step[1], : step[2]] = np.iinfo(kind).max if kind != "bool" else True
    found = pool(values, step, labels=True)
    assert found.dtype == values.dtype
    np.testing.assert_array_equal(found, reference(values, step, labels=True))


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("kind", ["uint8", "uint16", "float32"])
def test_grey_values_are_averaged_and_rounded_half_up(step: ZYX, kind: str) -> None:
    shape = [n * s for n, s in zip((3, 4, 5), step, strict=True)]
    top = 1.0 if kind == "float32" else np.iinfo(kind).max
    values = (np.random.default_rng(7).random(shape) * top).astype(kind)
    values[: step[0], : step[1], : step[2]] = top
    found = pool(values, step, labels=False)
    assert found.dtype == values.dtype
    np.testing.assert_allclose(found, reference(values, step, labels=False), rtol=1e-6)


def test_a_view_of_every_other_voxel_is_pooled_like_its_copy() -> None:
    values = np.random.default_rng(7).integers(0, 3, (8, 12, 16)).astype(np.uint64)
    view = values[::2, ::2, ::2]
    np.testing.assert_array_equal(pool(view, (2, 2, 2), labels=True), pool(view.copy(), (2, 2, 2), labels=True))
