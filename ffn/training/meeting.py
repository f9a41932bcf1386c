"""How ranks find each other where a launcher started them and Horovod has only Gloo.

`horovodrun` tells each rank its place and where the rendezvous server listens. `srun`, `aprun` and `mpiexec` tell a
process its number, and a Horovod without MPI can do nothing with that. So the ranks meet in a folder that all of them
see, and end up with the variables that horovodrun would have set:

    rank-00003.json     host of each rank
    server.json         of rank 0: hosts of all ranks, its addresses, port of Horovod's rendezvous server
    met.json            of the first rank on another host: at which of these addresses it reached rank 0

The folder belongs to one launch: it is that of the attempt (`ffn attend`), or is named after the launcher's own number
for the launch, in the working directory.
"""

import json
import socket
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from ffn.attempts import Attempt
from ffn.errors import RankError
from ffn.files import write_json
from ffn.peers import Peer

PATIENCE_S = 300.0
"""How long ranks may differ in when they start."""
_LOOK_S = 0.1
_CONNECT_S = 3.0
_LAUNCH_IDS = (("SLURM_JOB_ID", "SLURM_STEP_ID"), ("ALPS_APP_ID",), ("PALS_APID",))
_FOLDER = Path(".ffn-meetings")
_ITSELF = "127.0.0.1"


def meeting_folder(environment: Mapping[str, str]) -> Path:
    """Folder of this launch. Raises RankError where nothing tells one launch from another."""
    attempt = Attempt.current(environment)
    if attempt is not None:
        return attempt.folder / "meeting"
    for names in _LAUNCH_IDS:
        if all(environment.get(name) for name in names):
            return _FOLDER / ".".join(environment[name] for name in names)
    raise RankError(
        "Several ranks were started, but Horovod was built without MPI, and nothing tells this launch from another. "
        "Start them by `ffn attend --notes FOLDER -- LAUNCHER ... ffn train ...`, with a folder that all ranks see, or "
        "by `horovodrun --gloo`."
    )


def meet(peer: Peer, folder: Path, patience_s: float = PATIENCE_S) -> dict[str, str]:
    """Wait for the other ranks; returns the variables with which Horovod finds them.

    Raises RankError, which names the missing ranks, if they do not come.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_json(_note(folder, peer.rank), {"host": socket.gethostname()})
    if peer.rank == 0:
        server = _serve(peer.size, folder, patience_s)
        reached = own = _where_reached(server, folder, patience_s)
    else:
        server = _awaited(folder / "server.json", patience_s, "rank 0")
        reached, own = _reach(server)
        if peer.rank == _first_elsewhere(server["hosts"]):
            write_json(folder / "met.json", {"address": reached})
    return {
        **places(server["hosts"])[peer.rank],
        "HOROVOD_CONTROLLER": "gloo",
        "HOROVOD_CPU_OPERATIONS": "gloo",
        "HOROVOD_GLOO_RENDEZVOUS_ADDR": reached,
        "HOROVOD_GLOO_RENDEZVOUS_PORT": str(server["port"]),
        "HOROVOD_GLOO_IFACE": _interface(own),
    }


def places(hosts: Sequence[str]) -> list[dict[str, str]]:
    """What Horovod calls each rank's place, from the host of each.

    A rank is numbered among those of its host (local) and among the ranks with its local number (cross).
    """
    on_host: Counter[str] = Counter()
    at_number: Counter[int] = Counter()
    numbers = []
    for host in hosts:
        local = on_host[host]
        numbers.append((local, at_number[local]))
        on_host[host] += 1
        at_number[local] += 1
    return [
        {
            "HOROVOD_HOSTNAME": host,
            "HOROVOD_RANK": str(rank),
            "HOROVOD_SIZE": str(len(hosts)),
            "HOROVOD_LOCAL_RANK": str(local),
            "HOROVOD_LOCAL_SIZE": str(on_host[host]),
            "HOROVOD_CROSS_RANK": str(cross),
            "HOROVOD_CROSS_SIZE": str(at_number[local]),
        }
        for rank, (host, (local, cross)) in enumerate(zip(hosts, numbers, strict=True))
    ]


def _serve(size: int, folder: Path, patience_s: float) -> dict[str, Any]:
    """As rank 0: wait for all ranks, start the rendezvous server and say where it is."""
    from horovod.runner.common.util.hosts import SlotInfo
    from horovod.runner.http.http_server import RendezvousServer

    until = time.monotonic() + patience_s
    while missing := [rank for rank in range(size) if not _note(folder, rank).exists()]:
        if time.monotonic() > until:
            raise RankError(_late(f"ranks {', '.join(map(str, missing))} of {size}", patience_s, folder))
        time.sleep(_LOOK_S)
    hosts = [_read(_note(folder, rank))["host"] for rank in range(size)]
    server = RendezvousServer()
    port = server.start()
    server.init(
        [
            SlotInfo(place["HOROVOD_HOSTNAME"], *(int(place[f"HOROVOD_{name}"]) for name in _SLOT))
            for place in places(hosts)
        ]
    )
    found = {"hosts": hosts, "addresses": _addresses(), "port": port}
    write_json(folder / "server.json", found)
    return found


_SLOT = ("RANK", "LOCAL_RANK", "CROSS_RANK", "SIZE", "LOCAL_SIZE", "CROSS_SIZE")


def _first_elsewhere(hosts: Sequence[str]) -> int | None:
    """The first rank that is not on the host of rank 0."""
    return next((rank for rank, host in enumerate(hosts) if host != hosts[0]), None)


def _where_reached(server: Mapping[str, Any], folder: Path, patience_s: float) -> str:
    """As rank 0: the address of this host at which others find it."""
    rank = _first_elsewhere(server["hosts"])
    if rank is None:
        return _ITSELF
    return str(_awaited(folder / "met.json", patience_s, f"rank {rank} on {server['hosts'][rank]}")["address"])


def _reach(server: Mapping[str, Any]) -> tuple[str, str]:
    """The address at which rank 0 answers, and from which address of this host."""
    candidates = [_ITSELF] if _first_elsewhere(server["hosts"]) is None else list(server["addresses"])
    for address in candidates:
        try:
            with socket.create_connection((address, server["port"]), _CONNECT_S) as connection:
                return address, str(connection.getsockname()[0])
        except OSError:
            continue
    raise RankError(
        f"Rank 0 on {server['hosts'][0]} does not answer on port {server['port']} at any of {', '.join(candidates)} as "
        f"seen from {socket.gethostname()}: is there a firewall between the nodes?"
    )


def _addresses() -> list[str]:
    """IPv4 addresses of this host on networks that are up, but not that of itself."""
    up = psutil.net_if_stats()
    return [
        address.address
        for name, addresses in psutil.net_if_addrs().items()
        for address in addresses
        if address.family == socket.AF_INET and name in up and up[name].isup and not address.address.startswith("127.")
    ]


def _interface(address: str) -> str:
    """The network that an address of this host belongs to."""
    for name, addresses in psutil.net_if_addrs().items():
        if any(found.family == socket.AF_INET and found.address == address for found in addresses):
            return str(name)
    raise RankError(f"No network of {socket.gethostname()} has the address {address}.")


def _awaited(path: Path, patience_s: float, whom: str) -> dict[str, Any]:
    until = time.monotonic() + patience_s
    while not path.exists():
        if time.monotonic() > until:
            raise RankError(_late(whom, patience_s, path.parent))
        time.sleep(_LOOK_S)
    return _read(path)


def _late(whom: str, patience_s: float, folder: Path) -> str:
    return (
        f"Waited {patience_s:g} s for {whom} in {folder}: they were not started, failed, or do not see that folder. "
        "See their own messages."
    )


def _note(folder: Path, rank: int) -> Path:
    return folder / f"rank-{rank:05d}.json"


def _read(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text(encoding="utf-8")))
