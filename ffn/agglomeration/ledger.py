"""Results that arrive one after another, each on disk for good before the next is taken.

One line of JSON a result. A kill can at most leave a line without its end; that one is cut off and done again.
"""

import json
import os
from pathlib import Path
from typing import Any

from ffn.errors import StageError
from ffn.files import sync


class Ledger:
    """Results by their pair of ids, in a file that is only appended to.

    Attributes:
        records: What is there, by (a, b).
    """

    def __init__(self, path: Path) -> None:
        """Read what is there. Raises StageError where it is something else than results."""
        self.path = path
        self.records: dict[tuple[int, int], dict[str, Any]] = {}
        if not path.exists():
            return
        content = path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        try:
            listed = [json.loads(line) for line in whole.splitlines()]
            self.records = {(record["a"], record["b"]): record for record in listed}
        except (ValueError, KeyError, TypeError) as error:
            raise StageError(f"{path} cannot be read ({error}). Delete it to try all pairs again.") from error
        if len(whole) < len(content):
            os.truncate(path, len(whole))

    def add(self, record: dict[str, Any]) -> None:
        """Append the result of the pair `record["a"]`, `record["b"]`."""
        line = json.dumps(record, separators=(",", ":")) + "\n"
        new = not self.path.exists()
        with self.path.open("ab") as file:
            file.write(line.encode())
            file.flush()
            os.fsync(file.fileno())
        if new:
            sync(self.path.parent)
        self.records[record["a"], record["b"]] = record
