"""What numpy writes into a pickle, put together from plain numbers: array types, scalars, arrays of one of them.

numpy's own functions for this take what a file gives them on trust, object types and sizes included. Here a type is one
of a few kinds of number, and an array has exactly as many bytes as its shape needs. Names are those of numpy 1 and 2.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ffn.exchange.stream import Made, Name

_CORES = ("numpy.core", "numpy._core")
_ARRAY = frozenset(Name(f"{core}.multiarray", "_reconstruct") for core in _CORES)
_SCALAR = frozenset(Name(f"{core}.multiarray", "scalar") for core in _CORES)
_DTYPE = Name("numpy", "dtype")
# Python 3 writes bytes so in protocols that have none.
_ENCODE = Name("_codecs", "encode")
NAMES = _ARRAY | _SCALAR | {_DTYPE, _ENCODE, Name("numpy", "ndarray")}
"""All names that numbers need."""

_TYPES = frozenset(f"{kind}{size}" for kind in "iu" for size in (1, 2, 4, 8)) | {"f4", "f8"}


class UnexpectedValueError(Exception):
    """A part of a pickle that is something else than what its place needs."""


def whole(value: Any) -> int:
    """A whole number, plain or one of numpy's. Raises UnexpectedValueError for anything else."""
    found = plain(value)
    if isinstance(found, bool) or not isinstance(found, int):
        raise UnexpectedValueError("something else where a whole number is expected")
    return found


def finite(value: Any) -> float:
    """A finite number, plain or one of numpy's. Raises UnexpectedValueError for anything else."""
    found = plain(value)
    if isinstance(found, bool) or not isinstance(found, int | float) or not math.isfinite(found):
        raise UnexpectedValueError("something else where a number is expected")
    return float(found)


def plain(value: Any) -> Any:
    """`value`, where it is one of numpy's scalars as a number, where an array as a list (of lists)."""
    if not isinstance(value, Made):
        return value
    if value.maker in _SCALAR:
        dtype, content = value.args
        return _values(dtype, content, ()).item()
    shape, dtype, fortran, content = _array_state(value)
    return _values(dtype, content, shape, "F" if fortran else "C").tolist()


def only_object(value: Any) -> Any:
    """What a 0-d object array holds. Raises UnexpectedValueError where `value` is none."""
    shape, dtype, _, content = _array_state(value)
    if shape != () or _type_code(dtype) not in ("O", "O4", "O8") or not isinstance(content, list) or len(content) != 1:
        raise UnexpectedValueError("something else where one object is expected")
    return content[0]


def _array_state(value: Any) -> tuple[tuple[int, ...], Any, Any, Any]:
    if not isinstance(value, Made) or value.maker not in _ARRAY or not isinstance(value.state, tuple):
        raise UnexpectedValueError("something else where an array is expected")
    _, shape, dtype, fortran, content = value.state
    if not isinstance(shape, tuple) or not all(isinstance(n, int) and n >= 0 for n in shape):
        raise UnexpectedValueError("an array without a shape")
    return shape, dtype, fortran, content


def _values(dtype: Any, content: Any, shape: tuple[int, ...], order: Any = "C") -> NDArray[Any]:
    kind, data = _number_type(dtype), _bytes(content)
    if math.prod(shape) * kind.itemsize != len(data):
        raise UnexpectedValueError("an array whose values do not fit its shape")
    return np.frombuffer(data, kind).reshape(shape, order=order)


def _number_type(value: Any) -> np.dtype[Any]:
    code = _type_code(value)
    if code not in _TYPES:
        raise UnexpectedValueError("an array that does not hold numbers")
    order = value.state[1] if isinstance(value.state, tuple) and len(value.state) > 1 else "<"
    if order not in ("<", ">", "|"):
        raise UnexpectedValueError("numbers in an unknown byte order")
    return np.dtype(f">{code}" if order == ">" else f"<{code}")


def _type_code(value: Any) -> str:
    if not isinstance(value, Made) or value.maker != _DTYPE or not value.args or not isinstance(value.args[0], str):
        raise UnexpectedValueError("something else where a type is expected")
    return value.args[0]


def _bytes(value: Any) -> bytes:
    if isinstance(value, Made) and value.maker == _ENCODE:
        value, encoding = value.args
        if encoding != "latin1":
            raise UnexpectedValueError("bytes in an unknown encoding")
    # Python 2 wrote bytes as text.
    found = value.encode("latin1") if isinstance(value, str) else value
    if not isinstance(found, bytes):
        raise UnexpectedValueError("something else where bytes are expected")
    return found
