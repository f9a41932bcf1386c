"""Files for google/ffn: they load there, are the smallest they can be, and never replace anything."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from ffn.errors import ExchangeError, StageError
from ffn.exchange.names import corner_of, file_of, find_result
from ffn.exchange.results import Facts, Origin, read_probability, read_result
from ffn.exchange.write import write_probability, write_result

LABELS = np.random.default_rng(0).integers(0, 4, (70, 5, 6)).astype(np.uint64)
FACTS = Facts(
    origins={1: Origin((0, 1, 2), 5, 1.25), 3: Origin((69, 300, 70_000), 2**40, 0.0), 2: Origin((-1, 0, 0), 0, 1e9)},
    overlaps={2: [(1, 4)], 3: [(1, 10), (2, 2**40)]},
    counters={"fovs": 12, "seconds": 0.5},
    request=b"\x0a\x04name",
)

# What google/ffn's reader does: a class of that name in that module, and numpy's own loader.
READER = """
import sys, types
from collections import namedtuple
for name in ("ffn", "ffn.inference", "ffn.inference.storage"):
    sys.modules[name] = types.ModuleType(name)
OriginInfo = namedtuple("OriginInfo", ["start_zyx", "iters", "walltime_sec"])
OriginInfo.__module__ = "ffn.inference.storage"
sys.modules["ffn.inference.storage"].OriginInfo = OriginInfo
import json, warnings
import numpy as np
warnings.simplefilter("error")
data = np.load(sys.argv[1], allow_pickle=True)
origins, overlaps = data["origins"].item(), data["overlaps"].item()
assert all(type(origin) is OriginInfo and type(origin.start_zyx) is tuple for origin in origins.values())
assert all(table.dtype == np.int64 and table.shape[0] == 2 for table in overlaps.values())
print(json.dumps({
    "origins": sorted([number, *origin] for number, origin in origins.items()),
    "overlaps": sorted([number, table.tolist()] for number, table in overlaps.items()),
    "counters": json.loads(str(data["counters"])),
    "request": data["request"].item().hex(),
    "segmentation": [str(data["segmentation"].dtype), data["segmentation"].tolist()],
}))
"""


def read_by_numpy(path: Path) -> dict:
    command = [sys.executable, "-I", "-c", READER, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_google_ffn_loads_it(tmp_path):
    write_result(tmp_path / "a.npz", LABELS, FACTS)
    assert read_by_numpy(tmp_path / "a.npz") == {
        "origins": [[n, list(o.seed), o.fovs, o.seconds] for n, o in sorted(FACTS.origins.items())],
        "overlaps": [[2, [[1], [4]]], [3, [[1, 2], [10, 2**40]]]],
        "counters": FACTS.counters,
        "request": FACTS.request.hex(),
        "segmentation": ["uint8", LABELS.tolist()],
    }


def test_google_ffn_loads_an_empty_one(tmp_path):
    write_result(tmp_path / "a.npz", np.zeros((2, 3, 4), np.uint64), Facts())
    assert read_by_numpy(tmp_path / "a.npz") == {
        "origins": [],
        "overlaps": [],
        "counters": {},
        "request": "",
        "segmentation": ["uint8", np.zeros((2, 3, 4), int).tolist()],
    }


def test_so_do_we(tmp_path):
    write_result(tmp_path / "a.npz", LABELS, FACTS)
    labels, facts = read_result(tmp_path / "a.npz")
    np.testing.assert_array_equal(labels, LABELS)
    assert facts == FACTS
    write_result(tmp_path / "b.npz", LABELS, Facts())
    assert read_result(tmp_path / "b.npz")[1] == Facts()


def test_many_objects(tmp_path):
    origins = {n: Origin((n, n + 1, n + 2), n, n / 7) for n in range(1, 2502)}
    write_result(tmp_path / "a.npz", LABELS, Facts(origins=origins))
    assert read_result(tmp_path / "a.npz")[1].origins == origins
    assert len(read_by_numpy(tmp_path / "a.npz")["origins"]) == 2501


@pytest.mark.parametrize(
    ("largest", "kind"),
    [(0, "uint8"), (255, "uint8"), (256, "uint16"), (65535, "uint16"), (65536, "uint32"), (2**32 - 1, "uint32")],
)
def test_the_smallest_type_that_holds_the_ids(tmp_path, largest, kind):
    labels = np.zeros((66, 2, 2), np.uint64)
    labels[65, 1, 1] = largest
    write_result(tmp_path / "a.npz", labels, Facts())
    found, _ = read_result(tmp_path / "a.npz")
    assert found.dtype == kind
    np.testing.assert_array_equal(found, labels)


def test_ids_that_do_not_fit_are_refused_and_nothing_is_left(tmp_path):
    with pytest.raises(ExchangeError, match=f"largest id is {2**32}"):
        write_result(tmp_path / "a.npz", np.full((1, 1, 1), 2**32, np.uint64), Facts())
    assert list(tmp_path.iterdir()) == []


def test_object_maps(tmp_path):
    q = np.random.default_rng(1).integers(0, 256, (70, 5, 6), dtype=np.uint8)
    write_probability(tmp_path / "a.prob", q)
    np.testing.assert_array_equal(read_probability(tmp_path / "a.prob", q.shape), q)
    with np.load(tmp_path / "a.prob") as data:
        assert data.files == ["qprob"]
        np.testing.assert_array_equal(data["qprob"], q)


def test_the_same_again_is_fine_and_anything_else_is_refused(tmp_path):
    path = tmp_path / "x" / "a.npz"
    write_result(path, LABELS, FACTS)
    before = path.read_bytes()
    write_result(path, LABELS.astype(np.uint16), FACTS)
    with pytest.raises(StageError, match="exists and holds something else"):
        write_result(path, LABELS, Facts())
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == ["a.npz"]


def test_members_are_packed(tmp_path):
    write_result(tmp_path / "a.npz", np.zeros((64, 64, 64), np.uint8), FACTS)
    with zipfile.ZipFile(tmp_path / "a.npz") as archive:
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_DEFLATED}
    assert (tmp_path / "a.npz").stat().st_size < 4000


# --- names


def test_names_have_x_first():
    path = file_of(Path("out"), (3, 20, 100))
    assert path == Path("out/100/20/seg-100_20_3.npz")
    assert corner_of(path) == (3, 20, 100)
    assert file_of(Path("out"), (3, 20, 100), "prob").name == "seg-100_20_3.prob"
    assert corner_of(Path("sample-training2.npz")) is None
    assert corner_of(Path("seg-1_2.npz")) is None


def test_finding_a_sub_volume(tmp_path):
    with pytest.raises(ExchangeError, match="no sub-volume"):
        find_result(tmp_path, None)
    flat = tmp_path / "seg-100_20_3.npz"
    write_result(flat, LABELS, Facts())
    assert find_result(tmp_path, None) == flat
    assert find_result(tmp_path, (3, 20, 100)) == flat
    nested = file_of(tmp_path, (3, 20, 100))
    write_result(nested, LABELS, Facts())
    assert find_result(tmp_path, (3, 20, 100)) == nested
    write_result(file_of(tmp_path, (0, 0, 7)), LABELS, Facts())
    assert find_result(tmp_path, (0, 0, 7)) == file_of(tmp_path, (0, 0, 7))
    with pytest.raises(ExchangeError, match=r"3 sub-volumes; choose one .* 0,0,7"):
        find_result(tmp_path, None)
    with pytest.raises(ExchangeError, match="no sub-volume with the corner 1,2,3"):
        find_result(tmp_path, (1, 2, 3))
