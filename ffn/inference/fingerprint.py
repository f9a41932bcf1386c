"""Which weights a segmentation was made with."""

import hashlib
from pathlib import Path

from ffn.errors import CheckpointError
from ffn.runs import checkpoint_files


def checkpoint_fingerprint(prefix: Path) -> str:
    """SHA-256 over a checkpoint's files `PREFIX.index` and `PREFIX.data-*`, or over an archive `NAME.npz`.

    It does not depend on where the files lie or when they were written. The name of one of the files may be given in
    place of the prefix. Raises CheckpointError where they are missing.
    """
    files = checkpoint_files(prefix)
    if not files:
        raise CheckpointError(
            f"There is no checkpoint {prefix}: expected the files {prefix.name}.index and "
            f"{prefix.name}.data-00000-of-00001 in {prefix.parent}. Train first, or give the common beginning of their "
            "names."
        )
    return _digest(files)


def _digest(paths: list[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        content = path.read_bytes()
        digest.update(f"{len(content)}:".encode() + content)
    return digest.hexdigest()
