"""Something happens to one of several real Horovod ranks: all end, say why, and the same command goes on."""

import json
import random
from pathlib import Path
from typing import Any

import forks
import numpy as np
import pytest
import yaml
from tiny_training import needs_horovod, settings

from ffn.config import parse_config
from ffn.model.checkpoint import read_tensors
from ffn.prepare.run import prepare_training

pytestmark = needs_horovod
RESULTS = ("model.ckpt.index", "model.ckpt.data-00000-of-00001", "model.json", "curves.csv")
STALL_S = 5


def write(folder: Path, name: str = "config.yaml", **training: Any) -> Path:
    values = settings(folder, **{"batch": 1, "ranks": 2, "checkpoint_every": 4, "log_every": 6, **training})
    values["allreduce"] = {"stall_s": STALL_S}
    (folder / name).write_text(yaml.safe_dump(values))
    return folder / name


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("company")
    prepare_training(parse_config(settings(folder)))
    return folder


def start(config: Path, output: Path, **acts: list[Any]) -> dict[str, Any]:
    """A start of two ranks; `rank1=["kill", 20]` and the like, see forked_ranks.py."""
    return {
        "ranks": 2,
        "folder": str(output),
        "arguments": ["train", "--config", str(config), "--output", str(output)],
        "acts": {rank.removeprefix("rank"): act for rank, act in acts.items()},
    }


def run(starts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    done = forks.run("forked_ranks:main", starts)
    assert done.returncode == 0, done.stderr
    ends: list[dict[str, Any]] = json.loads(done.stdout)
    return ends


def contents(output: Path) -> dict[str, bytes]:
    return {name: (output / name).read_bytes() for name in RESULTS}


@pytest.fixture(scope="module")
def ends(folder: Path) -> dict[str, dict[str, Any]]:
    """How starts end: an undisturbed one, and others to which something happens, each in a folder of its own."""
    config = write(folder, steps=40)
    acts = {
        "calm": {},
        "killed": {"rank1": ["kill", 30]},
        "first_killed": {"rank0": ["kill", 80]},
        "failed": {"rank1": ["fail", 30]},
        "bug": {"rank0": ["bug", 60]},
        "nan": {"rank1": ["nan", 30]},
        "frozen": {"rank1": ["stop", 30]},
        "stuck": {"rank0": ["hang", 60]},
        "asked": {"rank1": ["term", 30]},
    }
    found = run([start(config, folder / name, **act) for name, act in acts.items()])
    return dict(zip(acts, found, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "status", "rank", "words"),
    [
        ("killed", [75, -9], 0, "Rank 1 was killed (out of memory, a failing node, or kill -9). Rank 0 ends too"),
        ("first_killed", [-9, 75], 1, "Rank 0 was killed (out of memory, a failing node, or kill -9). Rank 1 ends too"),
        ("failed", [2, 2], 0, "ffn: error: Rank 1 failed: volume.h5 is damaged inside. So rank 0 ends too."),
        ("failed", [2, 2], 1, "ffn: error: Rank 1: volume.h5 is damaged inside."),
        ("bug", [1, 2], 0, "ZeroDivisionError: a bug\nThis was on rank 0."),
        ("bug", [1, 2], 1, "Rank 0 failed: ZeroDivisionError: a bug. So rank 1 ends too."),
        ("nan", [2, 2], 0, "ffn: error: The loss is"),  # no number itself, or only its gradient: fused kernels differ
        ("nan", [2, 2], 0, "on another rank: training has diverged"),
        ("nan", [2, 2], 1, "on rank 1: training has diverged"),
        ("frozen", [75, -9], 0, f"Rank 1 did not join the others for {STALL_S} s"),
        ("stuck", [-9, 75], 1, f"Rank 0 did not join the others for {STALL_S} s"),
        ("asked", [75, 75], 0, "stopped by SIGTERM after step"),
    ],
)
def test_all_ranks_end_and_say_why(ends: dict[str, Any], name: str, status: list[int], rank: int, words: str) -> None:
    assert ends[name]["status"] == status, ends[name]["text"]
    assert words in ends[name]["text"][rank]
    if name != "bug":
        assert "Traceback" not in "".join(ends[name]["text"])


@pytest.mark.slow
def test_bad_data_of_one_rank_is_left_out_by_all(folder: Path) -> None:
    config, output = write(folder, "skip.yaml", steps=40, on_nonfinite="skip", max_skipped=40), folder / "skip"
    [end] = run([start(config, output, rank1=["nan", 30])])
    assert end["status"] == [0, 0], end["text"]
    assert "on another rank: update left out (1 so far)" in end["text"][0]
    assert "on rank 1: update left out (1 so far)" in end["text"][1]
    skipped = np.loadtxt(output / "curves.csv", delimiter=",", skiprows=1, usecols=-1)
    assert 0 < skipped.sum() <= end["text"][0].count("update left out")


@pytest.mark.slow
def test_any_of_them_goes_on_to_the_same_end(folder: Path, ends: dict[str, Any]) -> None:
    config = write(folder, steps=40)
    assert ends["calm"]["status"] == [0, 0], ends["calm"]["text"]
    outputs = [folder / name for name in ("killed", "stuck", "asked")]
    for end in run([start(config, output) for output in outputs]):
        assert end["status"] == [0, 0], end["text"]
    for output in outputs:
        assert contents(output) == contents(folder / "calm"), output
        assert not (output / "ranks").exists()


@pytest.mark.slow
def test_one_rank_takes_up_the_lanes_of_two(folder: Path, ends: dict[str, Any]) -> None:
    config, output = write(folder, "virtual.yaml", steps=40, virtual_workers=2, ranks=1), folder / "first_killed"
    [end] = run([{**start(config, output), "ranks": 1}])
    assert end["status"] == [0], end["text"]
    assert "2 -> 1 ranks x 1 -> 2 virtual workers x batch 1, workers 2" in end["text"][0]
    ours, theirs = (read_tensors(path / "model.ckpt") for path in (output, folder / "calm"))
    for name, value in theirs.items():
        np.testing.assert_allclose(ours[name], value, rtol=0, atol=2e-6, err_msg=name)
    tables = [np.loadtxt(path / "curves.csv", delimiter=",", skiprows=1) for path in (output, folder / "calm")]
    np.testing.assert_allclose(tables[0], tables[1], rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_twenty_random_kills(folder: Path) -> None:
    """Of either rank, anywhere from its start on, also in the middle of writing; each time both are started again."""
    config = write(folder, "kills.yaml", steps=90, checkpoint_every=3)
    [calm] = run([start(config, folder / "undisturbed")])
    assert calm["status"] == [0, 0], calm["text"]
    luck = random.Random(20)
    kills = []
    for _ in range(20):
        rank = luck.randrange(2)
        kills.append({f"rank{rank}": ["kill", luck.randrange(1, calm["events"][rank] // 8)]})
    *killed, final = run([start(config, folder / "disturbed", **kill) for kill in [*kills, {}]])
    for kill, end in zip(kills, killed, strict=True):
        [(name, _)] = kill.items()
        assert end["status"] == ([-9, 75] if name == "rank0" else [75, -9]), (kill, end)
    assert final["status"] == [0, 0], final["text"]
    assert "Resuming after step" in final["text"][0]
    assert contents(folder / "disturbed") == contents(folder / "undisturbed")
