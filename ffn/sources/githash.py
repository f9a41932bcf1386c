"""Git's object hashes of files and folders, without git."""

import hashlib
from pathlib import Path

_CHUNK = 1 << 20


def blob_sha1(path: Path) -> str:
    """SHA-1 of a file as git names it: of `blob <size>`, a zero byte and the contents."""
    digest = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def tree_sha1(folder: Path) -> str:
    """SHA-1 of a flat folder of ordinary files as git names it, whatever their permissions here."""
    entries = b"".join(
        b"100644 " + path.name.encode() + b"\0" + bytes.fromhex(blob_sha1(path))
        for path in sorted(folder.iterdir(), key=lambda p: p.name.encode())
    )
    return hashlib.sha1(b"tree %d\0" % len(entries) + entries, usedforsecurity=False).hexdigest()
