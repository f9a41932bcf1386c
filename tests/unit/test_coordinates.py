"""Balanced coordinates: what is on disk, and the stream that is drawn from it."""

from collections import Counter

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ffn.cli import main
from ffn.errors import DataError, GeometryError
from ffn.prepare import coordinates
from ffn.prepare.coordinates import CoordinateStream, write_coordinates


def some_partitions(shape=(40, 9, 11), seed=0) -> np.ndarray:
    return np.random.default_rng(seed).choice([0, 1, 3, 13, 255], shape, p=[0.02, 0.1, 0.3, 0.5, 0.08]).astype(np.uint8)


@given(
    hnp.arrays(np.uint8, st.tuples(*[st.integers(1, 6)] * 3), elements=st.sampled_from([0, 1, 2, 13, 255])),
    st.tuples(*[st.integers(0, 1)] * 3),
    st.integers(0, 5),
    st.integers(1, 4),
)
@settings(deadline=None, max_examples=60)
def test_stream_is_balanced_and_cyclic_and_lanes_share_it(tmp_path_factory, partitions, margin, seed, lanes):
    path = tmp_path_factory.mktemp("c") / "coordinates.h5"
    inner = tuple(slice(m, n - m) for m, n in zip(margin, partitions.shape, strict=True))
    core = partitions[inner]
    if core.size == 0:
        with pytest.raises(GeometryError):
            write_coordinates(partitions, path, margin, seed)
        return
    members = {
        int(c): [tuple(p) for p in (np.argwhere(core == c) + margin).tolist()] for c in np.unique(core) if c != 255
    }
    if not members:
        with pytest.raises(DataError):
            write_coordinates(partitions, path, margin, seed)
        return
    assert write_coordinates(partitions, path, margin, seed) == {c: len(m) for c, m in members.items()}
    largest = max(len(m) for m in members.values())
    with CoordinateStream(path, seed) as stream:
        assert stream.epoch == len(members) * largest
        drawn = [stream.draw_with_class(i) for i in range(stream.epoch)]
    by_class = {c: [voxel for voxel, value in drawn if value == c] for c in members}
    for value, voxels in members.items():
        assert len(by_class[value]) == largest
        first_round = by_class[value][: len(voxels)]
        assert sorted(first_round) == sorted(voxels)
        assert by_class[value] == [first_round[i % len(voxels)] for i in range(largest)]
    shared: list = [None] * len(drawn)
    for lane in range(lanes):
        with CoordinateStream(path, seed, lane, lanes) as stream:
            for i in range((len(drawn) - lane + lanes - 1) // lanes):
                shared[i * lanes + lane] = stream.draw_with_class(i)
    assert shared == drawn


def test_each_block_of_draws_has_every_class_once_in_varying_order(tmp_path):
    write_coordinates(some_partitions(), tmp_path / "c.h5")
    with CoordinateStream(tmp_path / "c.h5", 3) as stream:
        orders = [tuple(stream.draw_with_class(4 * b + p)[1] for p in range(4)) for b in range(50)]
    assert all(sorted(order) == [0, 1, 3, 13] for order in orders)
    assert len(set(orders)) > 10


def test_draw_depends_on_the_index_alone(tmp_path, monkeypatch):
    # Tiny read buffers, so that draws back and forth cross them.
    monkeypatch.setattr(coordinates, "_CHUNK", 16)
    write_coordinates(some_partitions(), tmp_path / "c.h5", seed=5)
    with CoordinateStream(tmp_path / "c.h5", 3, 1, 2) as stream:
        forwards = [stream.draw(i) for i in range(500)]
    with CoordinateStream(tmp_path / "c.h5", 3, 1, 2) as stream:
        order = np.random.default_rng(0).permutation(500).tolist()
        assert {i: stream.draw(i) for i in order} == dict(enumerate(forwards))


def test_seeds_change_the_order_only(tmp_path):
    partitions = some_partitions()
    write_coordinates(partitions, tmp_path / "a.h5", seed=1)
    write_coordinates(partitions, tmp_path / "b.h5", seed=2)
    with h5py.File(tmp_path / "a.h5") as a, h5py.File(tmp_path / "b.h5") as b:
        assert set(a) == set(b)
        for name in a:
            assert not np.array_equal(a[name][...], b[name][...])
            np.testing.assert_array_equal(np.sort(a[name][...]), np.sort(b[name][...]))
    with CoordinateStream(tmp_path / "a.h5", 1) as one, CoordinateStream(tmp_path / "a.h5", 2) as other:
        assert [one.draw(i) for i in range(40)] != [other.draw(i) for i in range(40)]


def test_order_within_a_class_is_not_that_of_the_volume(tmp_path):
    write_coordinates(np.ones((8, 8, 8), np.uint8), tmp_path / "c.h5")
    with h5py.File(tmp_path / "c.h5") as file:
        stored = file["class_001"][...].astype(np.int64)
    assert abs(np.corrcoef(stored, np.arange(512))[0, 1]) < 0.2


def test_volumes_of_more_than_2_to_the_32_voxels_keep_exact_coordinates(tmp_path):
    class Huge:
        shape = (2**12, 2**11, 2**10)

        def __getitem__(self, key):
            sizes = [s.stop - s.start for s in key]
            return np.full(sizes, 2, np.uint8)

    margin = (2**11 - 1, 2**10 - 2, 2**9 - 3)
    counts = write_coordinates(Huge(), tmp_path / "c.h5", margin)
    assert counts == {2: 2 * 4 * 6}
    with CoordinateStream(tmp_path / "c.h5", 1) as stream:
        drawn = Counter(stream.draw(i) for i in range(48))
    expected = {(z, y, x) for z in range(2047, 2049) for y in range(1022, 1026) for x in range(509, 515)}
    assert set(drawn) == expected


@pytest.mark.parametrize(("lane", "lanes"), [(2, 2), (-1, 2)])
def test_lane_that_does_not_exist(tmp_path, lane, lanes):
    write_coordinates(some_partitions(), tmp_path / "c.h5")
    with pytest.raises(GeometryError, match="Lane"):
        CoordinateStream(tmp_path / "c.h5", 1, lane, lanes)


def test_wrong_files_are_refused(tmp_path):
    with pytest.raises(DataError, match="ffn coordinates"):
        CoordinateStream(tmp_path / "missing.h5", 1)
    (tmp_path / "text.h5").write_text("no")
    with pytest.raises(DataError, match="ffn coordinates"):
        CoordinateStream(tmp_path / "text.h5", 1)
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["labels"] = np.zeros(3)
    with pytest.raises(DataError, match="no coordinates"):
        CoordinateStream(tmp_path / "other.h5", 1)


def test_failure_leaves_no_file(tmp_path):
    with pytest.raises(DataError, match="no usable coordinate"):
        write_coordinates(np.full((5, 5, 5), 255, np.uint8), tmp_path / "c.h5")
    assert list(tmp_path.iterdir()) == []


def test_command(tmp_path, capsys):
    partitions = some_partitions()
    with h5py.File(tmp_path / "p.h5", "w") as file:
        file["partitions"] = partitions
    output = tmp_path / "c.h5"
    command = ["coordinates", "--partitions", f"{tmp_path}/p.h5:partitions", "--output", str(output)]
    assert main([*command, "--margin", "2,1,0"]) == 0
    with CoordinateStream(output, 1) as stream:
        inner = partitions[2:-2, 1:-1]
        assert sum(stream.counts.values()) == (inner != 255).sum()
    before = output.read_bytes()
    assert main([*command, "--margin", "2,1,0"]) == 0
    assert main([*command, "--margin", "0,0,0"]) == 2
    assert output.read_bytes() == before
    assert main([*command, "--margin", "20,1,0", "--overwrite"]) == 2
    assert output.read_bytes() == before
    assert "margin of 20,1,0" in capsys.readouterr().err
