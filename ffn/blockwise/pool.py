"""Units done in this process or in many side by side.

Worker processes are started anew and not forked, so they share no open file and no lock with this one. Each holds the
task that it works on, with what that has open. They end with this process however it ends.
"""

import os
import signal
import threading
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

from ffn.blockwise.task import Result, Task
from ffn.errors import WorkerError

_SHARE_OF_MEMORY = 0.8
"""The rest is for what nobody has counted."""


def usable_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def library_threads() -> int:
    """Threads for a library's call: 0, which means all cores, or 1 in a worker process, of which each core has one."""
    return 0 if parent_process() is None else 1


def usable_memory() -> int:
    """Bytes that this process and its workers may take: those of the machine, or of the job that it runs in."""
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    with suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text(encoding="ascii").splitlines():
            _, controllers, path = line.split(":", 2)
            root, name = Path("/sys/fs/cgroup"), "memory.max"
            if "memory" in controllers.split(","):
                root, name = root / "memory", "memory.limit_in_bytes"
            group = root / path.lstrip("/")
            limits += [_limit(folder / name) for folder in (group, *group.parents) if (folder / name).is_file()]
    return min(limit for limit in limits if limit > 0)


def _limit(path: Path) -> int:
    """The number in a file; 0 where it holds none."""
    text = path.read_text(encoding="ascii").strip()
    return int(text) if text.isdigit() else 0


def suitable_workers(configured: int, units: int) -> int:
    """Processes for a stage of so many units worth a process; `configured` by the user, 0 = one for each core."""
    return configured or max(min(usable_cores(), units), 1)


class Pool:
    """Processes that do units of one task after the other; use as a context manager.

    Args:
        workers: Processes; 1 = this one.
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._tasks = 0
        self._processes: ProcessPoolExecutor | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._processes is not None:
            self._processes.shutdown(cancel_futures=True)

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
        pool = self._started()
        self._tasks += 1
        room = int(_SHARE_OF_MEMORY * usable_memory())
        at_once = min(self.workers, max(room // task.unit_bytes, 1)) if task.unit_bytes else self.workers
        under_way: dict[Future[Result | None], int] = {}

        def begin_next(sent: Task | None) -> None:
            for unit in units:
                under_way[pool.submit(_run, self._tasks, sent, unit)] = unit
                return

        # A task may be large, so it is sent to each process once, and again to one that did not get it.
        for _ in range(at_once):
            begin_next(task)
        while under_way:
            ended, _ = wait_for(under_way, return_when=FIRST_COMPLETED)
            for future in ended:
                unit = under_way.pop(future)
                if (result := future.result()) is None:
                    under_way[pool.submit(_run, self._tasks, task, unit)] = unit
                    continue
                yield unit, result
                begin_next(None)

    def _started(self) -> ProcessPoolExecutor:
        if self._processes is None:
            # As many as there are units are started, and not before.
            self._processes = ProcessPoolExecutor(self.workers, get_context("spawn"), initializer=_begin)
        return self._processes


_held: tuple[int, Task] | None = None
"""In a worker process: the task that it works on, and the number that it has in the pool."""


def _run(number: int, task: Task | None, unit: int) -> Result | None:
    """A unit's result; None where this process has not got the task of this number."""
    global _held
    if _held is None or _held[0] != number:
        if task is None:
            return None
        if _held is not None:
            _held[1].close()
        _held = number, task
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
