"""Saved states of an unfinished sub-volume: everything a canvas needs to continue as if it had never stopped."""

import json
from collections import Counter
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from ffn.errors import StageError
from ffn.files import atomic_path
from ffn.geometry import ZYX
from ffn.inference.canvas import Canvas, Growth, Segment


def save_state(path: Path, canvas: Canvas, seeds: NDArray[np.int64], stage: int = 0) -> None:
    """Write the state of `canvas`, also in the middle of an object, atomically, and the seeds of the policy (`stage`).

    The size is 4 bytes a voxel of the sub-volume, in network and, if these are others, in image voxels, plus 4 of the
    box that the current object has visited.
    """
    arrays: dict[str, NDArray[Any]] = {"labels": canvas.labels, "seeds": seeds}
    if canvas.fine is not None:
        arrays["fine"] = canvas.fine.labels
    if canvas.probability is not None:
        arrays["probability"] = canvas.probability
    facts: dict[str, Any] = {
        "stage": stage,
        "next_seed": canvas.next_seed,
        "counters": dict(canvas.counters),
        "segments": [[s.id, s.seed, s.fovs, s.voxels, s.overlaps] for s in canvas.segments],
        "growth": None,
    }
    growth = canvas.growth
    if growth is not None:
        asked = [] if growth.looking_at is None else [growth.looking_at]
        facts["growth"] = {
            "seed": growth.seed,
            "low": growth.low,
            "high": growth.high,
            "fovs": growth.fovs,
            "queue": [*asked, *growth.movement.waiting()],
            "done": sorted(growth.movement.done),
        }
        arrays["object_map"] = canvas.object_map[canvas.box_around(growth.low, growth.high)]
    arrays["facts"] = np.frombuffer(json.dumps(facts).encode(), np.uint8)
    with atomic_path(path) as partial, partial.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)


def restore_state(path: Path, canvas: Canvas) -> tuple[int, NDArray[np.int64]]:
    """Bring a new `canvas` to the saved state; returns the stage and its seeds (int64 [n, 3]).

    Raises StageError if it is unreadable.
    """
    try:
        with np.load(path, allow_pickle=False) as saved:
            facts = json.loads(saved["facts"].tobytes())
            stage, seeds = int(facts["stage"]), saved["seeds"]
            canvas.labels[...] = saved["labels"]
            if canvas.fine is not None:
                canvas.fine.labels[...] = saved["fine"]
            if canvas.probability is not None:
                canvas.probability[...] = saved["probability"]
            canvas.next_seed = facts["next_seed"]
            canvas.counters = Counter(facts["counters"])
            canvas.segments = [_segment(record) for record in facts["segments"]]
            if facts["growth"] is not None:
                _restore_growth(canvas, facts["growth"], saved["object_map"])
    except (OSError, ValueError, KeyError, IndexError, TypeError, EOFError, BadZipFile) as error:
        raise StageError(
            f"The saved state {path} cannot be read ({error!r}). Delete it to start this sub-volume over."
        ) from error
    return stage, seeds


def _segment(record: list[Any]) -> Segment:
    number, seed, fovs, voxels, overlaps = record
    return Segment(number, _zyx(seed), fovs, voxels, tuple((other, count) for other, count in overlaps))


def _restore_growth(canvas: Canvas, facts: dict[str, Any], object_map: NDArray[np.float32]) -> None:
    seed, low, high = (_zyx(facts[key]) for key in ("seed", "low", "high"))
    # The map first: the movement may look at it.
    canvas.object_map[canvas.box_around(low, high)] = object_map
    canvas.growth = Growth(seed, canvas.movement(seed), low, high, facts["fovs"])
    canvas.growth.movement.restore(map(_zyx, facts["queue"]), map(_zyx, facts["done"]))


def _zyx(values: list[int]) -> ZYX:
    z, y, x = values
    return z, y, x
