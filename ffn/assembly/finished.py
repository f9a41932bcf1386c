"""Whether what is to be joined is there: finished, and made for the same box."""

import json
from pathlib import Path

from ffn.errors import StageError
from ffn.geometry import Box


def finished_hash(folder: Path, box: Box, what: str, command: str) -> str:
    """The hash of the settings that made a folder.

    Raises StageError, naming `what` it is and the `command` that makes it, where it is not finished or holds another
    box.
    """
    marker = folder / "done.json"
    if not marker.exists():
        raise StageError(f"{what} is not finished: {marker} is missing. Run `{command}` first.")
    record = json.loads(marker.read_text(encoding="utf-8"))
    there = record["settings"]["box"]
    if there != str(box):
        raise StageError(
            f"{folder} holds the box {there}, but {what} is now {box}. "
            "Delete the folder or choose another run name, and run the inference again."
        )
    return str(record["hash"])
