"""Pickles read as data: the stream is taken apart, and no name in it is looked up, imported or called.

Pickle is a small stack language. Most of its instructions build numbers, texts and containers; GLOBAL names a Python
object, and REDUCE, NEWOBJ and BUILD call it. Here a name becomes a `Name`, a call a `Made` that remembers what would
have been called with what, and every name must be on the caller's list:

    c numpy.core.multiarray scalar   (dtype, b'...')   R      ->      Made(Name(...), args=(dtype, b'...'))

What such calls mean is decided by `ffn.exchange.numbers`.
"""

import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ffn.errors import ExchangeError

MAX_BYTES = 32 * 2**20
"""The largest stream. An object's origin takes 40 to 100 bytes; each byte can cost a reader 64 bytes of memory."""


@dataclass(frozen=True)
class Name:
    """A Python object that a stream names."""

    module: str
    name: str

    def __str__(self) -> str:
        # It comes from a file: no line breaks, no control characters, no end of it.
        return ascii(f"{self.module}.{self.name}")[1:-1][:100]


@dataclass(eq=False)
class Made:
    """What a stream asks to make: `maker(*args)`, then given `state`."""

    maker: Name
    args: tuple[Any, ...]
    state: Any = None


class _Mark:
    """A place on the stack."""


def read_stream(data: bytes, allowed: Callable[[Name], bool], where: str) -> Any:
    """The value that a pickle of protocol 0 to 4 describes: numbers, texts, containers, `Name` and `Made`.

    Args:
        data: The whole stream.
        allowed: Which names it may hold.
        where: What is being read, for messages.

    Raises:
        ExchangeError: a name that is not allowed, an instruction that data do not need, or a broken stream.
    """
    if len(data) > MAX_BYTES:
        raise ExchangeError(f"{where} is a pickle of {len(data)} bytes, more than the {MAX_BYTES} that are read.")
    machine = _Machine(allowed, where)
    try:
        for instruction, argument, _ in pickletools.genops(data):
            machine.run(instruction.name, argument)
        return machine.result()
    except (ValueError, IndexError, KeyError, TypeError, OverflowError, UnicodeError, AttributeError) as error:
        raise ExchangeError(f"{where} is not a whole pickle; copy or download the file again.") from error


class _Machine:
    def __init__(self, allowed: Callable[[Name], bool], where: str) -> None:
        self._allowed = allowed
        self._where = where
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def result(self) -> Any:
        (value,) = self._stack
        return value

    def run(self, name: str, argument: Any) -> None:
        if name in _VALUES:
            self._stack.append(argument)
        elif name in _CONSTANTS:
            self._stack.append(_CONSTANTS[name])
        elif name in _EMPTY:
            self._stack.append(_EMPTY[name]())
        elif name in _STEPS:
            _STEPS[name](self, argument)
        elif name not in _NOTHING_TO_DO:
            raise ExchangeError(f"{self._where} holds the pickle instruction {name}, which data do not need; refused.")

    def named(self, name: Name) -> None:
        if not self._allowed(name):
            raise ExchangeError(
                f"{self._where} asks to load the Python object {name}; refused, because only numbers and the records "
                "of google/ffn are read from such a file, and nothing in it is executed."
            )
        self._stack.append(name)

    def named_by_stack(self, _: Any) -> None:
        name, module = self._stack.pop(), self._stack.pop()
        self.named(Name(_text(module), _text(name)))

    def named_by_text(self, argument: str) -> None:
        module, name = argument.split(" ", 1)
        self.named(Name(module, name))

    def make(self, _: Any) -> None:
        args, maker = self._stack.pop(), self._stack.pop()
        if not isinstance(maker, Name) or not isinstance(args, tuple):
            raise TypeError("a call of something that is no name")
        self._stack.append(Made(maker, args))

    def build(self, _: Any) -> None:
        state = self._stack.pop()
        made = self._stack[-1]
        if not isinstance(made, Made):
            raise TypeError("a state for something that was not made")
        made.state = state

    def mark(self, _: Any) -> None:
        self._stack.append(_Mark)

    def since_mark(self) -> list[Any]:
        at = len(self._stack) - 1
        while self._stack[at] is not _Mark:
            at -= 1
            if at < 0:
                raise IndexError("no mark")
        items = self._stack[at + 1 :]
        del self._stack[at:]
        return items

    def tuple_since_mark(self, _: Any) -> None:
        self._stack.append(tuple(self.since_mark()))

    def tuple_of(self, count: int) -> None:
        if len(self._stack) < count:
            raise IndexError("too few values")
        items = tuple(self._stack[-count:])
        del self._stack[-count:]
        self._stack.append(items)

    def list_since_mark(self, _: Any) -> None:
        self._stack.append(self.since_mark())

    def dict_since_mark(self, _: Any) -> None:
        items = self.since_mark()
        self._stack.append({})
        self._set(items)

    def append(self, _: Any) -> None:
        self._extend([self._stack.pop()])

    def appends(self, _: Any) -> None:
        self._extend(self.since_mark())

    def set_item(self, _: Any) -> None:
        value, key = self._stack.pop(), self._stack.pop()
        self._set([key, value])

    def set_items(self, _: Any) -> None:
        self._set(self.since_mark())

    def put(self, index: int) -> None:
        self._memo[index] = self._stack[-1]

    def memoize(self, _: Any) -> None:
        self.put(len(self._memo))

    def get(self, index: int) -> None:
        self._stack.append(self._memo[index])

    def _extend(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if not isinstance(target, list):
            raise TypeError("values for something that is no list")
        target.extend(items)

    def _set(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if not isinstance(target, dict) or len(items) % 2:
            raise TypeError("items for something that is no dictionary")
        for key, value in zip(items[::2], items[1::2], strict=True):
            # Nothing nested: the time to hash a nest of tuples can grow without bound.
            if not isinstance(key, int | str | Made):
                raise TypeError("a key that is neither a number nor a text")
            target[key] = value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("a name that is no text")
    return value


_VALUES = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
}
_CONSTANTS: dict[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_EMPTY: dict[str, Callable[[], Any]] = {"EMPTY_LIST": list, "EMPTY_DICT": dict}
_NOTHING_TO_DO = {"PROTO", "FRAME", "STOP"}
_STEPS: dict[str, Callable[[_Machine, Any], None]] = {
    "GLOBAL": _Machine.named_by_text,
    "STACK_GLOBAL": _Machine.named_by_stack,
    "REDUCE": _Machine.make,
    "NEWOBJ": _Machine.make,
    "BUILD": _Machine.build,
    "MARK": _Machine.mark,
    "TUPLE": _Machine.tuple_since_mark,
    "TUPLE1": lambda machine, _: machine.tuple_of(1),
    "TUPLE2": lambda machine, _: machine.tuple_of(2),
    "TUPLE3": lambda machine, _: machine.tuple_of(3),
    "LIST": _Machine.list_since_mark,
    "DICT": _Machine.dict_since_mark,
    "APPEND": _Machine.append,
    "APPENDS": _Machine.appends,
    "SETITEM": _Machine.set_item,
    "SETITEMS": _Machine.set_items,
    "PUT": _Machine.put,
    "BINPUT": _Machine.put,
    "LONG_BINPUT": _Machine.put,
    "MEMOIZE": _Machine.memoize,
    "GET": _Machine.get,
    "BINGET": _Machine.get,
    "LONG_BINGET": _Machine.get,
}
