"""Sub-volumes in which objects were joined, assembled."""

import json

import numpy as np
from flooding import Batches

import ffn.inference.executor
from ffn.assembly.run import assemble
from ffn.config import parse_config
from ffn.geometry import Box
from ffn.inference.kept import Keeper
from ffn.inference.subvolume import run_tile
from ffn.inference.tile import Tile
from ffn.inference.tiles import pass_stage
from ffn.runs import RunPaths
from ffn.volumes import create_hdf5, open_volume

SHAPE = (9, 9, 32)
GREY, WALL = 128, 255


def test_ids_of_joined_objects_leave_gaps(tmp_path, monkeypatch):
    """One field of view an object: the second reaches 4 sections of the first, and 3 that are free."""
    image = np.full(SHAPE, GREY, np.uint8)
    image[:, :, 12:18] = WALL
    with create_hdf5(tmp_path / "image.h5", "image", SHAPE, np.uint8, (10.0, 10.0, 10.0)) as volume:
        volume.write(Box.of_shape(SHAPE), image)
    for end in ("index", "data-00000-of-00001"):
        (tmp_path / f"model.ckpt.{end}").touch()

    def network(grey, _):
        return np.where(grey > 0, np.float32(-3), np.float32(3))

    monkeypatch.setattr(ffn.inference.executor, "load_executor", lambda *_, **__: Batches(network))
    config = parse_config(
        {
            "run": "joined",
            "results": str(tmp_path / "results"),
            "data": {"test": {"image": f"{tmp_path / 'image.h5'}:image"}},
            "network": {"depth": 2, "features": 2, "fov": [9, 9, 9], "deltas": [0, 0, 0]},
            "inference": {
                "checkpoint": str(tmp_path / "model.ckpt"),
                "min_segment_size": 100,
                "min_boundary_dist": [0, 0, 0],
                "join_share": 0.5,
            },
            "assembly": {"workers": 1},
        }
    )
    folder = RunPaths.of(config).tile(0)
    uri, checkpoint = f"{tmp_path / 'image.h5'}:image", tmp_path / "model.ckpt"
    run_tile(config, Tile(uri, checkpoint, None, folder, seeds=((4, 4, 4), (4, 4, 9), (4, 4, 22))))

    facts = json.loads((folder / "done.json").read_text())["facts"]
    assert (facts["segments"], facts["largest_id"]) == (2, 3)
    with open_volume(f"{folder / 'segmentation.h5'}:labels") as volume:
        np.testing.assert_array_equal(np.unique(volume[...]), [0, 1, 3])

    with Keeper(pass_stage(config, 0), 1, [0]) as keeper:
        keeper.keep(0, folder)
    assemble(config)
    assembled = RunPaths.of(config).assemble
    facts = json.loads((assembled / "equivalences.json").read_text())
    assert (facts["segments_in_tiles"], facts["objects_in_tiles"], facts["objects"]) == (2, 2, 2)
    with open_volume(RunPaths.of(config).assembled) as volume:
        np.testing.assert_array_equal(volume[4, 4], [1] * 12 + [0] * 6 + [3] * 9 + [0] * 5)
