"""Which weights a segmentation was made with."""

import hashlib
import re
from pathlib import Path

from ffn.errors import CheckpointError


def checkpoint_fingerprint(prefix: Path) -> str:
    """SHA-256 over a checkpoint's files `PREFIX.index` and `PREFIX.data-*`, or over an archive `NAME.npz`.

    It does not depend on where the files lie or when they were written. The name of one of the files may be given in
    place of the prefix. Raises CheckpointError where they are missing.
    """
    if prefix.suffix == ".npz" and prefix.is_file():
        return _digest([prefix])
    prefix = prefix.with_name(re.sub(r"\.(index|data-\d+-of-\d+)$", "", prefix.name))
    index = prefix.with_name(f"{prefix.name}.index")
    data = sorted(prefix.parent.glob(f"{prefix.name}.data-*"))
    if not index.is_file() or not data:
        raise CheckpointError(
            f"There is no checkpoint {prefix}: expected the files {index.name} and {prefix.name}.data-00000-of-00001 "
            f"in {prefix.parent}. Train first, or give the common beginning of their names."
        )
    return _digest([index, *data])


def _digest(paths: list[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        content = path.read_bytes()
        digest.update(f"{len(content)}:".encode() + content)
    return digest.hexdigest()
