"""What the processes share that kill themselves (SIGKILL) at a chosen point."""

import os
import signal
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ffn.blockwise.ledger import Entry, LedgerWriter
from ffn.volumes import Store


class Killer:
    """Counts the events of one kind, or of `any`, and ends the process at the `count`-th; 0 = never."""

    def __init__(self, where: str, count: int) -> None:
        self.where, self.left = where, count

    def last(self, here: str) -> bool:
        """Note an event; whether it is the one to die at."""
        if self.where not in (here, "any"):
            return False
        self.left -= 1
        return self.left == 0

    def __call__(self, here: str) -> None:
        if self.last(here):
            os.kill(os.getpid(), signal.SIGKILL)

    def watch_renames(self) -> None:
        """From now on a file about to get its final name is `before-rename`, one that just got it `after-rename`."""
        rename = Path.replace

        def replace(path: Path, target: Path) -> Path:
            self("before-rename")
            renamed = rename(path, target)
            self("after-rename")
            return renamed

        Path.replace = replace  # type: ignore[method-assign, assignment]

    def watch_units(self) -> None:
        """From now on a shard that is about to be written is a `shard`; a unit that is done but not yet in the ledger
        is `before-note`, one whose line was just written `after-note`."""
        write_shard, add = Store.write_shard, LedgerWriter.add

        def watched_shard(store: Store, *args: Any) -> int:
            self("shard")
            return write_shard(store, *args)

        def watched_add(writer: LedgerWriter, *args: Any) -> Entry:
            self("before-note")
            entry = add(writer, *args)
            self("after-note")
            return entry

        Store.write_shard = watched_shard  # type: ignore[method-assign, assignment]
        LedgerWriter.add = watched_add  # type: ignore[method-assign, assignment]

    def watch(self, network: Callable[..., Any]) -> Callable[..., Any]:
        """The network, of which each evaluation is a `fov`."""

        def watched(image: Any, object_map: Any) -> Any:
            self("fov")
            return network(image, object_map)

        return watched


def use_executor(load_executor: Callable[..., Any]) -> None:
    """Put something light in the place of the module that would import TensorFlow."""
    executor = types.ModuleType("ffn.inference.executor")
    executor.load_executor = load_executor  # type: ignore[attr-defined]
    sys.modules[executor.__name__] = executor
