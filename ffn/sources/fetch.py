"""Bringing public data to the folder that the configuration names: linked from a mirror, or downloaded."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from ffn.config import Source
from ffn.errors import FetchError
from ffn.files import atomic_path, remove, rename, temporary_path, write_json
from ffn.progress import log
from ffn.sources.archive import NoSuchRevision, archive_url, extract
from ffn.sources.catalogue import DATASETS, Dataset
from ffn.sources.verify import problems_of


@dataclass(frozen=True)
class Fetched:
    """What `fetch` did: the data set, its folder, and where the data are from (a path or URL)."""

    dataset: str
    folder: str
    origin: str


def record_path(folder: Path) -> Path:
    """The done-marker beside a fetched folder, which itself may be a link into a read-only mirror."""
    return folder.with_name(f"{folder.name}.fetched.json")


def fetch_all(sources: Iterable[Source]) -> list[Fetched]:
    """Fetch every source of a configuration, see `fetch`."""
    return [fetch(source) for source in sources]


def fetch(source: Source) -> Fetched:
    """Make `source.folder` hold the data set, verified; done already: nothing is transferred.

    A mirror that holds the data set is linked to; else it is downloaded from GitHub, appearing under its name only
    when complete and verified. What the user has put at `source.folder` is used if it is the data set, and never
    replaced. Raises FetchError.
    """
    dataset = DATASETS[source.dataset]
    folder = Path(source.folder)
    origin = _present(folder, dataset) or _linked(source, folder, dataset) or _downloaded(folder, dataset)
    result = Fetched(source.dataset, str(folder), origin)
    record = record_path(folder)
    # Left alone where it exists, so that nothing downstream looks out of date.
    if not record.exists():
        write_json(record, {**asdict(result), "licence": dataset.licence, "files": len(dataset.files)})
    return result


def _present(folder: Path, dataset: Dataset) -> str | None:
    if folder.is_symlink() and not folder.exists():
        log(f"{folder} links to {folder.readlink()}, which is gone; fetching again.")
        remove(folder)
        remove(record_path(folder))
        return None
    if not folder.exists():
        return None
    problems = problems_of(folder, dataset)
    if problems:
        raise FetchError(
            f"{folder} exists but is not the {dataset.title}: {'; '.join(problems)}. "
            "Move it away to have the data fetched again, or choose another folder in data.sources."
        )
    return str(folder.resolve())


def _linked(source: Source, folder: Path, dataset: Dataset) -> str | None:
    if source.mirror is None:
        return None
    copy = (Path(source.mirror) / dataset.mirror_folder).resolve()
    if not copy.is_dir():
        log(f"The mirror {source.mirror} does not hold the {dataset.title} (no folder {copy}).")
        return None
    problems = problems_of(copy, dataset)
    if problems:
        log(f"The mirror {copy} is not used for the {dataset.title}: {'; '.join(problems)}.")
        return None
    with temporary_path(folder) as link:
        link.symlink_to(copy)
        rename(link, folder)
    log(f"{folder} -> {copy} (verified)")
    return str(copy)


def _downloaded(folder: Path, dataset: Dataset) -> str:
    failures = []
    for revision in dataset.revisions:
        url = archive_url(dataset.repository, revision)
        log(f"Downloading the {dataset.title} ({dataset.licence}) from {url}")
        try:
            with atomic_path(folder) as partial:
                partial.mkdir()
                extract(dataset.repository, revision, dataset.folder, dataset.files, partial)
                _require_published(partial, dataset)
        except (NoSuchRevision, _Unusable) as error:
            failures.append(f"{url}: {error}")
            continue
        log(f"{folder}: {len(dataset.files)} files (verified)")
        return url
    raise FetchError(f"The {dataset.title} is not what was published:\n  " + "\n  ".join(failures))


def _require_published(folder: Path, dataset: Dataset) -> None:
    problems = problems_of(folder, dataset)
    if problems:
        raise _Unusable("; ".join(problems))


class _Unusable(Exception):  # noqa: N818 - only steers `_downloaded`
    """An archive arrived, but without the data set as published."""
