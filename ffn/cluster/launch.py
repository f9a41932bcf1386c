"""The words in front of a command that start its ranks, from the shape of a job alone.

    laptop, 1 rank      ffn train ...
    laptop, 2 ranks     horovodrun --gloo -np 2 -H localhost:2 ffn train ...
    Theta, 8 nodes      aprun -n 8 -N 1 -d 128 -j 2 -cc depth -e ... ffn train ...
    Polaris, 8 nodes    mpiexec -n 32 --ppn 4 --depth 8 --cpu-bind depth --env ... ffn train ...
    Slurm, 2 nodes      srun --nodes=2 --ntasks=4 --ntasks-per-node=2 --cpus-per-task=8 --cpu-bind=cores ffn train ...

Snakemake's `threads` never enter: in a job they are clipped to the cores of the machine that runs the job-side
Snakemake, which on a Cray is not a compute node.
"""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import ceil

from ffn.errors import ClusterError

LAUNCHERS = ("horovodrun", "aprun", "mpiexec", "srun")


@dataclass(frozen=True)
class Layout:
    """How the ranks of a command lie on the nodes of its job.

    Attributes:
        nodes: Of the job.
        ranks_per_node: Processes on each.
        depth: Hardware threads that each rank owns.
        cores: Of a node; None = not known, so nothing is checked.
        hyperthreads: Hardware threads of a core that the node has.
        affinity: How ranks are bound, in the launcher's word; None = each to its own threads.
        environment: Variables of each rank.
        hostfile: File that lists the nodes, where the launcher should not take the scheduler's.
    """

    nodes: int = 1
    ranks_per_node: int = 1
    depth: int = 1
    cores: int | None = None
    hyperthreads: int = 1
    affinity: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    hostfile: str | None = None

    @property
    def ranks(self) -> int:
        return self.nodes * self.ranks_per_node

    @property
    def threads_per_core(self) -> int:
        """Hardware threads of a core that the ranks need: 1, 2 or 4."""
        if self.cores is None:
            return 1
        needed = ceil(self.ranks_per_node * self.depth / self.cores)
        return next((count for count in (1, 2, 4) if needed <= count), needed)

    def check(self) -> None:
        """Raise ClusterError where the ranks cannot lie so."""
        if min(self.nodes, self.ranks_per_node, self.depth) < 1:
            raise ClusterError(
                f"nodes {self.nodes}, ranks of a node {self.ranks_per_node} and depth {self.depth} must be at least 1."
            )
        if self.cores is not None and self.threads_per_core > self.hyperthreads:
            raise ClusterError(
                f"{self.ranks_per_node} ranks of {self.depth} threads need {self.ranks_per_node * self.depth} hardware "
                f"threads; a node has {self.cores * self.hyperthreads}. Lower the ranks of a node or depth."
            )


def spread(ranks: int, nodes: int) -> int:
    """Ranks of a node. Raises ClusterError where they cannot be spread evenly."""
    if ranks < 1 or nodes < 1:
        raise ClusterError(f"ranks {ranks} and nodes {nodes} must be at least 1.")
    if ranks % nodes:
        raise ClusterError(f"{ranks} ranks cannot be spread evenly over {nodes} nodes; use a multiple of {nodes}.")
    return ranks // nodes


def launch_line(launcher: str, layout: Layout) -> str:
    """The launcher's command line up to the program, without a trailing space; empty where none is needed.

    Raises ClusterError where there is no such launcher, or the ranks cannot lie so.
    """
    if launcher not in _LINES:
        raise ClusterError(f"There is no launcher '{launcher}'; choose one of {', '.join(LAUNCHERS)}.")
    layout.check()
    return shlex.join(_LINES[launcher](layout))


def _horovodrun(layout: Layout) -> list[str]:
    if layout.nodes > 1:
        raise ClusterError(
            f"horovodrun starts ranks on this machine only, not on {layout.nodes} nodes; "
            "use the launcher of your cluster: aprun, mpiexec or srun."
        )
    if layout.ranks == 1:
        return []
    return ["horovodrun", "--gloo", "-np", str(layout.ranks), "-H", f"localhost:{layout.ranks}"]


def _aprun(layout: Layout) -> list[str]:
    return [
        "aprun", "-n", str(layout.ranks), "-N", str(layout.ranks_per_node), "-d", str(layout.depth),
        "-j", str(layout.threads_per_core), "-cc", layout.affinity or "depth",
        *_each(layout, "-e"),
    ]  # fmt: skip


def _mpiexec(layout: Layout) -> list[str]:
    return [
        "mpiexec", "-n", str(layout.ranks), "--ppn", str(layout.ranks_per_node), "--depth", str(layout.depth),
        "--cpu-bind", layout.affinity or "depth",
        *(["--hostfile", layout.hostfile] if layout.hostfile else []), *_each(layout, "--env"),
    ]  # fmt: skip


def _srun(layout: Layout) -> list[str]:
    variables = ",".join(["ALL", *(f"{name}={value}" for name, value in layout.environment.items())])
    return [
        "srun", f"--nodes={layout.nodes}", f"--ntasks={layout.ranks}", f"--ntasks-per-node={layout.ranks_per_node}",
        f"--cpus-per-task={layout.depth}", f"--cpu-bind={layout.affinity or 'cores'}",
        *([f"--export={variables}"] if layout.environment else []),
    ]  # fmt: skip


def _each(layout: Layout, option: str) -> list[str]:
    return [word for name, value in layout.environment.items() for word in (option, f"{name}={value}")]


_LINES = {"horovodrun": _horovodrun, "aprun": _aprun, "mpiexec": _mpiexec, "srun": _srun}
