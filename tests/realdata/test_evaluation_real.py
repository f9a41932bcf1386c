"""Scores on the public FIB-25 ground truth."""

from pathlib import Path

import pytest

from ffn.evaluation import evaluate


def test_superpixels_only_split_bodies(data_dir: Path) -> None:
    groundtruth = data_dir / "neuroproof_examples/training_sample2/groundtruth.h5.gz"
    found = evaluate(str(groundtruth), f"{groundtruth}:stack")
    assert found["truth_bodies"] == 525
    assert found["voxels"] == 250**3 - 250
    for treatment in ("object", "excluded", "singletons"):
        assert found[treatment]["voi_merge"] == pytest.approx(0, abs=1e-3)
        assert found[treatment]["precision"] == pytest.approx(1, abs=1e-6)
    assert found["object"]["voi_split"] > 1
