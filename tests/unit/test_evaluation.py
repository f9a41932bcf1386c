"""Contingency tables and scores: by hand, by brute force, against scikit-image, and through the command."""

import json
from math import log2
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from skimage.metrics import adapted_rand_error, variation_of_information

from ffn.cli import main
from ffn.config import parse_config
from ffn.errors import ConfigError, DataError, StageError, VolumeError
from ffn.evaluation import Contingency, Scores, contingency_of_volumes, coverage, evaluate, evaluate_run, score
from ffn.evaluation.worst import worst_merges, worst_splits
from ffn.files import write_json
from ffn.geometry import Box, blocks
from ffn.runs import RunPaths
from ffn.volumes import create_hdf5, open_volume

HUGE = 2**63
LABELS = arrays(np.uint64, (3, 4, 5), elements=st.sampled_from([0, 1, 2, 3, HUGE - 1, HUGE, HUGE + 1, 2**64 - 1]))


def of(truth: list[int], segmentation: list[int]) -> Contingency:
    return Contingency.of_arrays(np.array(truth), np.array(segmentation))


def brute_force(truth: np.ndarray, segmentation: np.ndarray) -> Scores:
    """Scores from the definitions, with a loop over pairs of ids; voxels of truth 0 are dropped first."""
    t, s = truth[truth != 0].tolist(), segmentation[truth != 0].tolist()
    if not t:
        return Scores(None, None, None, None, None, None, 0)
    n = len(t)
    pairs, bodies, segments = {}, {}, {}
    for a, b in zip(t, s, strict=True):
        pairs[a, b] = pairs.get((a, b), 0) + 1
        bodies[a] = bodies.get(a, 0) + 1
        segments[b] = segments.get(b, 0) + 1
    split = sum(c / n * log2(bodies[a] / c) for (a, b), c in pairs.items())
    merge = sum(c / n * log2(segments[b] / c) for (a, b), c in pairs.items())
    together = sum(c * c for c in pairs.values())
    precision = together / sum(c * c for c in segments.values())
    recall = together / sum(c * c for c in bodies.values())
    return Scores(split, merge, split + merge, 1 - 2 * precision * recall / (precision + recall), precision, recall, n)


def write_labels(path: Path, labels: np.ndarray, voxel_size: tuple[float, float, float] | None = None) -> str:
    with create_hdf5(path, "labels", labels.shape, labels.dtype, voxel_size, chunk=(4, 4, 4)) as volume:
        volume.write(Box.of_shape(labels.shape), labels)
    return f"{path}:labels"


def test_identity_scores_perfectly() -> None:
    table = of([1, 1, 2, 3, 0], [7, 7, 9, 4, 4])
    for treatment in ("object", "singletons", "excluded"):
        assert score(table, treatment) == Scores(0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 4)
    assert coverage(table) == 1.0


def test_body_cut_into_halves_is_one_bit_of_split() -> None:
    found = score(of([1, 1, 1, 1], [5, 5, 6, 6]), "object")
    assert (found.voi_split, found.voi_merge) == (1.0, 0.0)
    assert (found.precision, found.recall) == (1.0, 0.5)
    assert found.are == pytest.approx(1 / 3)


def test_two_equal_bodies_in_one_segment_are_one_bit_of_merge() -> None:
    found = score(of([1, 1, 2, 2], [5, 5, 5, 5]), "object")
    assert (found.voi_split, found.voi_merge) == (0.0, 1.0)
    assert (found.precision, found.recall) == (0.5, 1.0)


def test_treatments_of_a_half_segmented_body() -> None:
    table = of([1] * 8, [5, 5, 5, 5, 0, 0, 0, 0])
    assert score(table, "object").voi_split == 1.0
    assert score(table, "excluded") == Scores(0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 4)
    singletons = score(table, "singletons")
    assert singletons.voi_split == 0.5 * 1 + 0.5 * 3  # half the voxels at log2(8/4), half at log2(8/1)
    assert singletons.recall == (16 + 4) / 64
    assert coverage(table) == 0.5


def test_empty_segmentation_is_scored_where_that_means_something() -> None:
    table = of([1, 1, 2, 2], [0, 0, 0, 0])
    assert score(table, "object").voi_merge == 1.0
    assert score(table, "singletons").voi_split == 1.0
    assert score(table, "singletons").voi_merge == 0.0
    assert score(table, "excluded") == Scores(None, None, None, None, None, None, 0)
    assert coverage(table) == 0.0


def test_unknown_truth_never_counts() -> None:
    table = of([0, 0, 0, 1, 1], [3, 4, 0, 3, 3])
    assert table.voxels == 2
    assert score(table, "object") == Scores(0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 2)


@given(LABELS, LABELS)
@settings(deadline=None)
def test_equals_the_definitions_with_each_background_voxel_literally_alone(
    truth: np.ndarray, segmentation: np.ndarray
) -> None:
    table = Contingency.of_arrays(truth, segmentation)
    alone = segmentation.astype(object)
    empty = segmentation == 0
    alone[empty] = [f"voxel {k}" for k in range(int(empty.sum()))]
    cases = {
        "object": brute_force(truth, segmentation),
        "singletons": brute_force(truth, alone),
        "excluded": brute_force(np.where(empty, 0, truth), segmentation),
    }
    for treatment, expected in cases.items():
        assert score(table, treatment).as_dict() == pytest.approx(expected.as_dict(), abs=1e-12)


@given(LABELS, LABELS, st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 5)))
@settings(deadline=None)
def test_tables_of_blocks_add_up_to_the_table_of_the_whole(
    truth: np.ndarray, segmentation: np.ndarray, block: tuple[int, int, int]
) -> None:
    whole = Contingency.of_arrays(truth, segmentation)
    parts = [
        Contingency.of_arrays(truth[b.slices], segmentation[b.slices]) for b in blocks(Box.of_shape(truth.shape), block)
    ]
    for summed in (Contingency.sum(parts), sum(parts, Contingency.empty())):
        for column in ("truth", "segmentation", "count"):
            np.testing.assert_array_equal(getattr(summed, column), getattr(whole, column))


@given(LABELS, LABELS, st.permutations([0, 1, 2, 3, HUGE - 1, HUGE, HUGE + 1]))
@settings(deadline=None)
def test_names_of_ids_do_not_matter(truth: np.ndarray, segmentation: np.ndarray, offsets: list[int]) -> None:
    names = np.unique(np.concatenate([truth.ravel(), segmentation.ravel()]))
    renamed = np.array([0 if name == 0 else 10**18 + 17 * offsets[k % 7] % 10**9 + k for k, name in enumerate(names)])
    again = Contingency.of_arrays(truth, renamed[np.searchsorted(names, segmentation)])
    table = Contingency.of_arrays(truth, segmentation)
    for treatment in ("object", "singletons", "excluded"):
        assert score(again, treatment).as_dict() == pytest.approx(score(table, treatment).as_dict(), abs=1e-12)


@given(LABELS, LABELS)
@settings(deadline=None)
def test_swapping_truth_and_segmentation_swaps_split_and_merge(truth: np.ndarray, segmentation: np.ndarray) -> None:
    known = (truth != 0) & (segmentation != 0)
    forward = score(Contingency.of_arrays(truth[known], segmentation[known]), "excluded")
    back = score(Contingency.of_arrays(segmentation[known], truth[known]), "excluded")
    assert (back.voi_split, back.voi_merge, back.precision, back.recall) == pytest.approx(
        (forward.voi_merge, forward.voi_split, forward.recall, forward.precision), abs=1e-12
    )


def test_agrees_with_scikit_image() -> None:
    random = np.random.default_rng(3)
    truth = random.integers(0, 8, (60, 61, 62))
    segmentation = np.where(random.random(truth.shape) < 0.7, truth // 2, random.integers(0, 12, truth.shape))
    found = score(Contingency.of_arrays(truth, segmentation), "object")
    known = truth > 0
    split, merge = variation_of_information(truth[known], segmentation[known])
    error, *_ = adapted_rand_error(truth, segmentation, ignore_labels=(0,))
    assert (found.voi_split, found.voi_merge) == pytest.approx((split, merge), abs=1e-9)
    assert found.are == pytest.approx(error, abs=1e-4)  # scikit-image counts pairs, n(n-1), instead of squares


def test_neighbouring_ids_beyond_a_doubles_precision_stay_apart() -> None:
    truth = np.array([HUGE, HUGE + 1, HUGE + 2, HUGE + 3], np.uint64)
    table = Contingency.of_arrays(truth, truth[::-1].copy())
    assert table.truth.tolist() == truth.tolist()
    assert table.segmentation.tolist() == truth[::-1].tolist()
    assert worst_splits(table, 5) == []


def test_a_long_stream_of_tables_is_merged_on_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ffn.evaluation.contingency._ROWS_KEPT_APART", 3)
    total = Contingency.sum(of([1, 2, k], [4, 5, 6]) for k in range(1, 30))
    assert total.voxels == 29 * 3
    assert total.truth.size == 2 + 29


@pytest.mark.parametrize(
    ("truth", "segmentation", "message"),
    [
        (np.zeros((2, 2, 2), int), np.zeros((2, 2, 3), int), r"\(2, 2, 2\).*\(2, 2, 3\)"),
        (np.ones((2, 2, 2), int), np.full((2, 2, 2), -5), "negative label -5"),
        (np.ones((2, 2, 2), np.float32), np.ones((2, 2, 2), int), "Ground truth has dtype float32"),
    ],
)
def test_arrays_that_cannot_be_counted(truth: np.ndarray, segmentation: np.ndarray, message: str) -> None:
    with pytest.raises(VolumeError, match=message):
        Contingency.of_arrays(truth, segmentation)


def test_worst_mistakes_come_first_with_their_pieces() -> None:
    table = of([1] * 8 + [2] * 4 + [3] * 4, [5] * 4 + [6] * 4 + [7] * 8)
    (split,) = worst_splits(table, 10)
    assert (split.id, split.bits, split.voxels) == (1, 0.5, 8)
    assert [(piece.id, piece.voxels) for piece in split.pieces] == [(5, 4), (6, 4)]
    (merge,) = worst_merges(table, 10)
    assert (merge.id, merge.bits, merge.voxels) == (7, 0.5, 8)
    bits = [mistake.bits for mistake in worst_splits(of([1, 1, 2, 2, 2, 2], [1, 2, 3, 4, 5, 6]), 1)]
    assert bits == pytest.approx([4 / 6 * 2])


def test_volumes_are_read_in_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    truth = random.integers(0, 5, (9, 10, 11)).astype(np.uint64)
    segmentation = random.integers(0, 5, truth.shape).astype(np.uint64)
    first = open_volume(write_labels(tmp_path / "t.h5", truth))
    second = open_volume(write_labels(tmp_path / "s.h5", segmentation))
    largest = []
    whole = type(first).read
    monkeypatch.setattr(type(first), "read", lambda self, box: largest.append(box.voxels) or whole(self, box))
    table = contingency_of_volumes(first, second, (4, 4, 4))
    assert max(largest) == 64
    np.testing.assert_array_equal(table.count, Contingency.of_arrays(truth, segmentation).count)


def test_command_writes_scores_and_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = np.repeat(np.arange(1, 9, dtype=np.uint64), 64).reshape(8, 8, 8)
    halves = np.where(np.arange(8) < 4, labels, labels + np.uint64(HUGE))
    truth = write_labels(tmp_path / "t.h5", labels, (10.0, 10.0, 10.0))
    segmentation = write_labels(tmp_path / "s.h5", halves)
    command = ["evaluate", "--truth", truth, "--segmentation", segmentation, "--output", str(tmp_path / "scores.json")]
    assert main(command) == 0
    found = json.loads((tmp_path / "scores.json").read_text())
    for treatment in ("object", "singletons", "excluded"):
        assert found[treatment].keys() == {
            "voi_split", "voi_merge", "voi", "are", "precision", "recall", "voxels"
        }  # fmt: skip
        assert found[treatment]["voi_split"] == 1.0
    assert (found["coverage"], found["truth_bodies"], found["segments"], found["voxels"]) == (1.0, 8, 16, 512)
    assert found["conventions"]["log_base"] == 2
    assert found["voxel_size_nm_zyx"] == [10, 10, 10]
    assert found["inputs"] == {"truth": truth, "segmentation": segmentation, "box": None}
    table = (tmp_path / "scores.md").read_text()
    assert "left out" in table
    assert capsys.readouterr().out == table
    assert main(command) == 0  # the same inputs: replaced


def test_other_scores_are_not_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = np.ones((4, 4, 4), np.uint64)
    truth = write_labels(tmp_path / "t.h5", labels)
    output = tmp_path / "scores.json"
    output.write_text('{"precious": 1}')
    assert main(["evaluate", "--truth", truth, "--segmentation", truth, "--output", str(output)]) == 2
    assert "exists" in capsys.readouterr().err
    assert output.read_text() == '{"precious": 1}'


def test_box_and_shapes(tmp_path: Path) -> None:
    labels = np.arange(1, 513, dtype=np.uint64).reshape(8, 8, 8)
    box = Box((2, 0, 0), (6, 8, 8))
    truth = write_labels(tmp_path / "t.h5", labels)
    part = write_labels(tmp_path / "part.h5", labels[box.slices])
    odd = write_labels(tmp_path / "odd.h5", labels[:3])
    for segmentation in (truth, part):
        found = evaluate(truth, segmentation, box)
        assert (found["object"]["voi"], found["voxels"], found["inputs"]["box"]) == (0.0, 256, "2:6,0:8,0:8")
    with pytest.raises(VolumeError, match=r"\(3, 8, 8\).*\(4, 8, 8\).*\(8, 8, 8\)"):
        evaluate(truth, odd, box)
    with pytest.raises(VolumeError, match=r"8,8,8.*3,8,8"):
        evaluate(truth, odd)


def test_truth_without_labels_says_so(tmp_path: Path) -> None:
    nothing = write_labels(tmp_path / "t.h5", np.zeros((4, 4, 4), np.uint64))
    with pytest.raises(DataError, match="no label other than 0"):
        evaluate(nothing, nothing)


def run_config(folder: Path, **test: str) -> dict[str, object]:
    return {"run": "r", "results": str(folder), "data": {"test": {"image": "x.h5:image", **test}},
            "network": {"fov": [3, 3, 3], "deltas": [1, 1, 1]}, "inference": {"checkpoint": "model"}}  # fmt: skip


def test_run_is_scored_once_and_only_when_assembled(tmp_path: Path) -> None:
    labels = np.repeat(np.arange(1, 9, dtype=np.uint64), 64).reshape(8, 8, 8)
    truth = write_labels(tmp_path / "t.h5", labels)
    config = parse_config(run_config(tmp_path, labels=truth, box="2:6,0:8,0:8"))
    paths = RunPaths.of(config)
    with pytest.raises(StageError, match="ffn assemble"):
        evaluate_run(config)
    paths.assemble.mkdir(parents=True)
    write_labels(paths.assemble / "segmentation.h5", labels[2:6])
    write_json(paths.assemble / "done.json", {"facts": 1})
    table = evaluate_run(config)
    assert json.loads(paths.scores.read_text())["excluded"]["voi"] == 0.0
    assert (paths.evaluate / "done.json").exists()
    with h5py.File(paths.assemble / "segmentation.h5", "a") as file:
        del file["labels"]
    assert evaluate_run(config) == table  # done: the volumes are not read again
    write_json(paths.assemble / "done.json", {"facts": 2})
    with pytest.raises(StageError, match="segmentation"):
        evaluate_run(config)


def test_run_without_ground_truth(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.test\.labels"):
        evaluate_run(parse_config(run_config(tmp_path)))
