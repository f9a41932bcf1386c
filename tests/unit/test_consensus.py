"""What several segmentations agree on."""

import json
import shutil

import numpy as np
import pytest
from tiled import finished_tiles

from ffn.assembly.consensus import Pieces, agreed, attractions, contract
from ffn.assembly.passes import join_passes
from ffn.assembly.run import assemble
from ffn.bundles import open_file
from ffn.cli import main
from ffn.config import parse_config
from ffn.errors import StageError
from ffn.geometry import Box
from ffn.inference.kept import folder_of, ledger_of
from ffn.inference.tiles import pass_settings
from ffn.volumes import create_hdf5, open_volume


def row(*runs):
    """A volume 1 x 1 x n from (label, voxels) pairs."""
    return np.concatenate([np.full(voxels, label, np.uint32) for label, voxels in runs])[None, None]


def joined(segmentations, agreement=0.5, smallest=3, majority=0.625):
    pieces = Pieces(segmentations)
    return agreed(pieces, agreement, majority, smallest)[pieces.places].reshape(segmentations[0].shape)


def test_pieces_are_where_all_passes_say_the_same():
    first, second = row((1, 4), (0, 1), (2, 5)), row((7, 6), (0, 4))
    pieces = Pieces([first, second])
    assert pieces.passes == 2
    np.testing.assert_array_equal(pieces.labels[pieces.places], np.stack([first.ravel(), second.ravel()], axis=1))
    assert dict(zip(map(tuple, pieces.labels.tolist()), pieces.voxels.tolist(), strict=True)) == {
        (0, 7): 1,
        (1, 7): 4,
        (2, 0): 4,
        (2, 7): 1,
    }


def test_one_pass_keeps_what_it_has():
    labels = row((5, 4), (0, 2), (9, 7), (2, 1))
    np.testing.assert_array_equal(joined([labels]), row((1, 4), (0, 2), (2, 7), (0, 1)))


def test_a_leak_in_one_pass_is_outvoted():
    good = row((1, 20), (0, 3), (2, 20))
    leak = row((1, 43))
    result = joined([good, leak, good[..., ::-1]])
    assert result[0, 0, 0] != result[0, 0, -1]
    np.testing.assert_array_equal(result, row((1, 20), (0, 3), (2, 20)))


def test_a_gap_in_one_pass_is_bridged():
    whole = row((4, 40), (0, 5))
    cut = row((1, 18), (0, 2), (2, 20), (0, 5))
    np.testing.assert_array_equal(joined([whole, cut, whole]), row((1, 40), (0, 5)))


def test_cuts_at_different_places_heal_and_leaks_at_different_places_do_not_chain():
    # Three neurons; each pass cuts one somewhere and joins two others.
    truth = np.repeat([1, 2, 3], 30)
    first, second, third = (truth.copy() for _ in range(3))
    first[:10], first[60:] = 9, 2
    second[35:45], second[30:60] = 9, 1
    third[80:] = 9
    result = joined([labels[None, None].astype(np.uint32) for labels in (first, second, third)]).ravel()
    pairs = set(zip(truth.tolist(), result.tolist(), strict=True))
    assert len(pairs) == 3
    assert len({ours for _, ours in pairs}) == 3


def test_agreement_decides_how_far_objects_reach():
    near, far = row((1, 20), (0, 10)), row((1, 30))
    for agreement, reach in ((0.3, 30), (0.5, 20), (1.0, 20)):
        assert np.count_nonzero(joined([near, near, far], agreement)) == reach


def test_nothing_in_nothing_out():
    np.testing.assert_array_equal(joined([row((0, 9))] * 2), row((0, 9)))


def test_attraction_by_definition():
    labels = np.array([[1, 4, 2], [1, 5, 0], [2, 5, 2], [9, 9, 9]])
    # 0-1: joined by pass 0, parted by 1, pass 2 does not see one of them; 0-2: one of three; 1-2: one of two.
    for majority, expected in (
        (0.5, {(0, 1): 0.0, (0, 2): -0.5 * 8 / 3, (1, 2): 0.0}),
        (0.75, {(0, 1): -0.5 * 6 / 3, (0, 2): -1.25 * 8 / 3, (1, 2): -0.5 * 6 / 3}),
    ):
        first, second, attraction = attractions(labels, np.array([10, 6, 8, 50]), majority)
        got = dict(zip(zip(first.tolist(), second.tolist(), strict=True), attraction.tolist(), strict=True))
        assert got == pytest.approx(expected)


@pytest.mark.parametrize(
    ("leaks", "passes", "majority", "objects"),
    [(1, 2, 0.625, 2), (2, 3, 0.625, 1), (2, 3, 0.7, 2), (3, 5, 0.625, 2), (3, 5, 0.5, 1), (4, 5, 0.625, 1)],
)
def test_so_many_passes_have_to_share_a_leak(leaks, passes, majority, objects):
    good, leak = row((1, 20), (2, 20)), row((1, 40))
    result = joined([leak] * leaks + [good] * (passes - leaks), majority=majority)
    assert len(np.unique(result)) == objects


def literal_contraction(pieces, edges):
    """Join the most attracted pair of clusters until there is none, looking at everything each time."""
    clusters = [{piece} for piece in range(pieces)]
    while True:
        sums = {
            (i, j): sum(w for (a, b), w in edges.items() if (a in p and b in q) or (a in q and b in p))
            for i, p in enumerate(clusters)
            for j, q in enumerate(clusters)
            if i < j
        }
        best = max(sums, key=sums.__getitem__, default=None)
        if best is None or sums[best] <= 0:
            return {frozenset(cluster) for cluster in clusters}
        clusters[best[0]] |= clusters.pop(best[1])


@pytest.mark.parametrize("seed", range(20))
def test_contraction_is_the_greedy_one(seed):
    random = np.random.default_rng(seed)
    pairs = [(a, b) for a in range(12) for b in range(a + 1, 12) if random.random() < 0.5]
    weights = random.normal(size=len(pairs))
    first, second = np.array(pairs).T
    clusters = contract(12, first, second, weights)
    got = {frozenset(np.flatnonzero(clusters == c).tolist()) for c in np.unique(clusters)}
    assert got == literal_contraction(12, dict(zip(pairs, weights, strict=True)))


SHAPE = (10, 10, 40)
BOX = Box.of_shape(SHAPE)


def filled(infer, number, labels, **settings):
    """A finished pass over the only sub-volume."""
    finished_tiles(infer, [BOX], [labels], number=number, **settings)


@pytest.fixture
def run(tmp_path):
    """A run of three passes over one sub-volume, all finished, the second with a leak."""
    with create_hdf5(tmp_path / "image.h5", "image", SHAPE, np.uint8, (10.0, 10.0, 10.0)):
        pass
    config = parse_config(
        {
            "run": "agree",
            "results": str(tmp_path / "results"),
            "data": {"test": {"image": f"{tmp_path / 'image.h5'}:image"}},
            "network": {"fov": [9, 9, 9], "deltas": [2, 2, 2]},
            "inference": {"checkpoint": "unused", "passes": 3, "min_segment_size": 100},
        }
    )
    truth = np.zeros(SHAPE, np.uint32)
    truth[..., :19], truth[..., 21:] = 1, 2
    leak, infer = np.ones(SHAPE, np.uint32), tmp_path / "results/agree/infer"
    for number, labels in enumerate((truth, leak, truth)):
        filled(infer, number, labels)
    return config, truth, infer


def agreed_in(infer):
    """Labels, and the list of objects."""
    folder = folder_of(ledger_of(infer / "consensus")[0])
    with open_volume(f"{folder}/segmentation.h5:labels") as labels, open_file(folder / "origins.json") as origins:
        assert (labels.dtype, labels.voxel_size) == (np.uint64, (10.0, 10.0, 10.0))
        return labels[...], json.load(origins)


def test_stage(run):
    config, truth, infer = run
    join_passes(config, [0])
    labels, origins = agreed_in(infer)
    np.testing.assert_array_equal(labels, truth)
    assert origins == [{"id": 1, "voxels": 1900}, {"id": 2, "voxels": 1900}]
    before = {path: path.stat().st_mtime_ns for path in infer.rglob("*")}
    join_passes(config, [0])
    assert {path: path.stat().st_mtime_ns for path in infer.rglob("*")} == before


def test_what_is_lost_is_joined_again(run):
    config, truth, infer = run
    join_passes(config, [0])
    (archive,) = infer.glob("consensus/archives/*.tar")
    archive.unlink()
    join_passes(config, [0])
    np.testing.assert_array_equal(agreed_in(infer)[0], truth)


@pytest.mark.parametrize(("majority", "objects"), [(0.625, 1), (0.7, 2)])
def test_the_configured_majority_decides(run, majority, objects):
    config, _, infer = run
    shutil.rmtree(infer / "pass-2")
    filled(infer, 2, np.ones(SHAPE, np.uint32))
    join_passes(changed(config, majority=majority), [0])
    assert len(agreed_in(infer)[1]) == objects
    with pytest.raises(StageError, match=rf"majority: there {majority}, now 0\.8"):
        join_passes(changed(config, majority=0.8), [0])


def test_split_consensus_of_the_passes(run):
    config, truth, infer = run
    config = config.model_copy(
        update={"inference": config.inference.model_copy(update={"consensus": "split", "split_min_size": 100})}
    )
    join_passes(config, [0])
    labels, origins = agreed_in(infer)
    np.testing.assert_array_equal(labels, truth)
    assert [record["id"] for record in origins] == [1, 2]
    with pytest.raises(StageError, match="holds results of another configuration"):
        join_passes(run[0], [0])


def listed(config, *passes):
    return config.model_copy(
        update={"inference": config.inference.model_validate({**config.inference.model_dump(), "passes": list(passes)})}
    )


def test_a_pass_is_compared_with_its_own_settings(run):
    config, truth, infer = run
    config = listed(config, {}, {"turn": 5, "reverse_seeds": True}, {"quality": "fast", "network": {"depth": 12}})
    for number in range(3):
        shutil.rmtree(infer / f"pass-{number}")
        filled(infer, number, truth, **{k: v for k, v in pass_settings(config, number).items() if k != "box"})
    join_passes(config, [0])
    other = listed(config, {}, {"turn": 5}, {"quality": "fast", "network": {"depth": 12}})
    with pytest.raises(StageError, match=r"Pass 1 .* other settings \(inference\.reverse_seeds"):
        join_passes(other, [0])


def test_stage_refuses_unfinished_and_foreign_passes(run):
    config, truth, infer = run
    (archive,) = infer.glob("pass-1/archives/*.tar")
    content = archive.read_bytes()
    archive.unlink()
    with pytest.raises(StageError, match=r"Pass 1 over sub-volume 0 .* --tile 0 --pass 1"):
        join_passes(config, [0])
    archive.write_bytes(content)
    join_passes(config, [0])
    shutil.rmtree(infer / "pass-1")
    with pytest.raises(StageError, match=r"Pass 1 over the sub-volumes of run agree is not finished"):
        join_passes(config, [0])
    filled(infer, 1, truth, checkpoint_sha256="of other weights")
    with pytest.raises(StageError, match="holds results of another configuration"):
        join_passes(config, [0])
    marker = infer / "pass-1" / "started.json"
    marker.write_text(marker.read_text().replace(str(BOX), "0:1,0:1,0:1"))
    with pytest.raises(StageError, match=r"other settings \(box: there '0:1,0:1,0:1'"):
        join_passes(config, [0])


def test_assembly_names_the_consensus_that_is_missing(run):
    with pytest.raises(StageError, match=r"run agree is not finished.*`ffn consensus .* --tile 0-0`"):
        assemble(run[0])


def changed(config, **inference):
    return config.model_copy(update={"inference": config.inference.model_copy(update=inference)})


def test_assembly_refuses_another_consensus(run):
    config, truth, infer = run
    join_passes(config, [0])
    for change, problem in (
        ({"consensus": "split"}, r"consensus: there 'vote', now 'split'"),
        ({"passes": 2}, r"was made with inference\.passes 3, now it is 2\. Delete"),
    ):
        with pytest.raises(StageError, match=problem):
            assemble(changed(config, **change))
    shutil.rmtree(infer / "pass-1")
    filled(infer, 1, truth, checkpoint_sha256="of other weights")
    with pytest.raises(StageError, match="was joined from another pass 1 than the one that is there"):
        assemble(config)
    shutil.rmtree(infer / "pass-1")
    filled(infer, 1, truth, inference={"segment_threshold": 0.3})
    with pytest.raises(StageError, match=r"Pass 1 .*segment_threshold: there 0\.3"):
        assemble(config)
    for number in range(3):
        shutil.rmtree(infer / f"pass-{number}")
    assemble(config)


def test_a_box_alone_has_no_passes(capsys):
    with pytest.raises(SystemExit):
        main(["infer", "--config", "c.yaml", "--image", "i.h5:image", "--pass", "1"])
    assert "--pass goes with --tile" in capsys.readouterr().err
