"""Loaded by every Python that has this folder in PYTHONPATH: notes which units each `ffn` command begins and ends.

$FFN_JOURNAL is the file: a line of JSON for each unit that is begun, and one when it is in the ledger.
"""

import json
import os
import sys
import time
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

PAIRS_OF_A_UNIT = 8
"""In agglomeration, so that there are many units in a small volume."""


def keep_journal(stage: str, path: Path) -> None:
    from ffn.agglomeration import finding
    from ffn.blockwise.ledger import Entry, LedgerWriter
    from ffn.blockwise.pool import Pool
    from ffn.blockwise.task import Result, Task

    finding.GROUP = PAIRS_OF_A_UNIT
    process, started = uuid.uuid4().hex, time.time()
    results, add = Pool.results, LedgerWriter.add

    def note(event: str, step: str, unit: int, **more: int) -> None:
        line = {"event": event, "process": process, "started": started, "time": time.time()}
        line |= {"stage": stage, "step": step, "unit": unit, **more}
        file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(file, json.dumps(line).encode() + b"\n")
        os.close(file)

    def watched_results(pool: Pool, task: Task, units: Iterable[int]) -> Iterator[tuple[int, Result]]:
        def begun() -> Iterator[int]:
            for unit in units:
                note("begun", f"steps/{task.name}", unit, at_once=pool.workers)
                yield unit

        return results(pool, task, begun())

    def watched_add(writer: LedgerWriter, unit: int, *arguments: Any) -> Entry:
        entry = add(writer, unit, *arguments)
        note("noted", "/".join(writer.folder.parent.parts[-2:]), unit, redone=entry.redone)
        return entry

    Pool.results, LedgerWriter.add = watched_results, watched_add  # type: ignore[method-assign]


if "FFN_JOURNAL" in os.environ:
    named = [Path(word).name for word in sys.orig_argv]
    if "ffn" in named[:-1]:
        keep_journal(named[named.index("ffn") + 1], Path(os.environ["FFN_JOURNAL"]))
