"""Runs training by several Horovod ranks over Gloo, once or more, with something happening to one of them.

`main` takes a list of starts, each {"ranks", "folder", "arguments", "acts"}: the `ffn` arguments of every
rank, and by rank [what, when]. A rank counts its *events*: it begins a step, or touches a file below `folder`. At event
number `when` it does `what`: kill (SIGKILL), stop (SIGSTOP), hang (its reader sleeps), fail or bug (its reader raises),
nan (its reader returns no numbers), term (SIGTERM to itself). Prints a JSON list of {"status", "events", "text"}, lists
by rank.

Ranks are forks, so TensorFlow is imported only once, and nobody but Horovod and our own code ends one because of
another. A rank that stops or hangs is killed when the others have ended.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from typing import Any

import numpy as np

import ffn.training.run  # noqa: F401  (what `ffn train` imports, before the forks)
from ffn.cli import main as ffn_main
from ffn.errors import VolumeError
from ffn.training.examples import Example, ExampleSource
from ffn.training.lanes import Lanes

TOUCHES = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.listdir", "os.scandir", "shutil.rmtree")
SIGNS_OF_LIFE = "/ranks/"  # come by the clock
STUCK = ("stop", "hang")
READER = ("hang", "fail", "bug", "nan")
RENDEZVOUS = """
import sys
from horovod.runner.common.util.hosts import get_host_assignments, parse_hosts
from horovod.runner.http.http_server import RendezvousServer
server = RendezvousServer()
print(server.start(), flush=True)
server.init(get_host_assignments(parse_hosts(f"localhost:{sys.argv[1]}"), int(sys.argv[1])))
print("ready", flush=True)
sys.stdin.read()
"""


class Watch:
    """Counts the events of this process, and acts at one of them."""

    def __init__(self, folder: str, act: list[Any] | None) -> None:
        self.events = 0
        self._folder, (self._what, self._when) = folder, act or (None, 0)
        self._due = False
        sys.addaudithook(self._touched)
        begin, load = Lanes.batches, ExampleSource.load

        def batches(lanes: Lanes, *arguments: Any) -> Any:
            self._happen()
            return begin(lanes, *arguments)

        def example(source: ExampleSource, *arguments: Any) -> Example:
            return self._read(load(source, *arguments))

        Lanes.batches, ExampleSource.load = batches, example  # type: ignore[method-assign]

    def _touched(self, event: str, args: tuple[object, ...]) -> None:
        if event in TOUCHES and args and self._folder in str(args[0]) and SIGNS_OF_LIFE not in str(args[0]):
            self._happen()

    def _happen(self) -> None:
        self.events += 1
        if self.events != self._when:
            return
        self._due = True
        sent = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP, "term": signal.SIGTERM}.get(self._what)
        if sent is not None:
            os.kill(os.getpid(), sent)

    def _read(self, example: Example) -> Example:
        if not self._due or self._what not in READER:
            return example
        if self._what == "fail":
            raise VolumeError("volume.h5 is damaged inside.")
        if self._what == "bug":
            raise ZeroDivisionError("a bug")
        if self._what == "hang":
            time.sleep(1e6)
        return Example(example.index, np.full_like(example.image, np.nan), example.labels)


def rank_environment(rank: int, ranks: int, port: int) -> dict[str, str]:
    """What horovodrun sets for a rank on this machine."""
    values = {
        "RANK": rank, "SIZE": ranks, "LOCAL_RANK": rank, "LOCAL_SIZE": ranks, "CROSS_RANK": 0, "CROSS_SIZE": 1,
        "HOSTNAME": "localhost", "GLOO_RENDEZVOUS_ADDR": "127.0.0.1", "GLOO_RENDEZVOUS_PORT": port,
        "GLOO_IFACE": "lo", "CONTROLLER": "gloo", "CPU_OPERATIONS": "gloo",
    }  # fmt: skip
    return {f"HOROVOD_{name}": str(value) for name, value in values.items()}


def rank_process(start: dict[str, Any], rank: int, port: int, report: int, text: int) -> None:
    """The child's life."""
    os.environ.update(rank_environment(rank, start["ranks"], port))
    for descriptor in (1, 2):
        os.dup2(text, descriptor)
    watch, status = Watch(start["folder"], start["acts"].get(str(rank))), 70
    try:
        status = ffn_main(start["arguments"])
        sys.stdout.flush()
    finally:
        os.write(report, str(watch.events).encode())
        sys.stderr.flush()
        os._exit(status)


def run(start: dict[str, Any]) -> dict[str, Any]:
    """One start of all ranks, to the end of the last one."""
    ranks = start["ranks"]
    server = subprocess.Popen(
        [sys.executable, "-c", RENDEZVOUS, str(ranks)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    port = int(server.stdout.readline())  # type: ignore[union-attr]
    server.stdout.readline()  # type: ignore[union-attr]
    children, reports, texts = [], [], []
    for rank in range(ranks):
        reader, writer = os.pipe()
        text = tempfile.TemporaryFile("w+")  # noqa: SIM115  (read when the child has ended)
        child = os.fork()
        if child == 0:
            rank_process(start, rank, port, writer, text.fileno())
        os.close(writer)
        children.append(child)
        reports.append(os.fdopen(reader))
        texts.append(text)
    stuck = [int(rank) for rank, (what, _) in start["acts"].items() if what in STUCK]
    status = {rank: _wait(children[rank]) for rank in range(ranks) if rank not in stuck}
    for rank in stuck:
        os.kill(children[rank], signal.SIGKILL)
        status[rank] = _wait(children[rank])
    server.communicate("")
    for text in texts:
        text.seek(0)
    return {
        "status": [status[rank] for rank in range(ranks)],
        "events": [int(report.read() or 0) for report in reports],
        "text": [text.read() for text in texts],
    }


def _wait(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main(starts: list[dict[str, Any]]) -> None:
    """All starts, one after the other."""
    json.dump([run(start) for start in starts], sys.stdout)
