"""Python objects as google/ffn reads them back: pickles written from numbers, without the classes they name.

google/ffn loads its records under the name `ffn.inference.storage.OriginInfo`. No such class exists here (this package
happens to be called `ffn` as well), so Python's pickler, which checks every name, cannot write them. The few
instructions that are needed are written one by one instead, in protocol 3, under names that numpy 1 and 2 both know.
"""

import struct
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

_PROTOCOL, _STOP = b"\x80\x03", b"."
_MARK, _TUPLE, _TUPLE1, _TUPLE3, _EMPTY_TUPLE = b"(", b"t", b"\x85", b"\x87", b")"
_REDUCE, _NEWOBJ, _BUILD = b"R", b"\x81", b"b"
_EMPTY_LIST, _APPEND, _EMPTY_DICT, _SETITEMS = b"]", b"a", b"}", b"u"
_NONE, _TRUE, _FALSE = b"N", b"\x88", b"\x89"
_ITEMS_AT_ONCE = 1000

_RECONSTRUCT = b"cnumpy.core.multiarray\n_reconstruct\n"
_NDARRAY = b"cnumpy\nndarray\n"
_DTYPE = b"cnumpy\ndtype\n"
_ORIGIN = b"cffn.inference.storage\nOriginInfo\n"


def origins_pickle(origins: Mapping[int, tuple[Sequence[int], int, float]]) -> bytes:
    """The pickle of a 0-d object array that holds {id: OriginInfo(start_zyx, iters, walltime_sec)}."""
    return _pickled_object(
        (number, _ORIGIN + _tuple_of_ints(start) + _whole(fovs) + _real(seconds) + _TUPLE3 + _NEWOBJ)
        for number, (start, fovs, seconds) in origins.items()
    )


def overlaps_pickle(overlaps: Mapping[int, Sequence[tuple[int, int]]]) -> bytes:
    """The pickle of a 0-d object array that holds {id: int64 array [[earlier ids], [voxels]]}."""
    return _pickled_object((number, _table(pairs)) for number, pairs in overlaps.items())


def _pickled_object(items: Iterable[tuple[int, bytes]]) -> bytes:
    content = _EMPTY_LIST + _dictionary(list(items)) + _APPEND
    return _PROTOCOL + _array(b"O8", b"|", 63, _EMPTY_TUPLE, content) + _STOP


def _dictionary(items: list[tuple[int, bytes]]) -> bytes:
    parts = [_EMPTY_DICT]
    for start in range(0, len(items), _ITEMS_AT_ONCE):
        parts.append(_MARK)
        parts += [_whole(number) + value for number, value in items[start : start + _ITEMS_AT_ONCE]]
        parts.append(_SETITEMS)
    return b"".join(parts)


def _table(pairs: Sequence[tuple[int, int]]) -> bytes:
    values = np.array(pairs, "<i8").reshape(-1, 2).T
    data = values.tobytes()
    return _array(b"i8", b"<", 0, _tuple_of_ints(values.shape), b"B" + struct.pack("<I", len(data)) + data)


def _array(code: bytes, order: bytes, flags: int, shape: bytes, content: bytes) -> bytes:
    """An array: made empty, then given its state (version, shape, type, Fortran order, content)."""
    empty = _RECONSTRUCT + _NDARRAY + _whole(0) + _TUPLE1 + b"C\x01b" + _TUPLE3 + _REDUCE
    kind_state = _whole(3) + _text(order) + _NONE * 3 + _whole(-1) * 2 + _whole(flags)
    kind = _DTYPE + _text(code) + _FALSE + _TRUE + _TUPLE3 + _REDUCE + _MARK + kind_state + _TUPLE + _BUILD
    return empty + _MARK + _whole(1) + shape + kind + _FALSE + content + _TUPLE + _BUILD


def _tuple_of_ints(values: Sequence[int]) -> bytes:
    return _MARK + b"".join(map(_whole, values)) + _TUPLE


def _text(value: bytes) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value


def _whole(value: int) -> bytes:
    if -(2**31) <= value < 2**31:
        return b"J" + struct.pack("<i", value)
    data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + struct.pack("<B", len(data)) + data


def _real(value: float) -> bytes:
    return b"G" + struct.pack(">d", value)
