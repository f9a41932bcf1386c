"""The public FIB-25 data are read as they are, and fetched by link where a mirror has them."""

from pathlib import Path

import numpy as np
import pytest

from ffn.config import Source, parse_config
from ffn.errors import FFNError
from ffn.geometry import Box
from ffn.preflight import check_inputs
from ffn.sources import fetch_all
from ffn.volumes import open_volume


@pytest.fixture
def sample(data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return data_dir / "neuroproof_examples/training_sample2"


def test_the_image_is_a_folder_of_slices(sample: Path) -> None:
    image = open_volume(str(sample / "grayscale_maps"), voxel_size=(10, 10, 10))
    assert image.shape == (250, 250, 250)
    assert image.dtype == np.uint8
    values = image[...]
    assert (values.min(), values.max()) == (26, 217)
    assert values.mean() == pytest.approx(130.03, abs=0.005)
    assert values.std() == pytest.approx(33.45, abs=0.005)
    np.testing.assert_array_equal(open_volume(str(sample / "grayscale_maps/*.png"))[100, 20:30], values[100, 20:30])


def test_the_labels_are_bodies(sample: Path) -> None:
    labels = open_volume(str(sample / "groundtruth.h5.gz"))
    assert labels.shape == (250, 250, 250)
    assert labels.dtype == np.uint64
    values = labels[...]
    bodies, voxels = np.unique(values, return_counts=True)
    assert bodies[0] == 0
    assert len(bodies) - 1 == 525
    assert voxels[0] == 250
    assert not values[:, 0, 0].any()
    assert voxels[1:].max() == 3_702_057
    assert (voxels[1:] >= 1000).sum() == 209
    box = Box((150, 3, 200), (180, 60, 250))
    np.testing.assert_array_equal(open_volume(str(sample / "groundtruth.h5.gz"), box=box)[...], values[box.slices])
    superpixels = open_volume(f"{sample}/groundtruth.h5.gz:stack")
    assert superpixels[...].max() == 21_316


def test_other_real_volumes(data_dir: Path) -> None:
    snemi = open_volume(f"{data_dir}/snemi3d/train_18nm.h5:raw")
    assert snemi.shape == (88, 333, 333)
    assert snemi.voxel_size == (30.0, 18.0, 18.0)
    assert open_volume(f"{data_dir}/fib25_crops/ex.h5:labels").voxel_size == (10.0, 10.0, 10.0)
    with pytest.raises(FFNError, match=r"labels .*raw .*supervoxels"):
        open_volume(f"{data_dir}/snemi3d/train_18nm.h5:image")


def test_a_local_mirror_serves_the_configuration(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder, released = "data/neuroproof_examples/training_sample2", "data/ffn_released"
    sources = [
        {"dataset": "fib25_test", "folder": folder, "mirror": str(data_dir / "neuroproof_examples")},
        {"dataset": "fib25_checkpoint", "folder": released, "mirror": str(data_dir / "ffn_released")},
    ]
    config = parse_config(
        {
            "run": "released",
            "data": {
                "test": {"image": f"{folder}/grayscale_maps", "labels": f"{folder}/groundtruth.h5.gz"},
                "voxel_size": [10, 10, 10],
                "sources": sources,
            },
            "inference": {"checkpoint": f"{released}/model.ckpt-27465036"},
        }
    )
    assert check_inputs(config) == []
    fetched = fetch_all([Source(**source) for source in sources])
    assert [Path(item.folder).resolve() for item in fetched] == [
        data_dir / "neuroproof_examples/training_sample2",
        data_dir / "ffn_released",
    ]
    assert check_inputs(config) == []
    assert open_volume(config.data.test.image).shape == (250, 250, 250)
