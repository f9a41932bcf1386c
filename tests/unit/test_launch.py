"""The launch line, without any cluster."""

import shlex

import pytest

from ffn.cluster.launch import Layout, launch_line, spread
from ffn.cluster.profiles import shipped_profiles
from ffn.cluster.site import load_site
from ffn.errors import ClusterError

THREADS = {"OMP_NUM_THREADS": "8", "KMP_BLOCKTIME": "0"}


@pytest.mark.parametrize(
    ("launcher", "layout", "line"),
    [
        ("horovodrun", Layout(), ""),
        ("horovodrun", Layout(ranks_per_node=2), "horovodrun --gloo -np 2 -H localhost:2"),
        (
            "aprun",
            Layout(4, 4, 32, 64, 4, "depth", THREADS),
            "aprun -n 16 -N 4 -d 32 -j 2 -cc depth -e OMP_NUM_THREADS=8 -e KMP_BLOCKTIME=0",
        ),
        ("aprun", Layout(affinity="none"), "aprun -n 1 -N 1 -d 1 -j 1 -cc none"),
        (
            "mpiexec",
            Layout(2, 4, 8, environment=THREADS),
            "mpiexec -n 8 --ppn 4 --depth 8 --cpu-bind depth --env OMP_NUM_THREADS=8 --env KMP_BLOCKTIME=0",
        ),
        (
            "mpiexec",
            Layout(2, hostfile="my nodes"),
            "mpiexec -n 2 --ppn 1 --depth 1 --cpu-bind depth --hostfile 'my nodes'",
        ),
        (
            "srun",
            Layout(2, 2, 3, environment=THREADS),
            "srun --nodes=2 --ntasks=4 --ntasks-per-node=2 --cpus-per-task=3 --cpu-bind=cores "
            "--export=ALL,OMP_NUM_THREADS=8,KMP_BLOCKTIME=0",
        ),
    ],
)
def test_line(launcher, layout, line):
    assert launch_line(launcher, layout) == line


@pytest.mark.parametrize(("depth", "threads_per_core"), [(64, 1), (65, 2), (128, 2), (129, 4), (256, 4)])
def test_aprun_uses_as_few_hardware_threads_a_core_as_fit(depth, threads_per_core):
    assert f" -j {threads_per_core} " in launch_line("aprun", Layout(depth=depth, cores=64, hyperthreads=4))


@pytest.mark.parametrize(
    ("launcher", "layout", "words"),
    [
        ("prun", Layout(), "no launcher 'prun'; choose one of horovodrun"),
        ("aprun", Layout(depth=257, cores=64, hyperthreads=4), "a node has 256"),
        ("srun", Layout(ranks_per_node=5, depth=2, cores=8), "need 10 hardware threads; a node has 8"),
        ("srun", Layout(nodes=0), "at least 1"),
        ("horovodrun", Layout(nodes=2), "use the launcher of your cluster"),
    ],
)
def test_impossible_layout_is_refused(launcher, layout, words):
    with pytest.raises(ClusterError, match=words):
        launch_line(launcher, layout)


def test_ranks_are_spread_evenly():
    assert spread(8, 4) == 2
    with pytest.raises(ClusterError, match="multiple of 2"):
        spread(3, 2)
    with pytest.raises(ClusterError, match="at least 1"):
        spread(0, 1)


def test_theta_runs_a_node_as_the_paper_did():
    """One rank a node, bound to two hardware threads of each core; 64 OpenMP threads; TensorFlow's pools 64 and 2."""
    site = load_site("theta", [shipped_profiles()])
    depth = site.node.depth(1)
    layout = Layout(
        4, 1, depth, site.node.cores, site.node.hyperthreads, site.affinity, site.rank_environment(1, depth)
    )
    words = shlex.split(launch_line(site.launcher, layout))
    assert " ".join(words[:11]) == "aprun -n 4 -N 1 -d 128 -j 2 -cc depth"
    assert dict(word.split("=", 1) for word in words if "=" in word) == {
        "OMP_NUM_THREADS": "64",
        "KMP_BLOCKTIME": "0",
        "KMP_AFFINITY": "granularity=fine,compact,1,0",
        "TF_NUM_INTRAOP_THREADS": "64",
        "TF_NUM_INTEROP_THREADS": "2",
    }
