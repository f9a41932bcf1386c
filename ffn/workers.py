"""The same work in this process or in many, with the results in the order of the tasks.

Worker processes are started anew and not forked, so they share no open file and no lock with this one; each makes
itself a bench (open files, tables) once and keeps it. They end with this process however it ends.
"""

import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from ffn.errors import WorkerError

Bench = TypeVar("Bench")
Task = TypeVar("Task")
Result = TypeVar("Result")

_AHEAD = 2
"""Tasks a worker that are under way or done and not yet taken: enough to be busy, and memory stays bounded."""


def usable_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Workers(Generic[Bench]):
    """Processes that do tasks at their benches; use as a context manager.

    Args:
        count: Processes; 1 = this one.
        make_bench: Called once in each process; can be pickled, where there are several.
        remedy: What helps where they take too much memory.
    """

    def __init__(self, count: int, make_bench: Callable[[], Bench], remedy: str = "Use fewer of them.") -> None:
        self._count, self._make_bench, self._remedy = count, make_bench, remedy
        self._pool: ProcessPoolExecutor | None = None
        self._bench: Bench | None = None

    def __enter__(self) -> Self:
        if self._count > 1:
            # As many as there are tasks are started, and not before.
            self._pool = ProcessPoolExecutor(
                self._count, get_context("spawn"), initializer=_begin, initargs=(self._make_bench,)
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def results(self, work: Callable[[Bench, Task], Result], tasks: Iterable[Task]) -> Iterator[Result]:
        """`work(bench, task)` of each task, in their order.

        Args:
            work: A function of a module; of the bench it changes nothing that other tasks see.
            tasks: Taken as results are taken, a few ahead.

        Raises what `work` raises; WorkerError where a process was killed or memory ran out.
        """
        try:
            yield from (
                self._alone(work, tasks)
                if self._pool is None
                else _side_by_side(self._pool, _AHEAD * self._count, work, tasks)
            )
        except BrokenProcessPool as error:
            raise WorkerError(
                f"One of the {self._count} worker processes was killed, most likely because memory ran out. "
                f"{self._remedy} Then run the same command again."
            ) from error
        except MemoryError as error:
            raise WorkerError(f"Memory ran out ({error}). {self._remedy} Then run the same command again.") from error

    def _alone(self, work: Callable[[Bench, Task], Result], tasks: Iterable[Task]) -> Iterator[Result]:
        if self._bench is None:
            self._bench = self._make_bench()
        for task in tasks:
            yield work(self._bench, task)


_bench: Any = None
"""Of a worker process."""


def _side_by_side(
    pool: ProcessPoolExecutor, ahead: int, work: Callable[[Any, Task], Result], tasks: Iterable[Task]
) -> Iterator[Result]:
    waiting: deque[Future[Result]] = deque()
    for task in tasks:
        waiting.append(pool.submit(_do, work, task))
        if len(waiting) >= ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _begin(make_bench: Callable[[], Any]) -> None:
    global _bench
    # Ctrl-C reaches all processes of a terminal; the one that started this one decides what comes of it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _bench = make_bench()


def _do(work: Callable[[Any, Task], Result], task: Task) -> Result:
    return work(_bench, task)


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        with suppress(OSError):
            wait([parent.sentinel])
        os._exit(1)
