"""How many times as fast scores are made here as with scikit-image, from the same arrays in one process.

Both sides make the variation of information and the adapted Rand error: here from one table, there by
`variation_of_information` and `adapted_rand_error`. The sides take turns; `ratio` is the median of scikit-image's
seconds over ours, and must be at least 3. The scores of both are printed.

With the public ground truth of FIB-25 where it is at hand ($FFN_TEST_DATA, ../shared/data), else with synthetic cells,
against a segmentation made of it that splits, merges and leaves out.

    python benchmarks/evaluate_vs_skimage.py --rounds 5
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
from numpy.typing import NDArray
from skimage.metrics import adapted_rand_error, variation_of_information

from ffn.evaluation import Contingency, score
from ffn.geometry import Box
from ffn.volumes import open_labels

sys.path.append(str(Path(__file__).parent / "long"))
from _tiles import cells

DATA = Path(os.environ.get("FFN_TEST_DATA", "../shared/data"))
TRUTH = DATA / "neuroproof_examples" / "training_sample2" / "groundtruth.h5.gz"
EDGE = 250

Labels = NDArray[np.uint64]
Measured = tuple[float, float, float]
"""VOI split, VOI merge, adapted Rand error."""


def volumes() -> tuple[str, Labels, Labels]:
    """Where they are from, ground truth, and a segmentation of it with splits, merges and background."""
    if TRUTH.exists():
        name, truth, parts = "FIB-25", open_labels(str(TRUTH))[...], open_labels(f"{TRUTH}:stack")[...]
    else:
        name, cubes = "synthetic", np.indices((EDGE,) * 3) // 24
        # scikit-image takes memory for all ids up to the largest.
        truth = (
            np.unique(cells(Box.of_shape((EDGE,) * 3)), return_inverse=True)[1].astype(np.uint64).reshape((EDGE,) * 3)
        )
        parts = (1 + (cubes[0] * 11 + cubes[1]) * 11 + cubes[2]).astype(np.uint64)
    # Two bodies are one segment, but one part in eight is a segment of its own.
    found = np.where(parts % 8 == 0, truth.max() + parts, truth // 2 + 1)
    # Where two segments meet along x, a voxel on either side is background.
    edges = found[:, :, 1:] != found[:, :, :-1]
    found[:, :, 1:][edges] = 0
    found[:, :, :-1][edges] = 0
    return name, truth, found


def ours(truth: Labels, found: Labels) -> Measured:
    """Scores by this package."""
    scores = score(Contingency.of_arrays(truth, found), "object")
    assert scores.voi_split is not None
    assert scores.voi_merge is not None
    assert scores.are is not None
    return scores.voi_split, scores.voi_merge, scores.are


def theirs(truth: Labels, found: Labels) -> Measured:
    """Scores by scikit-image."""
    split, merge = variation_of_information(truth, found, ignore_labels=(0,))
    error, _, _ = adapted_rand_error(truth, found, ignore_labels=(0,))
    return split, merge, error


def timed(scores: Callable[[Labels, Labels], Measured], truth: Labels, found: Labels) -> tuple[float, Measured]:
    """Seconds that the scores took, and the scores."""
    began = time.perf_counter()
    result = scores(truth, found)
    return time.perf_counter() - began, result


def main() -> None:
    """Print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    name, truth, found = volumes()
    seconds: dict[str, list[float]] = {"ours": [], "theirs": []}
    for _ in range(args.rounds):
        our_s, our_scores = timed(ours, truth, found)
        their_s, their_scores = timed(theirs, truth, found)
        seconds["ours"].append(our_s)
        seconds["theirs"].append(their_s)
    result = {
        "name": "evaluate_vs_skimage",
        "ratio": round(median(t / o for o, t in zip(seconds["ours"], seconds["theirs"], strict=True)), 2),
        "ours_s": round(median(seconds["ours"]), 4),
        "theirs_s": round(median(seconds["theirs"]), 4),
        "voxels": truth.size,
        "labels": name,
        "pairs": int(Contingency.of_arrays(truth, found).count.size),
        "voi_split": [our_scores[0], their_scores[0]],
        "voi_merge": [our_scores[1], their_scores[1]],
        "are": [our_scores[2], their_scores[2]],
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
