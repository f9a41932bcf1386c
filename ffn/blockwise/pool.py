"""Units done in this process or in many side by side.

Worker processes are started anew and not forked, so they share no open file and no lock with this one. Each holds the
task that it works on, with what that has open. They end with this process however it ends.
"""

import os
import pickle
import signal
import tempfile
import threading
import uuid
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor
from concurrent.futures import wait as wait_for
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from ffn.blockwise.task import Result, Task
from ffn.errors import WorkerError

_SHARE_OF_MEMORY = 0.8
"""Of what is free; the rest is for what nobody has counted."""


def usable_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def usable_memory() -> int:
    """Bytes that this process and its like may use: what is free, within the limits of a job."""
    free = psutil.virtual_memory().available
    for path in (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes")):
        with suppress(OSError, ValueError):  # `max`, or no such limit
            free = min(free, int(path.read_text(encoding="utf-8")))
    return free


def suitable_workers(configured: int, units: int, unit_bytes: int) -> int:
    """Processes for a step.

    Args:
        configured: By the user; 0 = as many as there are cores, units and memory for.
        units: To be done.
        unit_bytes: What a process holds.
    """
    fitting = int(_SHARE_OF_MEMORY * usable_memory()) // max(unit_bytes, 1)
    return configured or max(min(usable_cores(), units, fitting), 1)


class Pool:
    """Processes that do units of one task after the other; use as a context manager.

    Args:
        workers: Processes; 1 = this one.
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._processes: ProcessPoolExecutor | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._processes is not None:
            self._processes.shutdown(cancel_futures=True)
        if self._folder is not None:
            self._folder.cleanup()

    def results(self, task: Task, units: Iterable[int]) -> Iterator[tuple[int, Result]]:
        """Each unit with its result, as they end. At most one unit a process is begun and not yet yielded.

        Args:
            task: Can be pickled, where there are several processes.
            units: Taken one at a time, when a process is free.

        Raises what the task raises; WorkerError where a process was killed or memory ran out.
        """
        try:
            if self.workers == 1 or len(task) == 1 or task.takes_machine:
                yield from ((unit, task.run(unit)) for unit in units)
            else:
                yield from self._side_by_side(task, iter(units))
        except BrokenProcessPool as error:
            raise WorkerError(
                f"One of the {self.workers} worker processes was killed, most likely because memory ran out. "
                f"{task.remedy} Then run the same command again."
            ) from error
        except MemoryError as error:
            raise WorkerError(f"Memory ran out ({error}). {task.remedy} Then run the same command again.") from error
        finally:
            task.close()

    def _side_by_side(self, task: Task, units: Iterator[int]) -> Iterator[tuple[int, Result]]:
        pool, stored = self._started(), self._stored(task)
        under_way: dict[Future[Result], int] = {}

        def begin_next() -> None:
            for unit in units:
                under_way[pool.submit(_run, stored, unit)] = unit
                return

        for _ in range(self.workers):
            begin_next()
        while under_way:
            ended, _ = wait_for(under_way, return_when=FIRST_COMPLETED)
            for future in ended:
                unit = under_way.pop(future)
                yield unit, future.result()
                begin_next()

    def _started(self) -> ProcessPoolExecutor:
        if self._processes is None:
            # As many as there are units are started, and not before.
            self._processes = ProcessPoolExecutor(self.workers, get_context("spawn"), initializer=_begin)
        return self._processes

    def _stored(self, task: Task) -> Path:
        """A file with the task: it may be large, and each process reads it once."""
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="ffn-tasks-")
        path = Path(self._folder.name) / uuid.uuid4().hex
        path.write_bytes(pickle.dumps(task))
        return path


_held: tuple[Path, Task] | None = None
"""In a worker process: the task that it works on, and the file that it came from."""


def _run(stored: Path, unit: int) -> Result:
    global _held
    if _held is None or _held[0] != stored:
        if _held is not None:
            _held[1].close()
        _held = stored, pickle.loads(stored.read_bytes())
    return _held[1].run(unit)


def _begin() -> None:
    # Ctrl-C reaches all processes of a terminal; the one that started this one decides what comes of it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        with suppress(OSError):
            wait([parent.sentinel])
        os._exit(1)
