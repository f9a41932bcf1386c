"""A local server for looking at a run: its layers, and Neuroglancer itself, on one port.

The browser needs nothing from the internet: the client is the one inside the `neuroglancer` package. That client
expects to be served below `/v/<name>/` and keeps an event stream at `/events/<name>` open; the state travels in the
link's fragment, so the server keeps none. Layers are served with CORS headers, so that any other Neuroglancer can
show them too. Shards can be many gigabytes: a browser asks for the bytes of one chunk (HTTP Range), and only those are
read.
"""

import errno
import gzip
import importlib.resources
import json
import mimetypes
import os
import re
import socket
import sys
import threading
from functools import cached_property
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote, unquote, urlsplit

from ffn.errors import ViewError
from ffn.export.run import STATE
from ffn.export.state import with_server

_CLIENT = "/v/run/"
_EVENTS = "/events/run"
_HEARTBEAT_S = 15.0


class ViewServer(ThreadingHTTPServer):
    """Serves one run until `shutdown`; `serve_forever` blocks.

    Args:
        run: folder of the run, results/<run>.
        bind: address to listen on; 127.0.0.1 can only be reached from this machine.
        port: 0 takes any free port.

    Raises ViewError where the run has no finished export or the address cannot be listened on.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, run: Path, bind: str, port: int) -> None:
        self.folder = _finished_export(run)
        self.stopped = threading.Event()
        try:
            super().__init__((bind, port), _Handler)
        except (OSError, OverflowError) as error:
            raise ViewError(_why_not_listening(error, bind, port)) from error

    @property
    def address(self) -> str:
        """What a browser on this machine calls the server, such as http://127.0.0.1:9000."""
        host = str(self.server_address[0])
        return f"http://{socket.gethostname() if host == '0.0.0.0' else host}:{self.server_port}"

    @property
    def link(self) -> str:
        """The whole link, with the state in its fragment."""
        return self.address + self.client_path(self.address)

    @cached_property
    def client(self) -> dict[str, Path]:
        """Files of the Neuroglancer client by name."""
        folder = Path(str(importlib.resources.files("neuroglancer.static"))) / "client"
        files = {path.name: path for path in folder.iterdir()} if folder.is_dir() else {}
        if "index.html" not in files:
            raise ViewError(f"The neuroglancer package has no client in {folder}; install it from a wheel of PyPI.")
        return files

    def client_path(self, address: str) -> str:
        """Path and fragment of Neuroglancer with the run's state, the layers being at `address`."""
        text = json.dumps(self.state(address), separators=(",", ":"))
        return f"{_CLIENT}#!{quote(text, safe='')}"

    def state(self, address: str) -> dict[str, Any]:
        """The run's state with its layers at `address`."""
        return with_server(json.loads((self.folder / STATE).read_text(encoding="utf-8")), address)

    def shutdown(self) -> None:
        self.stopped.set()
        super().shutdown()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that goes away in the middle of an answer is not an error."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Headers and contents are sent apart; the second must not wait for the first to be confirmed.
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        if path == "/":
            self._redirect(self._run.client_path(f"http://{self.headers.get('Host', '')}"))
        elif path == "/favicon.ico":
            self._send_nothing(HTTPStatus.NO_CONTENT)
        elif path == _EVENTS:
            self._hold_events()
        elif path == f"/{STATE}":
            state = self._run.state(f"http://{self.headers.get('Host', '')}")
            self._send(json.dumps(state).encode(), "application/json")
        elif path.startswith(_CLIENT):
            self._send_client(path.removeprefix(_CLIENT) or "index.html")
        else:
            self._send_layer_file(path)

    do_HEAD = do_GET  # noqa: N815

    def do_OPTIONS(self) -> None:
        self._send_nothing(HTTPStatus.NO_CONTENT)

    def end_headers(self) -> None:
        self.send_header("Access-Control-Allow-Origin", "*")
        self.send_header("Access-Control-Allow-Methods", "GET, HEAD, OPTIONS")
        self.send_header("Access-Control-Allow-Headers", "*")
        self.send_header(
            "Access-Control-Expose-Headers", "Accept-Ranges, Content-Encoding, Content-Length, Content-Range"
        )
        self.send_header("Access-Control-Allow-Private-Network", "true")
        self.send_header("Cache-Control", "no-cache")
        super().end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: Neuroglancer asks for hundreds of files, some of which it knows may be missing."""

    @property
    def _run(self) -> ViewServer:
        return cast(ViewServer, self.server)

    def _send_client(self, name: str) -> None:
        file = self._run.client.get(name)
        if file is None:
            self._send_nothing(HTTPStatus.NOT_FOUND)
            return
        # Python's table depends on the system's; a wrong type keeps a browser from running these.
        known = {".js": "text/javascript", ".wasm": "application/wasm"}
        self._send_file(file, known.get(file.suffix) or mimetypes.guess_type(name)[0] or "application/octet-stream")

    def _send_layer_file(self, path: str) -> None:
        file = (self._run.folder / path.lstrip("/")).resolve()
        compressed = file.with_name(file.name + ".gz")
        if not file.is_relative_to(self._run.folder):
            self._send_nothing(HTTPStatus.NOT_FOUND)
        elif file.is_file():
            self._send_file(file, "application/json" if file.name == "info" else "application/octet-stream")
        elif compressed.is_file():
            self._send_gzip(compressed.read_bytes())
        else:
            # A box without anything has no file; the connection stays open for the next one.
            self._send_nothing(HTTPStatus.NOT_FOUND)

    def _send_file(self, path: Path, kind: str) -> None:
        """A file, or the part of it that is asked for; no more of it is read."""
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            asked = self._asked_range(size)
            if asked is not None and len(asked) == 0:
                self._send_nothing(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, {"Content-Range": f"bytes */{size}"})
                return
            part = range(size) if asked is None else asked
            self.send_response(HTTPStatus.OK if asked is None else HTTPStatus.PARTIAL_CONTENT)
            if asked is not None:
                self.send_header("Content-Range", f"bytes {part.start}-{part.stop - 1}/{size}")
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(part)))
            self.send_header("Accept-Ranges", "bytes")
            self.end_headers()
            if self.command != "HEAD" and len(part) > 0:
                sent = self.connection.sendfile(file, part.start, len(part))
                # A file that became shorter: only the end of the connection can say so.
                self.close_connection = self.close_connection or sent < len(part)

    def _asked_range(self, size: int) -> range | None:
        """The bytes that the request asks for: None = all, an empty range = none that exist.

        Several ranges at once, and forms that are not valid, may be answered with the whole file (RFC 9110, 14.2); a
        condition (If-Range) never holds, since files are sent without a validator.
        """
        match = re.fullmatch(r"bytes=(\d{0,20})-(\d{0,20})", self.headers.get("Range", "").replace(" ", ""), re.ASCII)
        if self.command != "GET" or match is None or "If-Range" in self.headers:
            return None
        first, last = match.groups()
        if first:
            if last and int(last) < int(first):
                return None
            stop = min(int(last) + 1, size) if last else size
            return range(min(int(first), stop), stop)
        if last:
            return range(max(size - int(last), 0), size)
        return None

    def _send_gzip(self, content: bytes) -> None:
        if "gzip" in self.headers.get("Accept-Encoding", ""):
            self._send(content, "application/octet-stream", {"Content-Encoding": "gzip", "Vary": "Accept-Encoding"})
        else:
            self._send(gzip.decompress(content), "application/octet-stream", {"Vary": "Accept-Encoding"})

    def _send(self, content: bytes, kind: str, headers: dict[str, str] | None = None) -> None:
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _send_nothing(self, status: HTTPStatus, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        if status != HTTPStatus.NO_CONTENT:
            self.send_header("Content-Length", "0")
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()

    def _redirect(self, location: str) -> None:
        self.send_response(HTTPStatus.FOUND)
        self.send_header("Location", location)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _hold_events(self) -> None:
        """Keep the client's event stream open; without it the page says that the server is gone."""
        self.close_connection = True
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        while self.command != "HEAD" and not self._run.stopped.wait(_HEARTBEAT_S):
            self.wfile.write(b":\n\n")


def _finished_export(run: Path) -> Path:
    if not run.is_dir():
        raise ViewError(f"There is no run folder {run}; give one such as results/demo.")
    folder = (run / "export").resolve()
    if not (folder / "done.json").is_file():
        raise ViewError(f"{run} has no finished export; run `ffn export --config FILE` (or the workflow) first.")
    return folder


def _why_not_listening(error: Exception, bind: str, port: int) -> str:
    code = getattr(error, "errno", None)
    if code == errno.EADDRINUSE:
        return f"Port {port} on {bind} is taken; choose another with --port, or --port 0 for any free one."
    if code == errno.EACCES:
        return f"No permission to listen on port {port}; choose one from 1024 on with --port."
    if isinstance(error, OverflowError):
        return f"Port {port} does not exist; choose one from 1024 to 65535 with --port."
    return f"Cannot listen on {bind}, port {port} ({error}); --bind must be an address of this machine."
