"""The released network on real EM joins a neuron that was cut in two, and keeps neighbours apart."""

import numpy as np
import pytest
import rods

from ffn.agglomeration.refill import Refill, refill_pairs
from ffn.agglomeration.spec import Spec
from ffn.config import parse_config
from ffn.geometry import Box
from ffn.stages import Stage
from ffn.volumes import create_hdf5, open_image, open_labels

BOX = Box((60, 60, 60), (160, 160, 160))
VOXELS = (10.0, 10.0, 10.0)
CUT, NEURON, OTHER, NEIGHBOUR = 999_999, 60_683, 2_150, 24_720
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def sample(data_dir):
    return data_dir / "neuroproof_examples" / "training_sample2"


@pytest.fixture(scope="module")
def found(sample, data_dir, tmp_path_factory):
    """Records of the cut neuron's two parts, and of two neighbours: about 10 fields of view in all."""
    from ffn.inference.executor import load_executor

    config = parse_config(
        {
            "run": "real",
            "data": {"test": {"image": "unused"}},
            "network": {"depth": 12},
            "inference": {"checkpoint": "unused"},
            "agglomeration": {
                "radius": [24, 24, 24],
                "analysis_radius": [16, 16, 16],
                "max_distance_nm": 20,
                "min_segment_size": 10_000,
            },
        }
    )
    with open_labels(str(sample / "groundtruth.h5.gz"), box=BOX) as truth:
        bodies = truth[...]
    # Across its longest axis, in the middle.
    places = np.argwhere(bodies == NEURON)
    axis = int(np.argmax(places.std(axis=0)))
    beyond = places[places[:, axis] >= np.median(places[:, axis])]
    bodies[tuple(beyond.T)] = CUT
    folder = tmp_path_factory.mktemp("cut")
    path = folder / "labels.h5"
    with create_hdf5(path, "labels", BOX.shape, np.uint64, VOXELS) as volume:
        volume.write(Box.of_shape(BOX.shape), bodies)
    network = load_executor(config.network, data_dir / "ffn_released" / "model.ckpt-27465036")
    with open_image(str(sample / "grayscale_maps"), box=BOX) as image, open_labels(f"{path}:labels") as labels:
        region, stage = Box.of_shape(BOX.shape), Stage(folder / "pairs", {})
        spec = Spec(config, stage, "unused", f"{path}:labels", region, VOXELS, "unused")
        pairs = {(pair.point.a, pair.point.b): pair for pair in rods.pairs_in(spec)}
        names, records = ((NEURON, CUT), (OTHER, NEIGHBOUR)), []
        refill = Refill(config, image, labels, VOXELS)
        refill_pairs(refill, [pairs[both] for both in names], network, 4, records.append)
        return dict(zip(names, records, strict=True))


def test_a_cut_neuron_is_joined(found):
    record = found[NEURON, CUT]
    assert record["joined"], record
    assert record["iou"] > 0.9
    assert record["distance_nm"] == 0


def test_neighbours_stay_apart(found):
    record = found[OTHER, NEIGHBOUR]
    assert not record["joined"], record
    assert record["iou"] < 0.3
    assert min(record["recovered_a"], record["recovered_b"]) > 0.6


def test_both_took_few_fields_of_view(found):
    assert sum(record["fovs"] for record in found.values()) < 60
