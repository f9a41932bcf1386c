"""Result files of google/ffn: whatever a file holds, it is read as numbers or refused, and nothing is executed."""

import ast
import os
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import reference_files as theirs

import ffn
from ffn.cli import main
from ffn.errors import ExchangeError
from ffn.exchange import archive
from ffn.exchange.results import Origin, read_probability, read_result
from ffn.exchange.stream import MAX_BYTES

ORIGINS = {number: Origin(*parts) for number, parts in theirs.ORIGINS.items()}
OVERLAPS = {2: [(1, 4)], 3: [(1, 10), (2, 3)]}


def refused(path):
    """The message with which a file is refused: one sentence or two, without a line break, naming the file."""
    with pytest.raises(ExchangeError) as caught:
        read_result(path)
    text = str(caught.value)
    assert str(path) in text
    assert "\n" not in text
    assert text.endswith(".")
    return text


# --- whole files


def test_a_whole_file(tmp_path):
    labels, facts = read_result(theirs.write_file(tmp_path / "seg-0_0_0.npz"))
    np.testing.assert_array_equal(labels, theirs.LABELS)
    assert labels.dtype == np.uint8
    assert facts.origins == ORIGINS
    assert facts.overlaps == OVERLAPS
    assert facts.counters == theirs.COUNTERS
    assert facts.request == theirs.REQUEST


def test_a_file_of_numpy(tmp_path):
    with theirs.record_class("ffn.inference.storage") as record:
        origins = {number: record(*parts) for number, parts in theirs.ORIGINS.items()}
        np.savez_compressed(
            tmp_path / "a.npz",
            segmentation=theirs.LABELS,
            origins=origins,
            counters='{"fovs": 3}',
            request=b"",
            overlaps={},
        )
    labels, facts = read_result(tmp_path / "a.npz")
    np.testing.assert_array_equal(labels, theirs.LABELS)
    assert (facts.origins, facts.overlaps, facts.counters, facts.request) == (ORIGINS, {}, {"fovs": 3}, b"")


@pytest.mark.parametrize("protocol", range(2, 5))
@pytest.mark.parametrize(
    "module",
    ["ffn.inference.storage", "google3.research.neuromancer.segmentation.ffn.storage", "storage"],
)
def test_records_of_any_module_and_protocol(tmp_path, module, protocol):
    member = theirs.origins_member(module, protocol)
    assert read_result(theirs.write_file(tmp_path / "a.npz", origins=member))[1].origins == ORIGINS


@pytest.mark.parametrize("protocol", range(2, 5))
@pytest.mark.parametrize(
    "start",
    [
        list,
        lambda seed: np.array(seed, np.int64),
        lambda seed: np.array(seed, ">i4"),
        lambda seed: tuple(np.int64(n) for n in seed),
        lambda seed: tuple(np.uint16(n) for n in seed),
    ],
)
def test_starts_may_be_numbers_of_numpy(tmp_path, start, protocol):
    member = theirs.origins_member(protocol=protocol, start=start)
    assert read_result(theirs.write_file(tmp_path / "a.npz", origins=member))[1].origins == ORIGINS


def python2_stream():
    """As numpy under Python 2 wrote it: texts for bytes, the old names."""
    dtype = b"cnumpy\ndtype\n(U\x02O8K\x00K\x01tR(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK?tb"
    integer = b"cnumpy\ndtype\n(U\x02i8K\x00K\x01tR(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    scalar = b"cnumpy.core.multiarray\nscalar\n(" + integer + b"U\x08" + struct.pack("<q", -300) + b"tR"
    record = b"cgoogle3.storage\nOriginInfo\n(" + scalar + b"K\x02K\x03\x87K\x07G" + struct.pack(">d", 1.5) + b"t\x81"
    array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tU\x01btR(K\x01)" + dtype + b"\x89]"
    return b"\x80\x02" + array + b"}K\x09" + record + b"satb."


def test_streams_of_python_2(tmp_path):
    path = theirs.write_file(tmp_path / "a.npz", origins=theirs.object_member(python2_stream()))
    assert read_result(path)[1].origins == {9: Origin((-300, 2, 3), 7, 1.5)}


def test_the_python_2_stream_of_this_test_is_a_real_one():
    with theirs.record_class("google3.storage"):
        origins = pickle.loads(python2_stream(), encoding="latin1").item()
    assert origins == {9: ((-300, 2, 3), 7, 1.5)}


@pytest.mark.parametrize(
    "overlaps",
    [
        {2: [[1], [4]], 3: [[1, 2], [10, 3]]},
        {2: np.array([[1], [4]], np.int32), 3: np.asfortranarray([[1, 2], [10, 3]])},
        {2: [np.array([1], np.int32), np.array([4])], np.int64(3): (np.array([1, 2]), [10, np.int64(3)])},
    ],
)
def test_overlaps_in_all_their_forms(tmp_path, overlaps):
    member = theirs.object_member(theirs.pickled(overlaps))
    assert read_result(theirs.write_file(tmp_path / "a.npz", overlaps=member))[1].overlaps == OVERLAPS


@pytest.mark.parametrize("counters", [np.array('{"a": 1}'), np.array(b'{"a": 1}'), np.array('{"a": 1}', ">U8")])
def test_counters_are_text_or_bytes(tmp_path, counters):
    path = theirs.write_file(tmp_path / "a.npz", counters=theirs.array_member(counters))
    assert read_result(path)[1].counters == {"a": 1}


def test_only_the_segmentation_is_needed(tmp_path):
    path = theirs.write_file(tmp_path / "a.npz", origins=None, overlaps=None, counters=None, request=None)
    labels, facts = read_result(path)
    np.testing.assert_array_equal(labels, theirs.LABELS)
    assert (facts.origins, facts.overlaps, facts.counters, facts.request) == ({}, {}, {}, b"")
    assert "no member segmentation; it holds origins.npy" in refused(
        theirs.write_file(tmp_path / "b.npz", segmentation=None)
    )


@pytest.mark.parametrize("kind", ["u1", "<u2", ">u2", "u4", "u8", "<i4", ">i8"])
@pytest.mark.parametrize("order", "CF")
def test_ids_of_any_integer_type(tmp_path, kind, order):
    values = np.asarray(theirs.LABELS, dtype=kind, order=order)
    labels, _ = read_result(theirs.write_file(tmp_path / "a.npz", segmentation=theirs.array_member(values)))
    np.testing.assert_array_equal(labels, theirs.LABELS)
    assert labels.dtype.kind == "u"
    assert labels.dtype.isnative
    assert labels.flags.c_contiguous


# --- nothing is executed


class Call:
    """Pickled as the call of anything."""

    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        return self.call


def harmful(folder):
    """What would create a file in `folder` when loaded, and the name in the message."""
    made = folder / "made"
    touch = f"touch {made}"
    return {
        "os.system": Call(os.system, (touch,)),
        "eval": Call(eval, (f"open({str(made)!r}, 'w')",)),
        "exec": Call(exec, (f"open({str(made)!r}, 'w')",)),
        "open": Call(open, (str(made), "w")),
        "getattr": Call(getattr, (Call(__import__, ("os",)), "system")),
        "numpy.load": Call(np.load, (str(made),)),
        "numpy.memmap": Call(np.memmap, (str(made), np.uint8, "w+", 0, (1,))),
        "as a state": Call(np.ndarray, ((1,),), Call(os.system, (touch,))),
        "as a key": {Call(os.system, (touch,)): 1},
        "in a list": [[Call(os.system, (touch,))]],
        "as a nested array": np.array([Call(os.system, (touch,))], object),
    }


HARMFUL = tuple(harmful(Path()))


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("key", ["origins", "overlaps"])
@pytest.mark.parametrize("what", HARMFUL)
def test_nothing_is_called(tmp_path, what, key, protocol):
    stream = theirs.pickled({1: harmful(tmp_path)[what]}, protocol)
    path = theirs.write_file(tmp_path / "a.npz", **{key: theirs.object_member(stream)})
    text = refused(path)
    assert "refused" in text or "not what google/ffn writes" in text
    assert list(tmp_path.iterdir()) == [path]


def test_the_harmful_streams_of_these_tests_do_harm(tmp_path):
    for what in ("os.system", "open", "as a state", "as a nested array"):
        try:
            pickle.loads(theirs.pickled({1: harmful(tmp_path)[what]}))
        except TypeError:
            assert what == "as a state"
        assert (tmp_path / "made").exists()
        (tmp_path / "made").unlink()


def test_the_refused_name_is_told(tmp_path):
    stream = theirs.pickled(harmful(tmp_path)["os.system"])
    path = theirs.write_file(tmp_path / "a.npz", origins=theirs.object_member(stream))
    assert f"the Python object {os.system.__module__}.system; refused" in refused(path)


def test_a_name_cannot_write_to_the_terminal(tmp_path):
    stream = b"\x80\x04\x8c\x02os\x8c\x0b\x1b[2J\nsystem\x93."
    path = theirs.write_file(tmp_path / "a.npz", origins=theirs.object_member(stream))
    assert r"os.\x1b[2J\nsystem" in refused(path)


@pytest.mark.parametrize("seen", ["os.system", "eval"])
def test_the_command_says_one_sentence(tmp_path, capsys, seen):
    stream = theirs.pickled({1: harmful(tmp_path)[seen]})
    path = theirs.write_file(tmp_path / "a.npz", origins=theirs.object_member(stream))
    assert main(["import-segmentation", str(path), "--output", str(tmp_path / "out")]) == 2
    text = capsys.readouterr().err
    assert text.startswith(f"ffn: error: {path}, member origins, asks to load the Python object ")
    assert text.count("\n") == 1
    assert "Traceback" not in text
    assert list(tmp_path.iterdir()) == [path]


RECONSTRUCT = b"cnumpy.core.multiarray\n_reconstruct\n"
SCALAR = b"cnumpy.core.multiarray\nscalar\n"
DTYPE = b"cnumpy\ndtype\n"


@pytest.mark.parametrize(
    "value",
    [
        RECONSTRUCT + b"(cnumpy\nndarray\nJ\xff\xff\xff\x7f\x85C\x01btR",
        RECONSTRUCT + b"(tR",
        RECONSTRUCT,
        SCALAR + b"(" + DTYPE + b"(X\x01\x00\x00\x00Otr" + b"C\x08AAAAAAAAtR",
        SCALAR + b"(" + DTYPE + b"(X\x02\x00\x00\x00O8tRC\x08AAAAAAAAtR",
        SCALAR + b"(" + DTYPE + b"(X\x02\x00\x00\x00i8tRC\x07AAAAAAAtR",
        SCALAR + b"(" + DTYPE + b"(X\x06\x00\x00\x0099999atRC\x07AAAAAAAtR",
        SCALAR + b"(NNtR",
        DTYPE + b"(X\x02\x00\x00\x00i8tR",
        b"cnumpy\nndarray\n(J\xff\xff\xff\x7f\x85tR",
        b"c_codecs\nencode\n(X\x01\x00\x00\x00aX\x03\x00\x00\x00hextR",
        b"cany.where\nOriginInfo\n)\x81",
        b"cany.where\nOriginInfo\n((K\x00K\x01tK\x01K\x01t\x81",
        b"cany.where\nOriginInfo\n((K\x00K\x01G\x3f\xf0\x00\x00\x00\x00\x00\x00tK\x01K\x01t\x81",
        b"cany.where\nOriginInfo\n((K\x00K\x01K\x01tK\x01X\x01\x00\x00\x00xt\x81",
        b"N",
        b"]",
        b"(K\x01K\x02K\x03t",
    ],
)
def test_allowed_names_with_bad_arguments(tmp_path, value):
    dtype = DTYPE + b"(X\x02\x00\x00\x00O8tR"
    array = RECONSTRUCT + b"(cnumpy\nndarray\n(K\x00tC\x01btR(K\x01)" + dtype + b"\x89]}K\x01" + value + b"satb."
    text = refused(theirs.write_file(tmp_path / "a.npz", origins=theirs.object_member(b"\x80\x03" + array)))
    assert "member origins, is not" in text


@pytest.mark.parametrize(
    ("stream", "text"),
    [
        (b"", "not a whole pickle"),
        (b"\x80\x04.", "not a whole pickle"),
        (b"\x80\x04K\x01", "not a whole pickle"),
        (b"\x80\x04\x85.", "not a whole pickle"),
        (b"\x80\x04t.", "not a whole pickle"),
        (b"\x80\x04h\x07.", "not a whole pickle"),
        (b"\x80\x04K\x01K\x02.", "not a whole pickle"),
        (b"\x80\x04K\x01.", "not what google/ffn writes"),
        (b"\x80\x04]b.", "not a whole pickle"),
        (b"\x80\x04}(K\x01u.", "not a whole pickle"),
        (b"\x80\x04K\x01K\x01K\x01s.", "not a whole pickle"),
        (b"\x80\x04})))\x86s.", "not a whole pickle"),
        (b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.", "not a whole pickle"),
        (b"P1\n.", "the pickle instruction PERSID"),
        (b"\x80\x02\x82\x01.", "the pickle instruction EXT1"),
        (b"(cos\nsystem\no.", "os.system; refused"),
        (b"(ios\nsystem\n.", "the pickle instruction INST"),
        (b"\x80\x05\x96\x01\x00\x00\x00\x00\x00\x00\x00a.", "the pickle instruction BYTEARRAY8"),
    ],
)
def test_broken_streams(tmp_path, stream, text):
    path = theirs.write_file(tmp_path / "a.npz", origins=theirs.object_member(stream))
    assert text in refused(path)


def test_a_nest_that_would_take_for_ever_to_hash(tmp_path):
    # Each level is a pair of the one before, twice: 2^60 places to visit.
    levels = b"".join(b"h" + bytes([n]) + b"h" + bytes([n]) + b"\x86q" + bytes([n + 1]) for n in range(60))
    stream = b"\x80\x02)q\x00" + levels + b"}h" + bytes([60]) + b"K\x01s."
    path = theirs.write_file(tmp_path / "a.npz", origins=theirs.object_member(stream))
    assert "not a whole pickle" in refused(path)


def test_a_list_that_serves_many_objects(tmp_path):
    """A few kilobytes that would become gigabytes: each object ran into all that one long list names."""
    row = [1] * 50_000
    overlaps = theirs.object_member(theirs.pickled({number: [row, row] for number in range(1, 101)}))
    assert "more than 2097152 overlaps" in refused(theirs.write_file(tmp_path / "a.npz", overlaps=overlaps))


def test_a_list_that_holds_itself(tmp_path):
    path = theirs.write_file(tmp_path / "a.npz", origins=theirs.object_member(b"\x80\x04]\x94h\x00a."))
    assert "not what google/ffn writes" in refused(path)


# --- files that are not what they say


def test_no_file_and_no_zip(tmp_path):
    assert "no file" in refused(tmp_path / "nowhere.npz")
    path = tmp_path / "a.npz"
    for content in (b"", b"PK\x03\x04", b"\x93NUMPY", os.urandom(1000)):
        path.write_bytes(content)
        assert "no .npz file, or it is cut off" in refused(path)


def test_cut_anywhere(tmp_path):
    whole = theirs.write_file(tmp_path / "whole.npz").read_bytes()
    path = tmp_path / "a.npz"
    for length in range(0, len(whole), 23):
        path.write_bytes(whole[:length])
        refused(path)


def test_a_member_cut_or_with_flipped_bits(tmp_path):
    member = theirs.array_member(theirs.LABELS)
    assert "shape (6, 7, 8) and type uint8, 336 bytes, but 335 are there" in refused(
        theirs.write_file(tmp_path / "a.npz", segmentation=member[:-1])
    )
    assert "336 bytes, but 337 are there" in refused(theirs.write_file(tmp_path / "b.npz", segmentation=member + b"\0"))
    path = theirs.write_file(tmp_path / "c.npz")
    content = bytearray(path.read_bytes())
    content[60] ^= 255
    path.write_bytes(content)
    assert "damaged" in refused(path)


def npy(header):
    text = header.encode("latin1")
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


@pytest.mark.parametrize(
    ("member", "text"),
    [
        (b"", "damaged"),
        (b"\x93NUMPY\x09\x00", "damaged"),
        (npy("__import__('os').system('true')\n"), "damaged (a header that is none)"),
        (npy("(" * 5000 + "\n"), "damaged (a header that is none)"),
        (npy("{[]: 1}\n"), "damaged (a header that is none)"),
        (npy("{'descr': '|u1', 'fortran_order': False, 'shape': (-1, 2, 2)}\n"), "damaged"),
        (npy("{'descr': '|u1', 'fortran_order': False, 'shape': (100000, 100000, 100000)}\n"), "10" + "0" * 14),
        (npy("{'descr': '|u1', 'fortran_order': False, 'shape': (0, 1180591620717411303424, 1)}\n"), "damaged"),
        (npy(f"{{'descr': '|u1', 'fortran_order': False, 'shape': {(1,) * 70}}}\n") + b"\0", "damaged"),
        (npy("{'descr': '|O', 'fortran_order': False, 'shape': (1, 1, 1)}\n"), "expected numbers"),
        (npy("{'descr': '|V99', 'fortran_order': False, 'shape': (1, 1, 1)}\n"), "expected numbers"),
        (npy("{'descr': [('a', '<u8', (999,))], 'fortran_order': False, 'shape': (1,)}\n"), "expected numbers"),
        (theirs.array_member(np.zeros((2, 2, 2), np.float32)), "expected whole numbers in three dimensions"),
        (theirs.array_member(np.zeros((2, 2), np.uint8)), "expected whole numbers in three dimensions"),
        (theirs.array_member(np.zeros((2, 0, 2), np.uint8)), "expected whole numbers in three dimensions"),
        (theirs.array_member(np.full((2, 2, 2), -1)), "negative ids"),
        (theirs.array_member(np.array("text")), "expected numbers"),
    ],
)
def test_segmentations_that_are_none(tmp_path, member, text):
    assert text in refused(theirs.write_file(tmp_path / "a.npz", segmentation=member))


@pytest.mark.parametrize(
    ("key", "member", "text"),
    [
        ("origins", theirs.array_member(theirs.LABELS), "expected one object"),
        ("overlaps", theirs.array_member(np.array("{}")), "expected one object"),
        ("counters", theirs.object_member(theirs.pickled("{}")), "expected one text"),
        ("counters", theirs.array_member(np.array("[1]")), "not JSON of names and numbers"),
        ("counters", theirs.array_member(np.array('{"a": "b"}')), "not JSON of names and numbers"),
        ("counters", theirs.array_member(np.array("[" * 100_000)), "not JSON of names and numbers"),
        ("counters", npy("{'descr': '<U1', 'fortran_order': False, 'shape': ()}\n") + b"\xff" * 4, "damaged"),
        ("request", theirs.array_member(np.array([b"a", b"b"])), "expected one text"),
    ],
)
def test_other_members_that_are_not_what_they_should_be(tmp_path, key, member, text):
    assert text in refused(theirs.write_file(tmp_path / "a.npz", **{key: member}))


def test_a_member_that_unpacks_to_more_than_it_can(tmp_path):
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("segmentation.npy", theirs.array_member(theirs.LABELS))
        file.infolist()[0].file_size = 10**9
    assert "made to do harm" in refused(path)


def test_more_than_the_machine_has(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "memory_bytes", lambda: 300)
    assert "but this machine has" in refused(theirs.write_file(tmp_path / "a.npz"))


def test_the_machine_has_memory():
    assert 2**28 < archive.memory_bytes() < 2**50


def test_a_pickle_of_more_than_any_sub_volume_needs(tmp_path):
    member = theirs.object_member(b"\x80\x04" + b"]" * MAX_BYTES + b".")
    assert f"no more than {MAX_BYTES} are read" in refused(theirs.write_file(tmp_path / "a.npz", origins=member))


def test_other_ways_of_packing_are_refused(tmp_path):
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as file:
        file.writestr("segmentation.npy", theirs.array_member(theirs.LABELS))
    assert "in a way that numpy never uses" in refused(path)


def test_names_of_members_mean_nothing(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    path = theirs.write_file(folder / "a.npz", **{"../../escaped": b"x", "/absolute": b"y", "__init__": b"z"})
    assert main(["import-segmentation", str(path), "--output", str(tmp_path / "out")]) == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in", "out"]
    assert list(folder.iterdir()) == [path]


@pytest.mark.parametrize("packed", [False, True])
def test_random_damage_is_never_a_bug(tmp_path, packed):
    random = np.random.default_rng(0)
    origins = theirs.origins_member(protocol=2, start=np.array)
    whole = theirs.write_file(tmp_path / "whole.npz").read_bytes()
    path, refusals = tmp_path / "a.npz", 0
    for _ in range(400):
        content = bytearray(whole if packed else origins)
        for at in random.integers(0 if packed else 100, len(content), random.integers(1, 6)):
            content[at] = random.integers(256)
        if packed:
            path.write_bytes(content)
        else:
            theirs.write_file(path, origins=bytes(content))
        try:
            read_result(path)
        except ExchangeError:
            refusals += 1
    assert refusals > 200


# --- object maps


def test_object_maps(tmp_path):
    q = np.random.default_rng(0).integers(0, 256, theirs.LABELS.shape, dtype=np.uint8)
    np.savez_compressed(tmp_path / "a.npz", qprob=q)
    np.testing.assert_array_equal(read_probability(tmp_path / "a.npz", q.shape), q)
    with pytest.raises(ExchangeError, match=r"shape \(6, 7, 8\) and type uint8; expected \(1, 2, 3\)"):
        read_probability(tmp_path / "a.npz", (1, 2, 3))
    np.savez_compressed(tmp_path / "b.npz", qprob=q.astype(np.float32))
    with pytest.raises(ExchangeError, match="type float32; expected"):
        read_probability(tmp_path / "b.npz", q.shape)
    with pytest.raises(ExchangeError, match="no member qprob"):
        read_probability(theirs.write_file(tmp_path / "c.npz"), q.shape)


# --- the package as a whole


def test_no_module_loads_pickles_or_evaluates_text():
    package = Path(ffn.__file__).parent
    for path in package.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            assert not {"pickle", "_pickle", "cPickle", "dill", "shelve", "marshal"} & set(names), path
            if isinstance(node, ast.Call):
                assert not (isinstance(node.func, ast.Name) and node.func.id in ("eval", "exec")), path
                keywords = {word.arg: word.value for word in node.keywords}
                loads = isinstance(node.func, ast.Attribute) and ast.unparse(node.func) == "np.load"
                assert not loads or ast.unparse(keywords["allow_pickle"]) == "False", path
