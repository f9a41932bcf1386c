"""Everything a run needs to go on after a kill as if nothing had happened: checkpoints/step-00001000/.

    weights.index, weights.data-*   weights (readable for inference) and the optimizer's slots; rank 0
    rank-00000.npz, ...             each rank's lanes in mid-example, and its counts for the next row of the curves
    state.json                      step, optimizer, and how the lanes are and were dealt out (`History`)

All ranks write into one temporary folder, which rank 0 names, and renames when everyone is done, so a folder with its
final name is always whole.

Lanes are numbered over all ranks, so another layout can take them up. With as many lanes as before, each goes on where
it was. Otherwise those that remain finish the example they work on, and from then on all lanes draw examples from
beyond the last one that any of them had begun: none comes twice, some that slower lanes had before them are left out.
"""

import json
import re
import zipfile
from pathlib import Path
from typing import Any

import ffn.model  # noqa: F401  (before TensorFlow)

# isort: split
import keras
import numpy as np
from numpy.typing import NDArray

from ffn.config import Config
from ffn.errors import CheckpointError, DivergedError
from ffn.files import partial_path, remove, remove_leftovers, sync, write_json
from ffn.model.checkpoint import load_weights, read_tensors, save_weights
from ffn.progress import log
from ffn.training.lanes import Lanes
from ffn.training.layout import History, Layout
from ffn.training.metrics import Tally
from ffn.training.optimizer import Updater
from ffn.training.ranks import Ranks

FORMAT = 3
_SLOTS = "optimizer"


class TrainingState:
    """What changes while a run trains, and its checkpoints in `folder`. `skipped`: updates left out so far."""

    def __init__(
        self, config: Config, folder: Path, ranks: Ranks, model: keras.Model, updater: Updater, lanes: Lanes
    ) -> None:
        self.folder, self.step, self.skipped, self.tally = folder, 0, 0, Tally()
        self._config, self._training = config, config.training
        self._ranks, self._model, self._updater, self._lanes = ranks, model, updater, lanes
        self._layout = Layout.of(config.training, ranks.size)
        self.history = History.begin(self._layout)

    @property
    def fovs(self) -> int:
        """Fields of view that all ranks have seen so far."""
        return self.history.lane_steps(self.step) * self._training.accumulate

    def save(self, keep: int) -> None:
        """Write a checkpoint of this step, and delete all but the last `keep`. Every rank calls it.

        Raises DivergedError on all ranks where the weights, the same on all, are not finite.
        """
        if not all(np.isfinite(value).all() for value in self._model.get_weights()):
            raise DivergedError(
                f"The weights are not finite after step {self.step}: training has diverged. Use a smaller "
                "training.learning_rate, a warm-up, or training.gradient_clip."
            )
        final = self.folder / f"step-{self.step:08d}"
        partial = final.with_name(self._ranks.told(partial_path(final).name))
        self._ranks.first_does(lambda: partial.mkdir(parents=True))
        self._save_rank(partial)
        if self._ranks.first:
            self._save_shared(partial)
        self._ranks.barrier()
        self._ranks.first_does(lambda: self._publish(partial, final, keep))

    def restore(self) -> int:
        """Go on from the newest checkpoint; returns its step, 0 where there is none. Every rank calls it.

        The weights come from rank 0 in any case, so all ranks start equal. Raises CheckpointError if the checkpoint is
        damaged, or of another network or optimizer.
        """
        newest = self._ranks.first_does(self._newest)
        step = int(self._ranks.sum(np.array([float(newest or 0)]))[0])
        if step:
            source = self.folder / f"step-{step:08d}"
            self._ranks.first_does(lambda: self._load_shared(source))
            record = _record(source)
            self.skipped = int(record["skipped"])
            self._restore_lanes(source, _history(source, record))
        self._ranks.broadcast([*self._model.trainable_variables, *self._updater.variables])
        self.step = step
        return step

    def _newest(self) -> int:
        remove_leftovers(self.folder)
        return latest_step(self.folder)

    def _save_rank(self, folder: Path) -> None:
        path = _rank_file(folder, self._ranks.rank)
        with path.open("wb") as file:
            np.savez(file, tally=self.tally.values, **self._lanes.state())  # type: ignore[arg-type]
        sync(path)

    def _save_shared(self, folder: Path) -> None:
        slots = {_slot(i): np.asarray(v) for i, v in enumerate(self._updater.variables)}
        save_weights(self._model, folder / "weights", slots)
        record = {
            "format": FORMAT,
            "step": self.step,
            "skipped": self.skipped,
            "optimizer": self._training.optimizer,
            "layouts": self.history.as_json(),
        }
        write_json(folder / "state.json", record)

    def _publish(self, partial: Path, final: Path, keep: int) -> None:
        sync(partial)
        remove(final)
        partial.replace(final)
        sync(self.folder)
        for step in sorted(_steps(self.folder))[:-keep]:
            remove(self.folder / f"step-{step:08d}")

    def _load_shared(self, folder: Path) -> None:
        record = _record(folder)
        _history(folder, record)
        load_weights(self._model, folder / "weights")
        tensors = read_tensors(folder / "weights")
        slots = [tensors[name] for name in sorted(tensors) if name.startswith(f"{_SLOTS}/")]
        variables = self._updater.variables
        shapes = [slot.shape for slot in slots], [tuple(variable.shape) for variable in variables]
        if record.get("optimizer") != self._training.optimizer or shapes[0] != shapes[1]:
            raise CheckpointError(
                f"The training checkpoint {folder} is of another optimizer: it was written by "
                f"{record.get('optimizer')} with {len(slots)} variables, and training.optimizer "
                f"{self._training.optimizer} has {len(variables)} (training.ema and training.precision add some). Set "
                "them as they were, or train in another folder."
            )
        for slot, variable in zip(slots, variables, strict=True):
            variable.assign(slot)

    def _restore_lanes(self, folder: Path, history: History) -> None:
        old, new, ranks = history.last, self._layout, self._ranks
        step = step_of(folder)
        if old != new and ranks.first:
            log(old.change_to(new, self._config, step))
        saved = _SavedLanes(folder, old)
        first = ranks.rank * new.lanes_per_rank
        own = range(first, first + new.lanes_per_rank)
        states = {lane: saved.lane(lane) for lane in own if lane < old.lanes}
        if old.lanes != new.lanes:
            begun = ranks.first_does(saved.begun)
            beyond = int(ranks.sum(np.array([float(begun or 0)]))[0])
            for lane in own:
                following = np.array(-(-(beyond - lane) // new.lanes))
                states[lane] = {**states.get(lane, {}), "next": following}
        self._lanes.restore(
            {f"lane{lane - first}/{key}": value for lane, state in states.items() for key, value in state.items()}
        )
        if old.ranks == new.ranks:
            self.tally = saved.tally(ranks.rank)
        elif ranks.first:
            self.tally = Tally(np.sum([saved.tally(rank).values for rank in range(old.ranks)], axis=0))
        self.history = history.then(step, new)


class _SavedLanes:
    """The lanes in a checkpoint, by their numbers over all ranks."""

    def __init__(self, folder: Path, layout: Layout) -> None:
        self._folder, self._layout = folder, layout

    def lane(self, number: int) -> dict[str, NDArray[Any]]:
        """The state of one lane."""
        rank, element = divmod(number, self._layout.lanes_per_rank)
        prefix = f"lane{element}/"
        values = self._read(rank, prefix)
        if not {"number", "next"} <= values.keys():
            raise _damaged(self._folder, f"{_rank_file(self._folder, rank).name}: no lane {element}")
        return values

    def tally(self, rank: int) -> Tally:
        """The counts of one rank."""
        return Tally(self._read(rank, "tally")[""])

    def begun(self) -> int:
        """The number of the first example that no lane had begun."""
        return 1 + max(int(self.lane(lane)["number"]) for lane in range(self._layout.lanes))

    def _read(self, rank: int, prefix: str) -> dict[str, NDArray[Any]]:
        path = _rank_file(self._folder, rank)
        try:
            with np.load(path, allow_pickle=False) as file:
                return {name.removeprefix(prefix): file[name] for name in file.files if name.startswith(prefix)}
        except (OSError, ValueError, KeyError, zipfile.BadZipFile, EOFError) as error:
            raise _damaged(self._folder, f"{path.name}: {error}") from error


def latest_step(folder: Path) -> int:
    """Step of the newest whole checkpoint in `folder`, 0 where there is none."""
    return max(_steps(folder), default=0)


def step_of(folder: Path) -> int:
    """The step in the name of a checkpoint's folder."""
    return int(folder.name.rpartition("-")[2])


def _steps(folder: Path) -> list[int]:
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    return [int(match[1]) for match in (re.fullmatch(r"step-(\d{8,})", name) for name in names) if match]


def _record(folder: Path) -> dict[str, Any]:
    try:
        record: dict[str, Any] = json.loads((folder / "state.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _damaged(folder, str(error)) from error
    if record.get("format") != FORMAT:
        raise _damaged(folder, f"format {record.get('format')}, this version reads {FORMAT}")
    return record


def _history(folder: Path, record: dict[str, Any]) -> History:
    try:
        return History.read(record["layouts"])
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(folder, f"state.json: {error!r}") from error


def _rank_file(folder: Path, rank: int) -> Path:
    return folder / f"rank-{rank:05d}.npz"


def _slot(number: int) -> str:
    return f"{_SLOTS}/{number:04d}"


def _damaged(folder: Path, reason: str) -> CheckpointError:
    return CheckpointError(
        f"The training checkpoint {folder} cannot be used ({reason}). Delete that folder to go on from the one before."
    )
