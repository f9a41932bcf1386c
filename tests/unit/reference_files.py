"""Files as google/ffn writes them, made with numpy and Python's own pickler, for tests of reading."""

import io
import json
import pickle
import sys
import types
import zipfile
from collections import namedtuple
from contextlib import contextmanager

import numpy as np

OriginInfo = namedtuple("OriginInfo", ["start_zyx", "iters", "walltime_sec"])
LABELS = np.zeros((6, 7, 8), np.uint8)
LABELS[:, :3], LABELS[2:, 4:6], LABELS[0, 5, 5] = 1, 2, 3
ORIGINS = {1: ((0, 1, 2), 5, 1.25), 2: ((3, 4, 5), 7, 0.5), 3: ((0, 5, 5), 1, 0.0)}
OVERLAPS = {2: [[1], [4]], 3: [[1, 2], [10, 3]]}
COUNTERS = {"skip_threshold": 343, "inference-time-ms": 304511}
REQUEST = b"\x0a\x04name\x00\xff\x00"


@contextmanager
def record_class(module):
    """The class OriginInfo, importable as `module`.OriginInfo while the block runs."""
    names = [".".join(module.split(".")[: n + 1]) for n in range(module.count(".") + 1)]
    before = {name: sys.modules.get(name) for name in names}
    made = type("OriginInfo", (OriginInfo,), {"__module__": module, "__slots__": ()})
    sys.modules.update({name: types.ModuleType(name) for name in names if before[name] is None})
    sys.modules[module].OriginInfo = made
    try:
        yield made
    finally:
        for name, old in before.items():
            if old is None:
                del sys.modules[name]


def pickled(value, protocol=4):
    """A 0-d object array around `value`, pickled as numpy.save does."""
    array = np.empty((), object)
    array[()] = value
    return pickle.dumps(array, protocol)


def object_member(stream):
    """An .npy file of one object with the given pickle."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "|O", "fortran_order": False, "shape": ()})
    return file.getvalue() + stream


def array_member(values):
    file = io.BytesIO()
    np.save(file, values, allow_pickle=False)
    return file.getvalue()


def origins_member(module="ffn.inference.storage", protocol=4, start=tuple):
    with record_class(module) as record:
        origins = {number: record(start(seed), fovs, seconds) for number, (seed, fovs, seconds) in ORIGINS.items()}
        return object_member(pickled(origins, protocol))


def members(**changed):
    """All members of a whole file by key; those given as None are left out."""
    whole = {
        "segmentation": array_member(LABELS),
        "origins": origins_member(),
        "overlaps": object_member(pickled({number: np.array(table) for number, table in OVERLAPS.items()})),
        "counters": array_member(np.array(json.dumps(COUNTERS))),
        "request": array_member(np.array(REQUEST)),
        **changed,
    }
    return {key: member for key, member in whole.items() if member is not None}


def write_file(path, **changed):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for key, member in members(**changed).items():
            archive.writestr(f"{key}.npy", member)
    return path
