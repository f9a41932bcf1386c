"""Curves, overlay, scores and the stage that makes them."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread
from PIL import Image
from stopping import refused_while_locked

from ffn.config import parse_config
from ffn.errors import DataError, StageError, VolumeError
from ffn.evaluation import evaluate_to
from ffn.geometry import Box
from ffn.report import report_run
from ffn.report.curves import draw_curves, read_curves, smoothed
from ffn.report.overlay import MOST_PIXELS, bar_length_nm, coloured, colours, draw_overlay, drawn_step, read_slice
from ffn.report.scores import html_of_table
from ffn.runs import RunPaths
from ffn.volumes import create_hdf5, open_volume

SHAPE = (6, 20, 30)


def write_volume(path: Path, dataset: str, values: np.ndarray) -> None:
    with create_hdf5(path, dataset, values.shape, values.dtype, (10.0, 10.0, 10.0)) as volume:
        volume.write(Box.of_shape(values.shape), values)


@pytest.fixture
def config(tmp_path, monkeypatch):
    """A run whose stages before the report are done."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(5)
    labels = np.ones(SHAPE, np.uint64)
    labels[:, 10:] = 2
    write_volume(tmp_path / "image.h5", "image", rng.integers(60, 190, SHAPE).astype(np.uint8))
    write_volume(tmp_path / "truth.h5", "labels", labels)
    config = parse_config(
        {
            "run": "r",
            "data": {
                "train": {"image": "image.h5:image", "labels": "truth.h5:labels"},
                "test": {"image": "image.h5:image", "labels": "truth.h5:labels"},
            },
        }
    )
    paths = RunPaths.of(config)
    for folder in (paths.train, paths.assemble, paths.evaluate):
        folder.mkdir(parents=True)
        (folder / "done.json").write_text("{}")
    rows = ["step,fovs,loss,accuracy,precision,recall,f1,learning_rate"]
    rows += [f"{i},{2 * i},{1 / i},nan,0.5,0.5,0.5,0.1" for i in range(1, 9)]
    (paths.train / "curves.csv").write_text("\n".join(rows) + "\n")
    write_volume(paths.assemble / "segmentation.h5", "labels", np.where(labels == 1, 7, 0).astype(np.uint64))
    evaluate_to(paths.scores, "truth.h5:labels", paths.segmentation)
    return config


def test_report_of_a_trained_and_scored_run(config):
    folder = report_run(config)
    names = {path.name for path in folder.iterdir()}
    assert {"curves.png", "overlay.png", "scores.md", "scores.html", "done.json"} <= names
    assert imread(folder / "overlay.png").std() > 0.05
    assert "left out" in (folder / "scores.md").read_text()


def test_a_small_slice_is_drawn_voxel_by_voxel(config, tmp_path):
    report_run(config)
    layers = {}
    for name, uri in {
        "image": "image.h5:image",
        "ground truth": "truth.h5:labels",
        "segmentation": RunPaths.of(config).segmentation,
    }.items():
        with open_volume(uri) as volume:
            layers[name] = volume[3]
    draw_overlay(layers.pop("image"), layers, "r: test region, slice 3 of 6", (10.0, 10.0), tmp_path / "whole.png")
    assert (RunPaths.of(config).report / "overlay.png").read_bytes() == (tmp_path / "whole.png").read_bytes()


def test_finished_report_is_left_as_it_is(config):
    folder = report_run(config)
    (folder / "overlay.png").write_bytes(b"kept")
    report_run(config)
    assert (folder / "overlay.png").read_bytes() == b"kept"


def test_one_process_writes_the_report(config):
    refused_while_locked(RunPaths.of(config).report, lambda: report_run(config))


def test_report_without_training_and_without_truth(config):
    values = config.model_dump()
    values["inference"]["checkpoint"] = "model.ckpt"
    values["data"]["train"] = None
    values["data"]["test"]["labels"] = None
    names = {path.name for path in report_run(parse_config(values)).iterdir()}
    assert names == {"overlay.png", "started.json", "done.json"}


def test_report_needs_the_stages_before_it(config):
    (RunPaths.of(config).assemble / "done.json").unlink()
    with pytest.raises(StageError, match="run `ffn assemble` first"):
        report_run(config)


def test_segmentation_of_another_shape_is_refused(config):
    segmentation = RunPaths.of(config).assemble / "segmentation.h5"
    segmentation.unlink()
    write_volume(segmentation, "labels", np.ones((6, 20, 29), np.uint64))
    with pytest.raises(VolumeError, match="must cover the same voxels"):
        report_run(config)


def test_curves_without_a_column_are_refused(tmp_path):
    (tmp_path / "curves.csv").write_text("fovs,loss\n1,2\n")
    with pytest.raises(DataError, match="no column accuracy, precision, recall, f1"):
        read_curves(tmp_path / "curves.csv")
    (tmp_path / "curves.csv").write_text("fovs,loss,accuracy,precision,recall,f1\n")
    with pytest.raises(DataError, match="no rows"):
        read_curves(tmp_path / "curves.csv")


def test_smoothing_is_tensorboards():
    values = np.array([1.0, 2.0, 4.0])
    expected = [1.0, (0.9 * 0.1 + 0.2) / 0.19, (0.81 * 0.1 + 0.9 * 0.2 + 0.4) / 0.271]
    np.testing.assert_allclose(smoothed(values), expected)
    np.testing.assert_allclose(smoothed(np.full(9, 3.0)), 3.0)
    gap = smoothed(np.array([np.nan, 2.0, np.nan, 2.0]))
    np.testing.assert_array_equal(gap, [np.nan, 2.0, np.nan, 2.0])


def test_same_run_gives_the_same_picture(tmp_path):
    curves = {name: np.linspace(0, 1, 5) for name in ("fovs", "loss", "accuracy", "precision", "recall", "f1")}
    for name in ("a.png", "b.png"):
        draw_curves(curves, "run", tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_colours_are_one_an_id_and_none_for_background():
    labels = np.array([[0, 1, 2], [2, 1, 2**60 + 3]], np.uint64)
    painted = colours(labels)
    assert painted.shape == (2, 3, 3)
    np.testing.assert_array_equal(painted[0, 0], 0)
    np.testing.assert_array_equal(painted[0, 1], painted[1, 1])
    assert len({tuple(colour) for colour in painted.reshape(-1, 3)}) == 4
    assert len({tuple(c) for c in colours(np.arange(1, 500).reshape(1, -1))[0]}) == 499


def test_voxels_without_a_body_stay_grey():
    image = np.array([[51, 51]], np.uint8)
    mixed = coloured(image, np.array([[0, 5]]))
    np.testing.assert_allclose(mixed[0, 0], 0.2)
    assert np.ptp(mixed[0, 1]) > 0.1


@pytest.mark.parametrize(("width", "bar"), [(1600.0, 500.0), (2500.0, 500.0), (640.0, 200.0), (6000.0, 2000.0)])
def test_scale_bar_has_a_round_length(width, bar):
    assert bar_length_nm(width) == bar


def test_anisotropic_pixels_keep_their_shape(tmp_path):
    labels = {"segmentation": np.ones((40, 40), np.uint64)}
    for name, size in (("square.png", (10.0, 10.0)), ("tall.png", (20.0, 10.0))):
        draw_overlay(np.zeros((40, 40), np.uint8), labels, "t", size, tmp_path / name)
    square, tall = imread(tmp_path / "square.png").shape, imread(tmp_path / "tall.png").shape
    assert tall[0] > 1.6 * square[0]
    assert tall[1] == square[1]


@pytest.mark.parametrize(
    ("shape", "step"),
    [((1024, 1024), 1), ((1025, 1024), 2), ((20_000, 20_000), 20), ((3, 10**7), 10), ((10**7, 1), 10)],
)
def test_a_slice_is_reduced_no_more_than_it_must(shape, step):
    assert drawn_step(*shape) == step
    height, width = shape
    assert -(-height // step) * -(-width // step) <= MOST_PIXELS


@pytest.mark.parametrize("step", [1, 3, 20, 600])
def test_a_reduced_slice_holds_means_of_the_image_and_labels_of_the_middle(tmp_path, step):
    rng = np.random.default_rng(2)
    shape = (3, 641, 1100)
    image = rng.integers(0, 256, shape).astype(np.uint8)
    labels = rng.integers(0, 2**60, shape).astype(np.uint64)
    write_volume(tmp_path / "v.h5", "v", image)
    write_volume(tmp_path / "l.h5", "l", labels)
    with open_volume(f"{tmp_path}/v.h5:v") as volume, open_volume(f"{tmp_path}/l.h5:l") as bodies:
        grey, ids = read_slice(volume, 1, step, labels=False), read_slice(bodies, 1, step, labels=True)
    assert (grey.dtype, ids.dtype) == (np.uint8, np.uint64)
    assert grey.shape == ids.shape == (-(-641 // step), -(-1100 // step))
    full = (641 // step, 1100 // step)
    cells = image[1, : full[0] * step, : full[1] * step].reshape(full[0], step, full[1], step)
    np.testing.assert_array_equal(grey[: full[0], : full[1]], np.floor(cells.mean((1, 3)) + 0.5))
    middles = labels[1, step // 2 :: step, step // 2 :: step]
    np.testing.assert_array_equal(ids[: middles.shape[0], : middles.shape[1]], middles)
    assert np.isin(ids, labels[1]).all()


@pytest.mark.slow
def test_a_slice_of_20000_squared_is_drawn_within_1_gb(config):
    shape, edge = (1, 20_000, 20_000), 2_000
    rng = np.random.default_rng(3)
    grey = rng.integers(60, 190, (1, edge, edge)).astype(np.uint8)
    bodies = np.kron(np.arange(1, 401, dtype=np.uint64).reshape(1, 20, 20), np.ones((1, 100, 100), np.uint64))
    segmentation = RunPaths.of(config).assemble / "segmentation.h5"
    for path, dataset, part in (
        (Path("image.h5"), "image", grey),
        (Path("truth.h5"), "labels", bodies),
        (segmentation, "labels", bodies),
    ):
        path.unlink()
        with create_hdf5(path, dataset, shape, part.dtype, (40.0, 8.0, 8.0)) as volume:
            for y in range(0, shape[1], edge):
                for x in range(0, shape[2], edge):
                    volume.write(Box((0, y, x), (1, y + edge, x + edge)), part)
    script = (
        "import json, re, sys; from pathlib import Path\n"
        "from ffn.config import parse_config; from ffn.report import report_run\n"
        "report_run(parse_config(json.loads(sys.argv[1])))\n"
        "print(re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())[1])\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script, config.model_dump_json()], capture_output=True, text=True, check=True
    )
    assert int(ended.stdout.split()[-1]) * 1024 < 1e9
    figure = RunPaths.of(config).report / "overlay.png"
    with Image.open(figure) as picture:
        assert "reduced 20 times" in picture.text["Title"]
    assert imread(figure).std() > 0.05


def test_a_very_tall_slice_can_be_drawn(tmp_path):
    labels = {"segmentation": np.ones((60_000, 4), np.uint64)}
    draw_overlay(np.zeros((60_000, 4), np.uint8), labels, "t", (10.0, 10.0), tmp_path / "tall.png")
    assert imread(tmp_path / "tall.png").shape[0] < 65_536


def test_scores_as_html(config):
    result = json.loads(RunPaths.of(config).scores.read_text())
    page = html_of_table((RunPaths.of(config).evaluate / "scores.md").read_text())
    assert page.count("<tr>") == 4
    assert f"<td>{result['excluded']['voi']:.4f}</td>" in page
    assert "<p>" in page
