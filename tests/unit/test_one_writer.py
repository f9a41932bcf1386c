"""Two `ffn` commands at one stage of one folder: one result, the right one, and the second says who works there."""

import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import yaml
from stopping import killed, stopped, went_on
from tiny_training import environment, run

from ffn.cli import main

VALUES = {
    "run": "twice",
    "synthetic": {"shape": [48, 48, 48], "neurites": 9, "sheets": 1},
    "data": {
        "train": {"image": "synthetic", "labels": "synthetic", "box": "0:40,0:48,0:48"},
        "test": {"image": "synthetic"},
    },
    "network": {"fov": [9, 9, 9], "deltas": [2, 2, 2]},
    "prepare": {"min_size": 100},
}
PAUSING = """
from pathlib import Path
from ffn.cli import main
rename = Path.replace
def replace(path, target):
    if target.name == sys.argv[1]:
        pause()
    return rename(path, target)
Path.replace = replace
sys.exit(main(sys.argv[2:]))
"""
STAGES = {"synth": "volume.h5", "prepare": "partitions.h5"}
"""Each with the file at which the first command stops."""
pytestmark = pytest.mark.slow


def written(folder: Path, stage: str) -> list[str]:
    command = [stage, "--config", str(folder / "config.yaml")]
    (folder / "config.yaml").write_text(yaml.safe_dump({**VALUES, "results": str(folder / "results")}))
    if stage == "prepare":
        assert main(["synth", *command[1:]]) == 0
    return command


def contents(folder: Path) -> dict[str, bytes | list[np.ndarray]]:
    """Files by name, of HDF5 the arrays."""
    found: dict[str, bytes | list[np.ndarray]] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix == ".h5":
            with h5py.File(path) as file:
                found[path.name] = [file[name][...] for name in sorted(file)]
        elif path.suffix != ".json":
            found[path.name] = path.read_bytes()
        else:
            found[path.name] = b""
    return found


def assert_right(folder: Path, stage: str, reference: Path) -> None:
    assert main(written(reference, stage)) == 0
    actual, expected = (contents(base / "results/twice" / stage) for base in (folder, reference))
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        if isinstance(value, bytes):
            assert actual[name] == value
        else:
            assert value
            for here, there in zip(actual[name], value, strict=True):
                np.testing.assert_array_equal(here, there)


def test_the_second_is_told_who_works_there_and_the_first_goes_on(tmp_path):
    stage = "synth"
    (tmp_path / "reference").mkdir()
    command = written(tmp_path, stage)
    with stopped(PAUSING, STAGES[stage], *command) as first:
        second = run([sys.executable, "-m", "ffn", *command], env=environment())
        assert second.returncode == 2
        assert f"/{stage}: process {first.pid} on " in second.stderr
        assert "Wait until it ends, or stop it; then give the same command again" in second.stderr
        assert "Traceback" not in second.stderr
        code, _, err = went_on(first)
        assert code == 0, err
    assert_right(tmp_path, stage, tmp_path / "reference")
    assert main(command) == 0


def test_the_second_waits_where_it_is_told_to(tmp_path):
    stage = "synth"
    (tmp_path / "reference").mkdir()
    command = written(tmp_path, stage)
    with stopped(PAUSING, STAGES[stage], *command) as first:
        words = [sys.executable, "-m", "ffn", *command, "--wait"]
        with subprocess.Popen(words, env=environment(), stderr=subprocess.PIPE, text=True) as second:
            assert "is locked by process" in second.stderr.readline()
            code, _, err = went_on(first)
            assert code == 0, err
            second.communicate()
            assert second.returncode == 0
    assert_right(tmp_path, stage, tmp_path / "reference")


def test_at_a_stage_of_blocks_the_second_does_what_the_first_has_left(tmp_path):
    stage = "prepare"
    (tmp_path / "reference").mkdir()
    command = written(tmp_path, stage)
    with stopped(PAUSING, STAGES[stage], *command) as first:
        second = run([sys.executable, "-m", "ffn", *command], env=environment())
        assert second.returncode == 0, second.stderr
        code, _, err = went_on(first)
        assert code == 0, err
    assert_right(tmp_path, stage, tmp_path / "reference")


@pytest.mark.parametrize("stage", STAGES)
def test_after_the_first_was_killed_the_second_does_the_work_at_once(tmp_path, stage):
    (tmp_path / "reference").mkdir()
    command = written(tmp_path, stage)
    with stopped(PAUSING, STAGES[stage], *command) as first:
        killed(first)
        second = run([sys.executable, "-m", "ffn", *command], env=environment())
        assert second.returncode == 0, second.stderr
    assert_right(tmp_path, stage, tmp_path / "reference")


def test_who_finds_the_work_done_meanwhile_leaves_it_alone(tmp_path):
    """The second looked before the first had begun, and gets the lock when the first has ended."""
    command = written(tmp_path, "synth")
    before_locking = PAUSING.replace(
        "rename = ", "import ffn.locks\nacquire = ffn.locks._acquire\n"
        "def late(*arguments):\n    pause()\n    return acquire(*arguments)\n"
        "ffn.locks._acquire = late\nrename = ",
    )  # fmt: skip
    with stopped(before_locking, "nothing", *command) as second:
        assert main(command) == 0
        before = {path: path.stat().st_mtime_ns for path in (tmp_path / "results/twice/synth").iterdir()}
        assert went_on(second)[0] == 0
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "results/twice/synth").iterdir()} == before
