"""Asking the scheduler once for all jobs, however many status commands run at the same time."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from ffn.cluster.registry import Registry
from ffn.cluster.scheduler import Phase, Seen
from ffn.files import write_json


@dataclass(frozen=True)
class Answer:
    """Jobs by id, and when the scheduler was asked for them.

    `failing_since` is set while the scheduler does not answer; `jobs` are then of no use.
    """

    asked: float
    jobs: Mapping[str, Seen]
    failing_since: float | None = None


def ask_once(
    registry: Registry, ask: Callable[[], Mapping[str, Seen] | None], max_age_s: float, clock: Callable[[], float]
) -> Answer:
    """The scheduler's answer of at most `max_age_s` ago: kept in a file, refreshed by one caller at a time.

    `ask` returns the jobs, or None if the scheduler did not answer.
    """
    kept = registry.folder / "states.json"
    with registry.locked("states"):
        last = _read(kept)
        now = clock()
        if last is not None and 0 <= now - last.asked < max_age_s:
            return last
        jobs = ask()
        if jobs is None:
            since = now if last is None or last.failing_since is None else last.failing_since
            answer = Answer(now, {}, since)
        else:
            answer = Answer(now, jobs)
        write_json(kept, asdict(answer))
        return answer


def _read(path: Path) -> Answer | None:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        jobs = {job_id: Seen(**{**seen, "phase": Phase(seen["phase"])}) for job_id, seen in values["jobs"].items()}
        return Answer(values["asked"], jobs, values["failing_since"])
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
