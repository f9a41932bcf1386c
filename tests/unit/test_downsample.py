"""Lower resolutions: geometry and pooling, against a loop over voxels."""

from collections import Counter
from itertools import product

import numpy as np
import pytest

from ffn.export.downsample import downsample, levels, source_box
from ffn.geometry import ZYX, Box


def brute_force(values: np.ndarray, source: Box, block: Box, step: ZYX, labels: bool) -> np.ndarray:
    result = np.zeros(block.shape, values.dtype)
    for index in product(*(range(a, b) for a, b in zip(block.start, block.stop, strict=True))):
        covered = Box(
            tuple(i * s for i, s in zip(index, step, strict=True)),
            tuple((i + 1) * s for i, s in zip(index, step, strict=True)),
        )
        inside = source.intersection(covered)
        pooled = values[inside.relative_to(source.start).slices].ravel()
        at = tuple(i - a for i, a in zip(index, block.start, strict=True))
        if labels:
            votes = Counter(pooled.tolist())
            result[at] = next(v for v in pooled.tolist() if votes[v] == max(votes.values()))
        else:
            result[at] = int(pooled.mean() + 0.5) if values.dtype.kind == "u" else pooled.mean()
    return result


@pytest.mark.parametrize("start", [(0, 0, 0), (3, 4, 7)])
@pytest.mark.parametrize("step", [(2, 2, 2), (1, 2, 2)])
@pytest.mark.parametrize("kind", ["uint8", "uint16", "float32", "uint64"])
def test_pooling_counts_exactly_the_voxels_that_exist(start: ZYX, step: ZYX, kind: str) -> None:
    before = Box(start, tuple(a + n for a, n in zip(start, (5, 6, 7), strict=True)))
    random = np.random.default_rng(1)
    values = (random.integers(0, 3, before.shape) if kind == "uint64" else random.random(before.shape) * 250).astype(
        kind
    )
    values[0, 0, 0] = 2**64 - 1 if kind == "uint64" else 250
    block = Box(
        tuple(a // s for a, s in zip(before.start, step, strict=True)),
        tuple(-(-b // s) for b, s in zip(before.stop, step, strict=True)),
    )
    source = source_box(block, step, before)
    assert source == before
    found = downsample(values, source, block, step, labels=kind == "uint64")
    assert found.dtype == values.dtype
    np.testing.assert_allclose(found, brute_force(values, source, block, step, kind == "uint64"), rtol=1e-6)


def test_levels_share_the_origin_of_the_source() -> None:
    found = levels(Box((150, 3, 0), (250, 8, 9)), (10, 10, 10), 2)
    assert [level.box for level in found] == [
        Box((150, 3, 0), (250, 8, 9)), Box((75, 1, 0), (125, 4, 5)), Box((37, 0, 0), (63, 2, 3))
    ]  # fmt: skip
    assert found[2].voxel_size == (40, 40, 40)


def test_long_voxels_become_cubes_first() -> None:
    found = levels(Box((0, 0, 0), (100, 100, 100)), (40, 4, 4), 5)
    assert [level.voxel_size for level in found[1:]] == [
        (40, 8, 8), (40, 16, 16), (40, 32, 32), (80, 64, 64), (160, 128, 128)
    ]  # fmt: skip
    assert found[3].box.shape == (100, 13, 13)
