"""The local server: layers with the right headers, the bundled Neuroglancer, and what it refuses."""

import gzip
import http.client
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest
import tensorstore
from cloudvolume import CloudVolume
from exported import make_run

from ffn.cli import main
from ffn.errors import ViewError
from ffn.export import ViewServer, export_run
from ffn.runs import RunPaths


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = make_run(tmp_path_factory.mktemp("view"))
    export_run(config)
    return RunPaths.of(config).root


@pytest.fixture(scope="module")
def server(run: Path) -> Iterator[ViewServer]:
    with ViewServer(run, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def ask(
    server: ViewServer, path: str, method: str = "GET", headers: dict[str, str] | None = None
) -> tuple[http.client.HTTPResponse, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    connection.request(method, path, headers=headers or {})
    response = connection.getresponse()
    content = response.read()
    connection.close()
    return response, content


SHARD = "/segmentation/8_10_12/0.shard"
CHUNK = "/older/8_8_8/0-16_0-16_0-16"


@pytest.fixture(scope="module")
def older(run: Path) -> Path:
    """A layer of an earlier version, a compressed file for each chunk."""
    values = np.arange(16**3, dtype=np.uint64).reshape(16, 16, 16)
    folder = run / "export" / "older"
    CloudVolume.from_numpy(
        values, f"precomputed://file://{folder}", (8, 8, 8), chunk_size=(16, 16, 16), layer_type="segmentation",
        encoding="compressed_segmentation", progress=False,
    )  # fmt: skip
    return folder


def test_layer_read_through_http_equals_the_one_on_disk(server: ViewServer, run: Path, older: Path) -> None:
    for name in ("image", "segmentation", "truth", older.name):
        there = CloudVolume(f"precomputed://{server.address}/{name}", progress=False)
        here = CloudVolume(f"precomputed://file://{run}/export/{name}", progress=False)
        np.testing.assert_array_equal(there[:], here[:])


def test_shards_are_read_through_http_by_tensorstore(server: ViewServer, run: Path) -> None:
    def opened(kvstore: str) -> np.ndarray:
        return tensorstore.open({"driver": "neuroglancer_precomputed", "kvstore": kvstore}).result().read().result()

    for name in ("image", "segmentation"):
        there, here = opened(f"{server.address}/{name}/"), opened(f"file://{run}/export/{name}/")
        np.testing.assert_array_equal(there, here)


def test_stored_gzip_is_declared_as_such(server: ViewServer, run: Path, older: Path) -> None:
    stored = (run / f"export{CHUNK}.gz").read_bytes()
    response, content = ask(server, CHUNK, headers={"Accept-Encoding": "gzip, br"})
    assert response.headers["Content-Encoding"] == "gzip"
    assert content == stored
    response, content = ask(server, CHUNK, headers={"Accept-Encoding": "identity"})
    assert response.headers["Content-Encoding"] is None
    assert content == gzip.decompress(stored)
    response, content = ask(server, CHUNK, "HEAD", {"Accept-Encoding": "gzip"})
    assert (response.status, response.headers["Content-Length"], content) == (200, str(len(stored)), b"")


@pytest.mark.parametrize(
    ("asked", "first", "stop"),
    [
        ("bytes=0-15", 0, 16),
        ("bytes=16-16", 16, 17),
        ("bytes=100-", 100, None),
        ("bytes=-7", -7, None),
        ("bytes=5-99999999999999999999", 5, None),
        ("bytes=-99999999999999999999", 0, None),
    ],
)
def test_a_range_is_answered_with_its_bytes(
    server: ViewServer, run: Path, asked: str, first: int, stop: int | None
) -> None:
    whole = (run / f"export{SHARD}").read_bytes()
    response, content = ask(server, SHARD, headers={"Range": asked})
    assert response.status == 206
    assert content == whole[first:stop]
    begin = first % len(whole)
    assert response.headers["Content-Range"] == f"bytes {begin}-{begin + len(content) - 1}/{len(whole)}"
    assert response.headers["Content-Length"] == str(len(content))


@pytest.mark.parametrize("asked", ["bytes=99999999999-", "bytes=99999999999-99999999999", "bytes=-0"])
def test_a_range_beyond_the_end_is_refused(server: ViewServer, run: Path, asked: str) -> None:
    response, content = ask(server, SHARD, headers={"Range": asked})
    size = (run / f"export{SHARD}").stat().st_size
    assert (response.status, response.headers["Content-Range"], content) == (416, f"bytes */{size}", b"")


@pytest.mark.parametrize(
    "headers",
    [
        {"Range": "bytes=0-3,8-11"},
        {"Range": "bytes=7-3"},
        {"Range": "bytes=-"},
        {"Range": "lines=0-3"},
        {"Range": "bytes=0-3", "If-Range": '"a validator"'},
        {},
    ],
)
def test_other_ranges_get_the_whole_file(server: ViewServer, run: Path, headers: dict[str, str]) -> None:
    response, content = ask(server, SHARD, headers=headers)
    assert response.status == 200
    assert response.headers["Accept-Ranges"] == "bytes"
    assert content == (run / f"export{SHARD}").read_bytes()


def test_the_size_of_a_file_is_told_without_it(server: ViewServer, run: Path) -> None:
    response, content = ask(server, SHARD, "HEAD", {"Range": "bytes=0-3"})
    size = (run / f"export{SHARD}").stat().st_size
    assert (response.status, response.headers["Content-Length"], content) == (200, str(size), b"")
    assert response.headers["Accept-Ranges"] == "bytes"


def test_of_a_huge_shard_only_what_is_asked_for_is_read(server: ViewServer, run: Path) -> None:
    # Far larger than memory: a file with a hole, which reading as a whole could not get past.
    huge = run / "export" / "image" / "huge.shard"
    with huge.open("wb") as file:
        file.seek(1 << 42)
        file.write(b"the end")
    response, content = ask(server, "/image/huge.shard", headers={"Range": f"bytes={1 << 42}-"})
    huge.unlink()
    assert (response.status, content) == (206, b"the end")


def test_one_connection_serves_many_requests_missing_files_among_them(server: ViewServer) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    connection.connect()
    assert connection.sock is not None
    mine = connection.sock.getsockname()
    for path, status in [(SHARD, 200), ("/image/8_10_12/7.shard", 404), (SHARD, 416), ("/image/info", 200)]:
        connection.request("GET", path, headers={"Range": "bytes=-0"} if status == 416 else {})
        response = connection.getresponse()
        response.read()
        assert response.status == status
        assert connection.sock is not None
        assert connection.sock.getsockname() == mine
    connection.close()


@pytest.mark.parametrize("path", ["/image/info", SHARD, "/image/missing", "/state.json"])
def test_any_other_neuroglancer_may_read_it(server: ViewServer, path: str) -> None:
    response, _ = ask(server, path, headers={"Origin": "https://neuroglancer-demo.appspot.com"})
    assert response.headers["Access-Control-Allow-Origin"] == "*"
    assert response.status == (404 if "missing" in path else 200)
    exposed = response.headers["Access-Control-Expose-Headers"].split(", ")
    assert {"Content-Range", "Accept-Ranges", "Content-Length"} <= set(exposed)
    preflight, _ = ask(server, path, "OPTIONS", {"Access-Control-Request-Headers": "range"})
    assert preflight.status == 204
    assert preflight.headers["Access-Control-Allow-Headers"] == "*"
    assert "GET" in preflight.headers["Access-Control-Allow-Methods"]


def test_link_holds_the_state_with_this_servers_layers(server: ViewServer) -> None:
    response, _ = ask(server, "/")
    assert response.status == 302
    location = f"{server.address}{response.headers['Location']}"
    assert location == server.link
    state = json.loads(unquote(urlsplit(location).fragment).removeprefix("!"))
    assert state["layers"][0]["source"] == f"precomputed://{server.address}/image"
    assert json.loads(ask(server, "/state.json")[1]) == state


def test_behind_a_tunnel_the_layers_are_where_the_browser_looks(server: ViewServer) -> None:
    response, _ = ask(server, "/", headers={"Host": "localhost:1234"})
    assert "precomputed://http://localhost:1234/image" in unquote(response.headers["Location"])


def test_neuroglancer_comes_from_this_server(server: ViewServer) -> None:
    response, page = ask(server, "/v/run/")
    assert response.headers["Content-Type"] == "text/html"
    scripts = [part.split('"')[0] for part in page.decode().split('src="')[1:]]
    assert scripts
    for script in scripts:
        assert "://" not in script
        response, content = ask(server, f"/v/run/{script}")
        assert (response.status, response.headers["Content-Type"]) == (200, "text/javascript")
        assert content


@pytest.mark.parametrize(
    "path",
    [
        "/../assemble/segmentation.h5",
        "/%2e%2e/assemble/segmentation.h5",
        "//etc/hostname",
        "/v/run/../../etc/passwd",
        "/image",
    ],
)
def test_nothing_else_is_served(server: ViewServer, path: str) -> None:
    response, _ = ask(server, path)
    assert response.status == 404


def test_event_stream_stays_open(server: ViewServer) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    connection.request("GET", "/events/run?c=1&gc=")
    response = connection.getresponse()
    assert response.headers["Content-Type"] == "text/event-stream"
    assert not response.isclosed()
    connection.close()


def test_port_that_is_taken(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert main(["view", str(run), "--port", str(port)]) == 2
    assert f"Port {port} on 127.0.0.1 is taken" in capsys.readouterr().err


@pytest.mark.parametrize(("bind", "port"), [("192.0.2.1", 0), ("no such name", 0), ("127.0.0.1", 70000)])
def test_address_that_is_not_there(run: Path, bind: str, port: int) -> None:
    with pytest.raises(ViewError, match=r"--port|--bind"):
        ViewServer(run, bind, port)


def test_run_that_is_not_exported(tmp_path: Path) -> None:
    with pytest.raises(ViewError, match="no run folder"):
        ViewServer(tmp_path / "nothing", "127.0.0.1", 0)
    with pytest.raises(ViewError, match="ffn export"):
        ViewServer(tmp_path, "127.0.0.1", 0)
