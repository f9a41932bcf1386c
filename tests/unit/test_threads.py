"""Thread settings reach the libraries that read them, in time."""

import json
import os
import subprocess
import sys
from pathlib import Path

import forks
import pytest
import yaml
from tiny_training import environment as process_environment
from tiny_training import settings

from ffn.config import Config, Threads, parse_config
from ffn.errors import ConfigError
from ffn.training.threads import common_cores, environment, intra_op, own_cores, set_environment, share, use_devices

STATED = {"onednn": False, "omp": 3, "kmp_blocktime": 0, "kmp_affinity": "granularity=fine,compact,1,0"}
VARIABLES = {
    "TF_ENABLE_ONEDNN_OPTS": "0",
    "OMP_NUM_THREADS": "3",
    "KMP_BLOCKTIME": "0",
    "KMP_AFFINITY": "granularity=fine,compact,1,0",
}

WATCH_THE_IMPORT = """
import json, os, sys

class Watcher:
    def find_spec(self, name, path=None, target=None):
        if name == "tensorflow":
            print(json.dumps({key: os.environ.get(key) for key in sys.argv.pop().split()}), flush=True)
            os._exit(0)

sys.meta_path.insert(0, Watcher())
from ffn.cli import main
main(sys.argv[1:-1])
"""


def test_only_what_is_stated_is_set() -> None:
    assert environment(Threads()) == {}
    assert environment(Threads(**STATED)) == VARIABLES
    assert environment(Threads(kmp_blocktime="infinite", onednn=True)) == {
        "TF_ENABLE_ONEDNN_OPTS": "1",
        "KMP_BLOCKTIME": "infinite",
    }


def test_the_configuration_goes_before_the_launcher_which_goes_before_nothing() -> None:
    variables = {"KMP_BLOCKTIME": "200", "OMP_NUM_THREADS": "64"}
    set_environment(Threads(kmp_blocktime=0), variables)
    assert variables == {"KMP_BLOCKTIME": "0", "OMP_NUM_THREADS": "64"}


def test_variables_that_come_too_late_are_reported(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    variables = {"OMP_NUM_THREADS": "3"}
    set_environment(Threads(omp=3), variables)
    assert capsys.readouterr().err == ""
    set_environment(Threads(omp=4), variables)
    assert "OMP_NUM_THREADS may have no effect" in capsys.readouterr().err


def test_train_sets_them_before_it_imports_tensorflow(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    values = {**settings(tmp_path), "threads": STATED}
    config.write_text(yaml.safe_dump(values))
    command = [sys.executable, "-c", WATCH_THE_IMPORT, "train", "--config", str(config), " ".join(VARIABLES)]
    done = subprocess.run(command, capture_output=True, text=True, env=process_environment(), check=True)
    assert json.loads(done.stdout) == VARIABLES


@pytest.mark.parametrize("blocktime", [-1, "forever"])
def test_a_blocktime_that_openmp_does_not_know_is_refused(tmp_path: Path, blocktime: object) -> None:
    with pytest.raises(ConfigError, match="kmp_blocktime"):
        parse_config({**settings(tmp_path), "threads": {"kmp_blocktime": blocktime}})


@pytest.mark.parametrize(
    ("cores", "size", "parts"),
    [
        (4, 1, [[0, 1, 2, 3]]),
        (4, 2, [[0, 1], [2, 3]]),
        (5, 2, [[0, 1], [2, 3]]),
        (2, 3, [[0], [1], [0]]),
    ],
)
def test_ranks_divide_the_cores(cores: int, size: int, parts: list[list[int]]) -> None:
    assert [share(range(cores), rank, size) for rank in range(size)] == parts


def test_threads_inside_an_operation() -> None:
    assert intra_op(Threads(intra_op=3), 8, 2, {"TF_NUM_INTRAOP_THREADS": "64"}) == 3
    assert intra_op(Threads(), 8, 2, {"TF_NUM_INTRAOP_THREADS": "64"}) == 0  # TensorFlow reads the variable
    assert intra_op(Threads(), 8, 1, {}) == 0
    assert intra_op(Threads(), 8, 2, {}) == 8


def test_ranks_that_a_launcher_has_bound_keep_its_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    masks = {0: {4, 5}, os.getppid(): {0, 1, 2, 3, 4, 5, 6, 7}}
    monkeypatch.setattr(os, "sched_getaffinity", masks.__getitem__, raising=False)
    assert own_cores(1, 4) == [4, 5]
    assert common_cores(4) == 8
    masks[os.getppid()] = {4, 5}  # horovodrun binds nothing
    assert own_cores(1, 2) == [5]
    assert common_cores(2) == 2


def threads_in_use(config: str) -> None:
    """Print the threads that TensorFlow has, and the cores."""
    import tensorflow as tf

    from ffn.training.ranks import Ranks

    use_devices(Config.model_validate(json.loads(config)), Ranks(local_rank=1, local_size=2))
    tf.matmul(tf.ones((64, 64)), tf.ones((64, 64))).numpy()
    names = [(task / "comm").read_text().strip() for task in Path("/proc/self/task").iterdir()]
    threads = tf.config.threading.get_intra_op_parallelism_threads()
    cores = sorted(os.sched_getaffinity(0))
    print(json.dumps({"inter_op": names.count("tf_Compute"), "intra_op": threads, "cores": cores}))


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity on this system")
def test_tensorflow_runs_with_the_threads_and_cores_of_the_configuration(tmp_path: Path) -> None:
    values = {**settings(tmp_path), "threads": {"intra_op": 3, "inter_op": 2, "pin": True}}
    config = parse_config(values).model_dump_json()
    done = forks.run("test_threads:threads_in_use", config, loaded=forks.TRAINING)
    expected = share(sorted(os.sched_getaffinity(0)), 1, 2)
    assert json.loads(done.stdout) == {"inter_op": 2, "intra_op": 3, "cores": expected}
