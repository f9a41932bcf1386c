"""Files out of a GitHub repository, streamed from its archive: one request, nothing but the wanted files on disk.

Single files could be asked for one by one, but GitHub limits the number of such requests, and a data set here has
hundreds of files.
"""

import gzip
import os
import ssl
import tarfile
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Collection
from http.client import HTTPException
from pathlib import Path
from typing import IO

from ffn.errors import FetchError
from ffn.progress import Progress, log

ADDRESS_VARIABLE = "FFN_GITHUB_ARCHIVES"
_DEFAULT_ADDRESS = "https://codeload.github.com"
_TIMEOUT_S = 60.0
_ATTEMPTS = 3
_PAUSE_S = 5.0
# Not OSError as a whole: a full disk must not look like a broken connection.
_INTERRUPTED = (
    urllib.error.URLError,
    HTTPException,
    ConnectionError,
    TimeoutError,
    ssl.SSLError,
    EOFError,
    gzip.BadGzipFile,
    zlib.error,
    tarfile.TarError,
)


class NoSuchRevision(FetchError):  # noqa: N818 - an outcome the caller expects, not only a mistake
    """The repository does not have this revision (any more)."""


def archive_url(repository: str, revision: str) -> str:
    """Address of the archive; `$FFN_GITHUB_ARCHIVES` replaces GitHub's own server, for a mirror of it."""
    base = os.environ.get(ADDRESS_VARIABLE, _DEFAULT_ADDRESS).rstrip("/")
    return f"{base}/{repository}/tar.gz/{revision}"


def extract(repository: str, revision: str, folder: str, names: Collection[str], target: Path) -> None:
    """Write the files `names` of the repository's `folder` below `target`.

    Names that the archive does not hold are passed over: what arrived is to be verified anyway. A connection that
    breaks is tried again. Raises NoSuchRevision, or FetchError when the server cannot be reached.
    """
    url = archive_url(repository, revision)
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            _stream(url, folder, names, target)
        except urllib.error.HTTPError as error:
            if error.code == 404:
                raise NoSuchRevision(f"{url} does not exist.") from error
            failure = f"the server answers {error.code} {error.reason}"
        except _INTERRUPTED as error:
            failure = str(getattr(error, "reason", error)) or type(error).__name__
        else:
            return
        if attempt < _ATTEMPTS:
            log(f"{url}: {failure}; trying again ({attempt + 1} of {_ATTEMPTS})")
            time.sleep(_PAUSE_S * attempt)
    raise FetchError(
        f"{url} cannot be downloaded: {failure}. Check the connection (behind a proxy set https_proxy), "
        "or give data.sources a mirror with a copy made elsewhere."
    )


def _stream(url: str, folder: str, names: Collection[str], target: Path) -> None:
    request = urllib.request.Request(url, headers={"User-Agent": "ffn-workflow"})
    wanted = set(names)
    with (
        urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer,
        Progress("download", len(wanted), "files") as progress,
    ):
        counted = _Counted(answer, lambda received: progress.advance(0, f"{received / 1e6:.0f} MB received"))
        # gzip, unlike tarfile's own decompression, notices where a stream ends too early.
        with (
            gzip.GzipFile(fileobj=counted) as unpacked,  # type: ignore[call-overload]
            tarfile.open(fileobj=unpacked, mode="r|") as archive,
        ):
            for member in archive:
                # The archive's own top folder is named after repository and revision.
                name = member.name.partition("/")[2].removeprefix(f"{folder}/")
                if name not in wanted or not member.isfile():
                    continue
                content = archive.extractfile(member)
                if content is not None:
                    _save(content, target / name)
                    wanted.discard(name)
                    progress.advance()
                if not wanted:
                    return


def _save(content: IO[bytes], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        while chunk := content.read(1 << 20):
            file.write(chunk)


class _Counted:
    """A readable stream that reports how much has been read, once a megabyte."""

    def __init__(self, stream: IO[bytes], report: Callable[[int], None]) -> None:
        self._stream = stream
        self._report = report
        self._received = self._reported = 0

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(size)
        self._received += len(data)
        if self._received - self._reported >= 1_000_000:
            self._reported = self._received
            self._report(self._received)
        return data
