"""Finished sub-volumes of a run: those of one pass over it, or what several passes agree on.

    infer/pass-0/started.json                      the settings
    infer/pass-0/ledger/<job>/<process>.jsonl      a line for each sub-volume that is finished
    infer/pass-0/archives/<process>.tar            the files of them (`ffn.inference.results`), up to 32 in one archive
    infer/tile-0003/, infer/tile-0003/pass-1/      only while it is being filled

What the ledger names and the archives hold is finished. Where an archive is lost, the sub-volumes in it are not.
"""

import json
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ffn.blockwise import Entry, Ledger, Step
from ffn.blockwise.ledger import LedgerWriter
from ffn.blockwise.stage import KEPT, Numbered
from ffn.bundles import Bundle, is_whole, take_out
from ffn.errors import HeldError, StageError
from ffn.files import PARTIAL, remove_leftovers
from ffn.inference.results import LABELS, SEGMENTATION_FILE, STATE_FILE
from ffn.locks import lock
from ffn.stages import LOCK, Stage, settings_hash

ARCHIVES = "archives"


def ledger_of(folder: Path) -> Ledger | None:
    """Which sub-volumes are finished, whatever the settings were; None where none is. `folder` is that of a pass or of
    the consensus."""
    ledger = Ledger.found(folder / KEPT)
    return None if ledger is None else without_lost(ledger)


def without_lost(ledger: Ledger) -> Ledger:
    """The same ledger, in which sub-volumes are not finished whose files are lost."""
    # The last one of an archive is looked at first: if it is whole, so are the others.
    last = dict[str, Entry]()
    for entry in ledger.entries():
        name = str(entry.facts.get("archive"))
        if name not in last or entry.facts.get("end", 0) > last[name].facts.get("end", 0):
            last[name] = entry
    damaged = {name for name, entry in last.items() if not is_intact(entry)}
    ledger.forget(lambda entry: str(entry.facts.get("archive")) in damaged and not is_intact(entry))
    return ledger


def is_intact(entry: Entry) -> bool:
    """Whether the files of a finished sub-volume are still there."""
    return is_whole(archives_of(entry), entry.facts)


def archives_of(entry: Entry) -> Path:
    """Folder of the archives."""
    return entry.arrays.parents[2] / ARCHIVES


def folder_of(entry: Entry) -> Path:
    """Where the files of a finished sub-volume are: a path into an archive, see `ffn.bundles`."""
    return archives_of(entry) / str(entry.facts["archive"]) / str(entry.facts["folder"])


def labels_of(entry: Entry) -> str:
    """URI of the labels of a finished sub-volume."""
    return f"{folder_of(entry) / SEGMENTATION_FILE}:{LABELS}"


def copy_files(entry: Entry, output: Path) -> None:
    """Copy the files of a finished sub-volume into a folder, as a flood fill of it alone leaves them.

    Raises StageError where they are lost or the folder holds something else.
    """
    if output.exists() and any(output.iterdir()):
        raise StageError(f"{output} is not empty; name another folder.")
    inside = folder_of(entry)
    try:
        take_out(inside.parent, inside.name, output)
    except OSError as error:
        raise StageError(f"Sub-volume {entry.unit} cannot be read ({error}); fill it again.") from error


def bundled(bundle: Bundle, folder: Path, name: str) -> dict[str, Any]:
    """Append a complete folder to an archive; returns what a ledger notes of it.

    Facts: those of the archive, of `done.json`, its `hash` and `box`, `label_bytes` and, where known, `fovs_per_s`.
    """
    done = json.loads((folder / "done.json").read_text(encoding="utf-8"))
    facts = {
        **done["facts"],
        "hash": done["hash"],
        "box": done["settings"]["box"],
        "label_bytes": (folder / SEGMENTATION_FILE).stat().st_size,
    }
    with suppress(FileNotFoundError):
        facts["fovs_per_s"] = json.loads((folder / "timing.json").read_text(encoding="utf-8"))["fovs_per_s"]
    files = [path for path in sorted(folder.iterdir()) if path.name != STATE_FILE and not _is_of_work(path)]
    return {**facts, **bundle.add(files, name)}


def _is_of_work(path: Path) -> bool:
    """Whether a file says who works in a folder, or is just being written."""
    return path.name.startswith(LOCK) or path.name.endswith(PARTIAL)


class Keeper:
    """Takes finished sub-volumes from their folders into an archive and the ledger.

    Args:
        stage: The pass, with all that decides its labels.
        count: Sub-volumes of the run.
        numbers: Those that this process has to do with, ascending.

    Raises StageError where the pass was begun with other settings.
    """

    def __init__(self, stage: Stage, count: int, numbers: Sequence[int]) -> None:
        stage.is_done()
        self._stage, job = stage, Numbered(tuple(numbers))
        step = Step(stage.folder / KEPT, settings_hash(stage.settings), count)
        self._ledger = without_lost(step.ledger(job.shares_units))
        self._bundle = Bundle(stage.folder / ARCHIVES)
        self._lines = LedgerWriter(step.folder / str(job), step.fingerprint, count)
        self._closing = ExitStack()

    def missing(self, numbers: Iterable[int]) -> list[int]:
        """Which of these sub-volumes are not finished at this moment."""
        self._ledger.refresh()
        return self._ledger.missing(numbers)

    def keep(self, number: int, folder: Path) -> None:
        """Take over a sub-volume whose folder is complete, and clear the folder.

        Two processes may do that at once: the files are then kept twice, and one of them counts.
        """
        try:
            self._stage.begin()
            facts = bundled(self._bundle, folder, f"tile-{number:04d}")
            self._ledger.take(self._lines.add(number, {}, facts, self._ledger.redone(number)))
        except FileNotFoundError:
            if self.missing([number]):
                raise
        clear(folder)

    def __enter__(self) -> Self:
        self._closing.enter_context(self._bundle)
        self._closing.enter_context(self._lines)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.close()


def clear_left(folder: Path) -> None:
    """Remove what a killed process left in the folder of a sub-volume that is kept."""
    with suppress(HeldError), lock(folder / LOCK, waits=False):
        remove_leftovers(folder)
        clear(folder)
    remove_empty(folder)


def clear(folder: Path) -> None:
    """Remove the files of a sub-volume that is kept; a lock, and what another process is just writing, stay."""
    with suppress(FileNotFoundError):
        for path in folder.iterdir():
            if path.is_file() and not _is_of_work(path):
                path.unlink(missing_ok=True)
    remove_empty(folder)


def remove_empty(folder: Path) -> None:
    """Remove a sub-volume's folder, and that of its passes, if nothing is in them."""
    for empty in (folder, folder.parent):
        with suppress(OSError):
            empty.rmdir()
