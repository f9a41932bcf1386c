"""Public data: linked from a mirror or downloaded from a server on this machine, verified, never half there."""

import gzip
import io
import json
import subprocess
import tarfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ffn.cli import main
from ffn.config import Source
from ffn.errors import FetchError
from ffn.sources import DATASETS, Dataset, archive, fetch, problems_of, record_path
from ffn.sources.catalogue import Stack
from ffn.sources.githash import blob_sha1, tree_sha1

TRUTH = b"ground truth" * 1000


def make_sample(folder: Path, slices: int = 5) -> None:
    """What the repository's `training_sample2` looks like, small."""
    (folder / "grayscale_maps").mkdir(parents=True)
    for number in range(10, 10 + slices):
        Image.fromarray(np.full((4, 6), number, np.uint8)).save(folder / f"grayscale_maps/iso.{number:04d}.png")
    (folder / "groundtruth.h5.gz").write_bytes(TRUTH)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A clone of a repository with the data and things nobody asked for."""
    root = tmp_path / "clone"
    make_sample(root / "sample")
    make_sample(root / "other_sample")
    (root / "sample/watershed.h5.gz").write_bytes(b"not wanted")
    (root / "zzz.txt").write_text("after the data")
    return root


@pytest.fixture(params=["known slices", "slices known by shape"])
def dataset(request: pytest.FixtureRequest, repository: Path, monkeypatch: pytest.MonkeyPatch) -> Dataset:
    sample = repository / "sample"
    tree = tree_sha1(sample / "grayscale_maps") if request.param == "known slices" else None
    made = Dataset(
        title="small sample",
        licence="CC0",
        repository="lab/examples",
        revisions=("c0ffee", "HEAD"),
        folder="sample",
        mirror_folder="sample",
        blobs={"groundtruth.h5.gz": blob_sha1(sample / "groundtruth.h5.gz")},
        stack=Stack("grayscale_maps", "iso.{:04d}.png", 10, 14, (4, 6), tree),
    )
    monkeypatch.setitem(DATASETS, "fib25_test", made)
    return made


def tarball(root: Path) -> bytes:
    """An archive as GitHub makes it: everything below a folder named after the revision, sorted by name."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for path in sorted(root.rglob("*")):
            tar.add(path, f"examples-c0ffee/{path.relative_to(root)}", recursive=False)
    return packed.getvalue()


class Server:
    """Answers a path with bytes, or with a status; every request is noted."""

    def __init__(self) -> None:
        self.answers: dict[str, list[bytes | int]] = {}
        self.asked: list[str] = []
        self.address = ""

    def respond(self, handler: BaseHTTPRequestHandler) -> None:
        self.asked.append(handler.path)
        waiting = self.answers.get(handler.path, [404])
        answer = waiting.pop(0) if len(waiting) > 1 else waiting[0]
        handler.send_response(answer if isinstance(answer, int) else 200)
        handler.end_headers()
        if isinstance(answer, bytes):
            handler.wfile.write(answer)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.respond(self)

        def log_message(self, format: str, *args: object) -> None:
            pass

    monkeypatch.setattr(archive, "_PAUSE_S", 0.0)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as service:
        state.address = f"http://127.0.0.1:{service.server_port}"
        monkeypatch.setenv(archive.ADDRESS_VARIABLE, state.address)
        thread = threading.Thread(target=service.serve_forever, args=(0.01,))
        thread.start()
        yield state
        service.shutdown()
        thread.join()


PINNED, HEAD = "/lab/examples/tar.gz/c0ffee", "/lab/examples/tar.gz/HEAD"


def source(folder: Path, mirror: Path | None = None) -> Source:
    return Source(dataset="fib25_test", folder=str(folder), mirror=None if mirror is None else str(mirror))


def files_of(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_hashes_are_those_of_git(tmp_path: Path) -> None:
    def git(*args: str) -> str:
        return subprocess.run(["git", *args], cwd=tmp_path, capture_output=True, text=True, check=True).stdout

    git("init", "-q")
    folder = tmp_path / "data"
    folder.mkdir()
    for name, content in {"b": b"x" * 3_000_000, "a.10": b"", "a.9": b"z\0\n", "ä": b"1"}.items():
        (folder / name).write_bytes(content)
    git("add", ".")
    assert tree_sha1(folder) == git("write-tree", "--prefix=data/").strip()
    assert blob_sha1(folder / "b") == git("hash-object", "data/b").strip()


def test_a_download_holds_the_data_set_and_nothing_else(
    tmp_path: Path, dataset: Dataset, repository: Path, server: Server
) -> None:
    server.answers[PINNED] = [tarball(repository)]
    folder = tmp_path / "work/data/sample"
    fetched = fetch(source(folder))
    assert fetched.origin == server.address + PINNED
    assert files_of(folder) == set(dataset.files)
    assert (folder / "groundtruth.h5.gz").read_bytes() == TRUTH
    assert {path.name for path in folder.parent.iterdir()} == {"sample", "sample.fetched.json"}
    record = json.loads(record_path(folder).read_text())
    assert record["dataset"] == "fib25_test"
    assert record["files"] == 6


def test_fetching_again_asks_nobody_and_touches_nothing(
    tmp_path: Path, dataset: Dataset, repository: Path, server: Server
) -> None:
    server.answers[PINNED] = [tarball(repository)]
    folder = tmp_path / "sample"
    fetch(source(folder))
    before = record_path(folder).stat().st_mtime_ns
    fetch(source(folder))
    assert server.asked == [PINNED]
    assert record_path(folder).stat().st_mtime_ns == before


def test_a_mirror_is_linked_not_copied(tmp_path: Path, dataset: Dataset, repository: Path, server: Server) -> None:
    (repository / "sample/watershed.h5.gz").unlink()
    folder = tmp_path / "data/sample"
    for _ in range(2):
        assert fetch(source(folder, repository)).origin == str(repository / "sample")
    assert folder.is_symlink()
    assert folder.resolve() == repository / "sample"
    assert server.asked == []


def test_a_mirror_may_be_the_data_set_itself(tmp_path: Path, dataset: Dataset, repository: Path) -> None:
    made = replace(dataset, mirror_folder="")
    assert problems_of(repository / "sample", made) == []


def damage(path: Path) -> Callable[[Path], None]:
    return lambda root: (root / path).write_bytes(b"something else")


DAMAGES: dict[str, Callable[[Path], None]] = {
    "no such folder": lambda root: (root / "sample").rename(root / "elsewhere"),
    "a slice missing": lambda root: (root / "sample/grayscale_maps/iso.0012.png").unlink(),
    "a slice too many": lambda root: (root / "sample/grayscale_maps/iso.0015.png").write_bytes(b"1"),
    "a slice broken": damage(Path("sample/grayscale_maps/iso.0012.png")),
    "another ground truth": damage(Path("sample/groundtruth.h5.gz")),
}


@pytest.mark.parametrize("kind", list(DAMAGES))
def test_a_mirror_without_the_data_set_is_told_and_not_used(
    tmp_path: Path, dataset: Dataset, repository: Path, server: Server, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    server.answers[PINNED] = [tarball(repository)]
    DAMAGES[kind](repository)
    folder = tmp_path / "data/sample"
    fetch(source(folder, repository))
    assert not folder.is_symlink()
    assert problems_of(folder, dataset) == []
    told = capsys.readouterr().err
    assert (
        "does not hold the small sample" if kind == "no such folder" else "is not used for the small sample"
    ) in told


def test_slices_of_another_size_are_noticed(tmp_path: Path, dataset: Dataset, repository: Path) -> None:
    sample = repository / "sample"
    for number in range(10, 15):
        Image.fromarray(np.zeros((5, 6), np.uint8)).save(sample / f"grayscale_maps/iso.{number:04d}.png")
    (problem,) = problems_of(sample, dataset)
    assert "expected" in problem


def test_a_revision_that_is_gone_or_different_leads_to_the_next(
    tmp_path: Path, dataset: Dataset, repository: Path, server: Server
) -> None:
    server.answers[HEAD] = [tarball(repository)]
    fetch(source(tmp_path / "first"))
    assert server.asked == [PINNED, HEAD]
    server.answers[PINNED] = [gzip.compress(b"")]
    with pytest.raises(FetchError):
        fetch(source(tmp_path / "broken"))
    DAMAGES["another ground truth"](repository)
    server.answers[PINNED] = [tarball(repository)]
    assert fetch(source(tmp_path / "second")).origin == server.address + HEAD


def test_data_that_are_nowhere_as_published(tmp_path: Path, dataset: Dataset, repository: Path, server: Server) -> None:
    DAMAGES["another ground truth"](repository)
    server.answers[PINNED] = [tarball(repository)]
    with pytest.raises(FetchError, match=r"(?s)not what was published.*c0ffee: groundtruth.*HEAD.*does not exist"):
        fetch(source(tmp_path / "data/sample"))
    assert list((tmp_path / "data").iterdir()) == []


def test_a_broken_connection_is_tried_again(tmp_path: Path, dataset: Dataset, repository: Path, server: Server) -> None:
    whole = tarball(repository)
    server.answers[PINNED] = [whole[: len(whole) // 2], 503, whole]
    fetch(source(tmp_path / "sample"))
    assert server.asked == [PINNED] * 3


@pytest.mark.parametrize("answer", [b"no archive", 500], ids=["nonsense", "error"])
def test_giving_up_leaves_nothing(tmp_path: Path, dataset: Dataset, server: Server, answer: bytes | int) -> None:
    server.answers[PINNED] = [answer]
    with pytest.raises(FetchError, match="cannot be downloaded"):
        fetch(source(tmp_path / "data/sample"))
    assert server.asked == [PINNED] * 3
    assert list((tmp_path / "data").iterdir()) == []


def test_offline_is_one_clear_sentence(
    tmp_path: Path, dataset: Dataset, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(archive.ADDRESS_VARIABLE, "http://127.0.0.1:9")
    monkeypatch.setattr(archive, "_PAUSE_S", 0.0)
    config = tmp_path / "config.yaml"
    config.write_text(
        "run: a\n"
        "inference: {checkpoint: model.ckpt}\n"
        f"data: {{test: {{image: x.h5:raw}}, sources: [{{dataset: fib25_test, folder: {tmp_path}/sample}}]}}\n"
    )
    assert main(["fetch", "--config", str(config)]) == 2
    told = capsys.readouterr().err
    assert "ffn: error: http://127.0.0.1:9/lab/examples/tar.gz/c0ffee cannot be downloaded" in told
    assert "Connection refused" in told
    assert "give data.sources a mirror" in told
    assert "Traceback" not in told
    assert not (tmp_path / "sample").exists()


def test_what_the_user_put_there_is_used_or_refused_but_never_replaced(
    tmp_path: Path, dataset: Dataset, repository: Path, server: Server
) -> None:
    (repository / "sample/watershed.h5.gz").unlink()
    assert fetch(source(repository / "sample")).origin == str(repository / "sample")
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    with pytest.raises(FetchError, match=r"mine exists but is not the small sample: groundtruth.* is missing, and 5"):
        fetch(source(mine, repository))
    assert files_of(mine) == {"thesis.txt"}
    assert server.asked == []


def test_a_link_to_a_mirror_that_went_away_is_replaced(
    tmp_path: Path, dataset: Dataset, repository: Path, server: Server
) -> None:
    folder = tmp_path / "data/sample"
    fetch(source(folder, repository))
    moved = tmp_path / "moved"
    repository.rename(moved)
    fetch(source(folder, moved))
    assert folder.resolve() == moved / "sample"
    assert json.loads(record_path(folder).read_text())["origin"] == str(moved / "sample")


def test_names_in_an_archive_cannot_lead_elsewhere(tmp_path: Path, dataset: Dataset, server: Server) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name in ("x/sample/../../../escaped", "/escaped", "x/sample/groundtruth.h5.gz"):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
            tar.addfile(member)
    server.answers[PINNED] = [packed.getvalue()]
    with pytest.raises(FetchError, match="is missing"):
        fetch(source(tmp_path / "data/sample"))
    assert {path.name for path in tmp_path.iterdir()} <= {"data", "clone"}


def test_the_catalogue_describes_the_public_volumes() -> None:
    train, test, checkpoint = (DATASETS[name] for name in ("fib25_train", "fib25_test", "fib25_checkpoint"))
    assert len(train.files) == 521
    assert train.blobs["groundtruth.h5.gz"] == "2a325a2435ef3d18df59d006dfb8dcaea06c0203"
    assert train.stack is not None
    assert train.stack.slice_shape == (520, 520)
    assert len(test.files) == 251
    assert checkpoint.files == ["model.ckpt-27465036.data-00000-of-00001", "model.ckpt-27465036.index"]
