"""Everything a run needs to go on after a kill as if nothing had happened: checkpoints/step-00001000/.

    weights.index, weights.data-*   weights (readable for inference) and the optimizer's slots; rank 0
    rank-00000.npz, ...             each rank's lanes in mid-example, and its counts for the next row of the curves
    state.json                      step and format

All ranks write into one `.partial` folder, which rank 0 renames when everyone is done, so a folder with its final
name is always whole.
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

from ffn.errors import CheckpointError, DataError
from ffn.files import remove, sync, write_json
from ffn.model.checkpoint import load_weights, read_tensors, save_weights
from ffn.training.lanes import Lanes
from ffn.training.metrics import Tally
from ffn.training.optimizer import Updater
from ffn.training.ranks import Ranks

FORMAT = 1
_SLOTS = "optimizer"


class TrainingState:
    """What changes while a run trains, and its checkpoints in `folder`."""

    def __init__(
        self,
        folder: Path,
        ranks: Ranks,
        model: keras.Model,
        updater: Updater,
        lanes: Lanes,
    ) -> None:
        self.folder, self.step, self.tally = folder, 0, Tally()
        self._ranks, self._model, self._updater, self._lanes = ranks, model, updater, lanes

    def save(self, keep: int) -> None:
        """Write a checkpoint of this step, and delete all but the last `keep`. Every rank calls it."""
        final = self.folder / f"step-{self.step:08d}"
        partial = final.with_name(final.name + ".partial")
        self._ranks.first_does(lambda: _fresh_folder(partial))
        self._save_rank(partial)
        if self._ranks.first:
            self._save_shared(partial)
        self._ranks.barrier()
        self._ranks.first_does(lambda: self._publish(partial, final, keep))

    def restore(self) -> int:
        """Go on from the newest checkpoint; returns its step, 0 where there is none. Every rank calls it.

        The weights come from rank 0 in any case, so all ranks start equal.
        """
        newest = self._ranks.first_does(self._newest)
        step = int(self._ranks.sum(np.array([float(newest or 0)]))[0])
        if step:
            source = self.folder / f"step-{step:08d}"
            self._ranks.first_does(lambda: self._load_shared(source))
            self._load_rank(source)
        self._ranks.broadcast([*self._model.trainable_variables, *self._updater.variables])
        self.step = step
        return step

    def _newest(self) -> int:
        for leftover in self.folder.glob("step-*.partial"):
            remove(leftover)
        return latest_step(self.folder)

    def _save_rank(self, folder: Path) -> None:
        path = _rank_file(folder, self._ranks.rank)
        with path.open("wb") as file:
            np.savez(file, tally=self.tally.values, **self._lanes.state())  # type: ignore[arg-type]
        sync(path)

    def _save_shared(self, folder: Path) -> None:
        slots = {_slot(i): np.asarray(v) for i, v in enumerate(self._updater.variables)}
        if not all(np.isfinite(value).all() for value in self._model.get_weights()):
            raise DataError(
                f"The weights are not finite after step {self.step}: training has diverged. Use a smaller "
                "training.learning_rate, a warm-up, or training.gradient_clip."
            )
        save_weights(self._model, folder / "weights", slots)
        write_json(folder / "state.json", {"format": FORMAT, "step": self.step, "ranks": self._ranks.size})

    def _publish(self, partial: Path, final: Path, keep: int) -> None:
        sync(partial)
        remove(final)
        partial.replace(final)
        sync(self.folder)
        for step in sorted(_steps(self.folder))[:-keep]:
            remove(self.folder / f"step-{step:08d}")

    def _load_shared(self, folder: Path) -> None:
        try:
            record = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise _damaged(folder, str(error)) from error
        if record.get("format") != FORMAT:
            raise _damaged(folder, f"format {record.get('format')}, this version reads {FORMAT}")
        load_weights(self._model, folder / "weights")
        tensors = read_tensors(folder / "weights")
        for number, variable in enumerate(self._updater.variables):
            value = tensors.get(_slot(number))
            if value is None or value.shape != tuple(variable.shape):
                raise _damaged(folder, f"no optimizer slot {variable.path}")
            variable.assign(value)

    def _load_rank(self, folder: Path) -> None:
        path = _rank_file(folder, self._ranks.rank)
        try:
            with np.load(path, allow_pickle=False) as file:
                state: dict[str, Any] = {name: file[name] for name in file.files}
            self.tally = Tally(state.pop("tally"))
            self._lanes.restore(state)
        except (OSError, ValueError, KeyError, zipfile.BadZipFile, EOFError) as error:
            raise _damaged(folder, f"{path.name}: {error}") from error


def latest_step(folder: Path) -> int:
    """Step of the newest whole checkpoint in `folder`, 0 where there is none."""
    return max(_steps(folder), default=0)


def _steps(folder: Path) -> list[int]:
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    return [int(match[1]) for match in (re.fullmatch(r"step-(\d{8,})", name) for name in names) if match]


def _fresh_folder(path: Path) -> None:
    remove(path)
    path.mkdir(parents=True)


def _rank_file(folder: Path, rank: int) -> Path:
    return folder / f"rank-{rank:05d}.npz"


def _slot(number: int) -> str:
    return f"{_SLOTS}/{number:04d}"


def _damaged(folder: Path, reason: str) -> CheckpointError:
    return CheckpointError(
        f"The training checkpoint {folder} cannot be used ({reason}). Delete that folder to go on from the one before."
    )
