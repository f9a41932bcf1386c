"""The sub-volumes of a run's test region, and the commands about them."""

import numpy as np
import pytest
import yaml

from ffn.cli import main
from ffn.config import parse_config
from ffn.errors import GeometryError
from ffn.geometry import Box
from ffn.inference.tiles import infer_tiles, tiles
from ffn.volumes import create_hdf5


@pytest.fixture
def values(tmp_path):
    with create_hdf5(tmp_path / "image.h5", "image", (40, 50, 60), np.uint8, (10.0, 10.0, 10.0)):
        pass
    return {
        "run": "tiled",
        "results": str(tmp_path / "results"),
        "data": {"test": {"image": f"{tmp_path / 'image.h5'}:image"}},
        "network": {"depth": 2, "features": 2, "fov": [9, 9, 9], "deltas": [2, 2, 2]},
        "inference": {"checkpoint": str(tmp_path / "model.ckpt")},
    }


def sized(values, size, overlap, box=None):
    test = {**values["data"]["test"], "box": box}
    inference = {**values["inference"], "subvolume_size": size, "subvolume_overlap": overlap}
    return parse_config({**values, "data": {"test": test}, "inference": inference})


def test_no_size_means_one_tile(values):
    assert tiles(sized(values, None, [32, 32, 32])) == [Box((0, 0, 0), (40, 50, 60))]
    assert tiles(sized(values, None, [32, 32, 32], "10:40,0:50,20:60")) == [Box((10, 0, 20), (40, 50, 60))]


def test_tiles_cover_the_region_and_overlap(values):
    boxes = tiles(sized(values, [20, 50, 30], [8, 8, 10], "5:40,0:50,0:60"))
    assert boxes == [Box((z, 0, x), (z + 20, 50, x + 30)) for z in (5, 17, 20) for x in (0, 20, 30)]


def test_a_region_smaller_than_a_tile_is_one_tile(values):
    assert tiles(sized(values, [64, 64, 64], [8, 8, 8])) == [Box((0, 0, 0), (40, 50, 60))]


def test_region_outside_the_image(values):
    with pytest.raises(GeometryError, match="outside"):
        tiles(sized(values, None, [8, 8, 8], "0:41,0:50,0:60"))


def test_region_smaller_than_the_fov(values):
    values["network"]["fov"] = [41, 9, 9]
    with pytest.raises(GeometryError, match="40 voxels along z, fewer than the network's fov 41"):
        tiles(sized(values, None, [8, 8, 8]))


def test_there_is_no_such_tile(values):
    with pytest.raises(GeometryError, match="tiles 0 to 0"):
        infer_tiles(sized(values, None, [8, 8, 8]), [1])


def test_commands(values, tmp_path, capsys):
    config = tmp_path / "config.yaml"
    values["inference"].update(subvolume_size=[40, 50, 40], subvolume_overlap=[8, 8, 8])
    config.write_text(yaml.safe_dump(values))
    assert main(["tiles", "--config", str(config)]) == 0
    assert capsys.readouterr().out == "2 sub-volumes\n0\t0:40,0:50,0:40\n1\t0:40,0:50,20:60\n"
    assert main(["infer", "--config", str(config), "--tile", "0"]) == 2
    assert "There is no checkpoint" in capsys.readouterr().err
    assert main(["assemble", "--config", str(config)]) == 2
    assert "The inference of run tiled is not finished" in capsys.readouterr().err
    assert main(["tiles", "--config", str(config), "--tile", "0", "--output", str(tmp_path / "one")]) == 2
    assert "Sub-volume 0 of run tiled is not finished" in capsys.readouterr().err
    assert not (tmp_path / "results").exists()


def test_incomplete_command_lines(values, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["infer", "--config", "c.yaml", "--image", "i.h5:image"])
    assert "give --checkpoint, --output, or --tile" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["infer", "--config", "c.yaml", "--tile", "1", "--output", "out"])
    assert "--output cannot be combined with --tile" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["tiles", "--config", "c.yaml", "--tile", "1"])
    assert "--tile and --output go together" in capsys.readouterr().err
