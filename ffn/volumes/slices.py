"""A bounded memory of decoded slices."""

from collections import OrderedDict
from collections.abc import Callable
from threading import Lock

import numpy as np

BUDGET_BYTES = 256 << 20


class SliceCache:
    """The slices used last, up to `budget` bytes and never fewer than one. Views of a volume share one cache."""

    def __init__(self, decode: Callable[[int], np.ndarray], budget: int = BUDGET_BYTES) -> None:
        self._decode = decode
        self._budget = budget
        self._kept: OrderedDict[int, np.ndarray] = OrderedDict()
        self._lock = Lock()

    def __getitem__(self, index: int) -> np.ndarray:
        # Decoding under the lock: two threads never decode the same slice, nor share a decoder.
        with self._lock:
            if index not in self._kept:
                self._kept[index] = self._decode(index)
            self._kept.move_to_end(index)
            while len(self._kept) > 1 and self.nbytes > self._budget:
                self._kept.popitem(last=False)
            return self._kept[index]

    @property
    def nbytes(self) -> int:
        return sum(kept.nbytes for kept in self._kept.values())
