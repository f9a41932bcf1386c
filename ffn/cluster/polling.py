"""Asking the scheduler once for all jobs, however many status commands run at the same time."""

import fcntl
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from ffn.files import write_json


@dataclass(frozen=True)
class Answer:
    """States by job id, and when they were asked for.

    `failing_since` is set while the scheduler does not answer; `states` are then of no use.
    """

    asked: float
    states: Mapping[str, str]
    failing_since: float | None = None


def ask_once(folder: Path, ask: Callable[[], Mapping[str, str] | None], max_age_s: float) -> Answer:
    """The scheduler's answer of at most `max_age_s` ago: kept in a file, refreshed by one caller at a time.

    `ask` returns the states, or None if the scheduler did not answer.
    """
    folder.mkdir(parents=True, exist_ok=True)
    kept = folder / "states.json"
    with _locked(folder / "states.lock"):
        last = _read(kept)
        now = time.time()
        if last is not None and 0 <= now - last.asked < max_age_s:
            return last
        states = ask()
        if states is None:
            since = now if last is None or last.failing_since is None else last.failing_since
            answer = Answer(now, {}, since)
        else:
            answer = Answer(now, states)
        write_json(kept, asdict(answer))
        return answer


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _read(path: Path) -> Answer | None:
    try:
        return Answer(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
