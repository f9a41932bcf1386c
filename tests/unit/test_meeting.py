"""Ranks that a launcher started without Horovod's knowledge, as real processes over Gloo."""

import json
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import psutil
import pytest
from tiny_training import environment, needs_horovod

from ffn.errors import RankError
from ffn.peers import Peer
from ffn.training.meeting import meet, meeting_folder, places

JOIN = """
import json, sys
import numpy as np
from ffn.training.ranks import Ranks
launched = int(sys.argv[1]) if sys.argv[1:] else None
ranks = Ranks.start(launched=launched)
total = ranks.sum(np.array([1.0, ranks.rank]))
print("JOINED", json.dumps([ranks.rank, ranks.size, ranks.local_rank, ranks.local_size, total.tolist()]))
"""
ON_HOST = "import os, socket; socket.gethostname = lambda: os.environ['HOST']\n"


def join(folder: Path, variables: list[Mapping[str, str]], *arguments: str, code: str = JOIN) -> list[list]:
    """Start one process for each of the environments; returns what the ranks found, in order."""
    common = {**environment(), "PYTHONPATH": str(Path(__file__).parents[2]), "FFN_ATTEMPT": str(folder)}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code, *arguments],
            env={**common, **own},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for own in variables
    ]
    ended = [process.communicate(timeout=120) for process in started]
    assert [process.returncode for process in started] == [0] * len(started), [err[-2000:] for _, err in ended]
    return [json.loads(out.split("JOINED ")[1]) for out, _ in ended]


@needs_horovod
@pytest.mark.slow
def test_ranks_of_aprun_find_each_other(tmp_path):
    found = join(tmp_path, [{"ALPS_APP_PE": str(rank)} for rank in range(3)], "3")
    assert found == [[rank, 3, rank, 3, [3.0, 3.0]] for rank in range(3)]
    assert list(tmp_path.iterdir()) == []


@needs_horovod
@pytest.mark.slow
def test_ranks_on_several_hosts_find_each_other_over_the_network(tmp_path):
    if not any(
        address.family == socket.AF_INET and not address.address.startswith("127.")
        for addresses in psutil.net_if_addrs().values()
        for address in addresses
    ):
        pytest.skip("this machine has no network but its own")
    variables = [
        {"SLURM_PROCID": str(rank), "SLURM_STEP_NUM_TASKS": "4", "HOST": host}
        for rank, host in enumerate(["left", "right", "left", "right"])
    ]
    found = join(tmp_path, variables, code=ON_HOST + JOIN)
    assert found == [[rank, 4, rank // 2, 2, [4.0, 6.0]] for rank in range(4)]


def test_places_of_ranks_dealt_out_over_uneven_hosts():
    found = [
        tuple(int(place[f"HOROVOD_{name}"]) for name in ("LOCAL_RANK", "LOCAL_SIZE", "CROSS_RANK", "CROSS_SIZE"))
        for place in places(["a", "b", "a", "a"])
    ]
    assert found == [(0, 3, 0, 2), (0, 1, 1, 2), (1, 3, 0, 1), (2, 3, 0, 1)]


@needs_horovod
def test_rank_0_names_those_that_do_not_come(tmp_path):
    with pytest.raises(RankError, match=r"Waited 0\.3 s for ranks 1, 2 of 3"):
        meet(Peer(0, 3), tmp_path, patience_s=0.3)


def test_the_others_wait_for_rank_0(tmp_path):
    with pytest.raises(RankError, match=r"Waited 0\.3 s for rank 0 in "):
        meet(Peer(2, 3), tmp_path, patience_s=0.3)


def test_a_server_out_of_reach(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (tmp_path / "server.json").write_text(json.dumps({"hosts": ["a", "b"], "addresses": ["127.0.0.1"], "port": port}))
    with pytest.raises(RankError, match=rf"Rank 0 on a does not answer on port {port} at any of 127\.0\.0\.1"):
        meet(Peer(1, 2), tmp_path, patience_s=0.3)


@pytest.mark.parametrize(
    ("variables", "folder"),
    [
        ({"FFN_ATTEMPT": "/notes", "SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0"}, "/notes/meeting"),
        ({"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0"}, ".ffn-meetings/7.0"),
        ({"ALPS_APP_ID": "123"}, ".ffn-meetings/123"),
    ],
)
def test_each_launch_meets_in_a_folder_of_its_own(variables, folder):
    assert meeting_folder(variables) == Path(folder)


def test_a_launch_that_nothing_tells_from_another():
    with pytest.raises(RankError, match="ffn attend --notes FOLDER"):
        meeting_folder({"SLURM_JOB_ID": "7"})
