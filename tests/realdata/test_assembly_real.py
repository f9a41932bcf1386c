"""The public FIB-25 ground truth, cut into 4 x 4 x 4 sub-volumes with ids of their own, comes back."""

from pathlib import Path

import cc3d
import fastremap
import numpy as np
import pytest
from tiled import finished_tiles, local_ids, same_partition

from ffn.assembly.run import assemble
from ffn.config import parse_config
from ffn.evaluation import evaluate
from ffn.geometry import Box, overlapping_tiles
from ffn.runs import labels_in
from ffn.volumes import create_hdf5, open_volume

SIZE, OVERLAP = (75, 75, 75), (16, 16, 16)


@pytest.mark.slow
def test_bodies_cut_into_64_sub_volumes(tmp_path: Path, data_dir: Path) -> None:
    """A body's parts that meet outside of the sample only are several objects in it, as with `disconnected: split`."""
    with open_volume(str(data_dir / "neuroproof_examples/training_sample2/groundtruth.h5.gz")) as volume:
        bodies = fastremap.renumber(volume[...])[0].astype(np.uint64)
    truth = cc3d.connected_components(bodies, connectivity=26).astype(np.uint64)
    box, rng = Box.of_shape(truth.shape), np.random.default_rng(1)
    for name, values in (("image", np.zeros(truth.shape, np.uint8)), ("truth", truth)):
        with create_hdf5(tmp_path / f"{name}.h5", name, box.shape, values.dtype, (10.0, 10.0, 10.0)) as out:
            out.write(box, values)
    boxes = overlapping_tiles(box, SIZE, OVERLAP)
    assert len(boxes) == 64
    run = {
        "results": str(tmp_path),
        "data": {"test": {"image": f"{tmp_path / 'image.h5'}:image"}},
        "network": {"fov": [9, 9, 9], "deltas": [2, 2, 2]},
        "inference": {"checkpoint": "none", "subvolume_size": SIZE, "subvolume_overlap": OVERLAP},
    }
    rule = {"min_overlap_voxels": 1, "workers": 1}
    for name, labels, disconnected in (("pieces", truth, "keep"), ("bodies", bodies, "split")):
        finished_tiles(tmp_path / name / "infer", boxes, (local_ids(labels[tile.slices], rng) for tile in boxes))
        assemble(parse_config({**run, "run": name, "assembly": {**rule, "disconnected": disconnected}}))
        uri = labels_in(tmp_path / name / "assemble")
        with open_volume(uri) as volume:
            assert same_partition(truth, volume[...])
        scores = evaluate(f"{tmp_path / 'truth.h5'}:truth", uri)
        assert scores["object"]["voi"] == pytest.approx(0, abs=1e-9)
