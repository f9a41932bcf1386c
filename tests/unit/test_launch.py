"""The launch line, without any cluster."""

import pytest
import yaml

from ffn.cluster.launch import launch_line
from ffn.cluster.profiles import shipped_profiles
from ffn.errors import ClusterError


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ({"launcher": "horovodrun", "ranks": 1}, ""),
        ({"launcher": "horovodrun", "ranks": 2}, "horovodrun --gloo -np 2 -H localhost:2"),
        (
            {"launcher": "aprun", "ranks": 8, "nodes": 8, "depth": 64},
            "aprun -n 8 -N 1 -d 64 -j 1 -cc depth "
            "-e OMP_NUM_THREADS=64 -e KMP_BLOCKTIME=0 -e KMP_AFFINITY=granularity=fine,compact,1,0 "
            "-e TF_NUM_INTRAOP_THREADS=64 -e TF_NUM_INTEROP_THREADS=2",
        ),
        (
            {"launcher": "aprun", "ranks": 16, "nodes": 4, "depth": 32},
            "aprun -n 16 -N 4 -d 32 -j 2 -cc depth "
            "-e OMP_NUM_THREADS=32 -e KMP_BLOCKTIME=0 -e KMP_AFFINITY=granularity=fine,compact,1,0 "
            "-e TF_NUM_INTRAOP_THREADS=32 -e TF_NUM_INTEROP_THREADS=2",
        ),
        (
            {"launcher": "mpiexec", "ranks": 8, "nodes": 2, "depth": 8},
            "mpiexec -n 8 --ppn 4 --depth 8 --cpu-bind depth --env OMP_NUM_THREADS=8 --env KMP_BLOCKTIME=0",
        ),
        (
            {"launcher": "srun", "ranks": 4, "nodes": 2, "depth": 3},
            "srun --nodes=2 --ntasks=4 --ntasks-per-node=2 --cpus-per-task=3 --cpu-bind=cores",
        ),
    ],
)
def test_line(arguments, line):
    assert launch_line(**arguments) == line


@pytest.mark.parametrize(("depth", "threads_per_core"), [(64, 1), (65, 2), (128, 2), (129, 4), (256, 4)])
def test_aprun_uses_as_few_hardware_threads_a_core_as_fit(depth, threads_per_core):
    assert f" -j {threads_per_core} " in launch_line("aprun", ranks=1, depth=depth)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"launcher": "prun", "ranks": 1}, "no launcher 'prun'; choose one of horovodrun"),
        ({"launcher": "aprun", "ranks": 1, "depth": 257}, "a node has 256"),
        ({"launcher": "aprun", "ranks": 3, "nodes": 2}, "multiple of 2"),
        ({"launcher": "srun", "ranks": 0}, "at least 1"),
        ({"launcher": "horovodrun", "ranks": 4, "nodes": 2}, "use the launcher of your cluster"),
    ],
)
def test_impossible_layout_is_refused(arguments, words):
    with pytest.raises(ClusterError, match=words):
        launch_line(**arguments)


def test_theta_profile_runs_a_node_as_the_paper_did():
    profile = yaml.safe_load((shipped_profiles() / "theta" / "config.yaml").read_text())
    resources = profile["default-resources"]
    line = launch_line(resources["launcher"].strip("'"), ranks=4, nodes=4, depth=resources["depth"])
    assert line.startswith("aprun -n 4 -N 1 -d 64 -j 1 -cc depth ")
    variables = dict(word.split("=", 1) for word in line.split() if "=" in word)
    assert variables["KMP_BLOCKTIME"] == "0"
    assert (variables["TF_NUM_INTRAOP_THREADS"], variables["TF_NUM_INTEROP_THREADS"]) == ("64", "2")
