"""The words in front of a command that start its ranks, from resources alone.

    laptop, 1 rank      ffn train ...
    laptop, 2 ranks     horovodrun --gloo -np 2 -H localhost:2 ffn train ...
    Theta, 8 nodes      aprun -n 8 -N 1 -d 64 -j 1 -cc depth -e ... ffn train ...

Snakemake's `threads` never enter: in a job they are clipped to the cores of the machine that runs the job-side
Snakemake, which on a Cray is not a compute node.
"""

from ffn.errors import ClusterError

LAUNCHERS = ("horovodrun", "aprun", "mpiexec", "srun")
KNL_CORES = 64
"""Cores of one Theta node; each runs 1, 2 or 4 hardware threads (`aprun -j`)."""
KNL_INTER_OP = 2
"""Operations side by side that were best there (Dong et al. 2019), with all cores inside each operation."""


def launch_line(launcher: str, *, ranks: int, nodes: int = 1, depth: int = 1) -> str:
    """The launcher's command line up to the program, without a trailing space; empty where none is needed.

    Args:
        launcher: One of LAUNCHERS.
        ranks: Processes in all; at least 1.
        nodes: Machines they are spread over evenly.
        depth: Hardware threads that each rank owns.

    Raises ClusterError where the ranks cannot be laid out so.
    """
    if launcher not in LAUNCHERS:
        raise ClusterError(f"There is no launcher '{launcher}'; choose one of {', '.join(LAUNCHERS)}.")
    if min(ranks, nodes, depth) < 1:
        raise ClusterError(f"ranks {ranks}, nodes {nodes} and depth {depth} must all be at least 1.")
    if ranks % nodes:
        raise ClusterError(f"{ranks} ranks cannot be spread evenly over {nodes} nodes; use a multiple of {nodes}.")
    per_node = ranks // nodes
    if launcher == "horovodrun":
        return _horovodrun(ranks, nodes)
    if launcher == "aprun":
        return _aprun(ranks, per_node, depth)
    if launcher == "mpiexec":
        return (
            f"mpiexec -n {ranks} --ppn {per_node} --depth {depth} --cpu-bind depth "
            f"--env OMP_NUM_THREADS={depth} --env KMP_BLOCKTIME=0"
        )
    return (
        f"srun --nodes={nodes} --ntasks={ranks} --ntasks-per-node={per_node} --cpus-per-task={depth} --cpu-bind=cores"
    )


def _horovodrun(ranks: int, nodes: int) -> str:
    if nodes > 1:
        raise ClusterError(
            f"horovodrun starts ranks on this machine only, not on {nodes} nodes; "
            "use the launcher of your cluster: aprun, mpiexec or srun."
        )
    return "" if ranks == 1 else f"horovodrun --gloo -np {ranks} -H localhost:{ranks}"


def _aprun(ranks: int, per_node: int, depth: int) -> str:
    needed = per_node * depth
    threads_per_core = next((j for j in (1, 2, 4) if needed <= KNL_CORES * j), None)
    if threads_per_core is None:
        raise ClusterError(
            f"{per_node} ranks of {depth} threads need {needed} hardware threads; "
            f"a node has {4 * KNL_CORES}. Lower ranks_per_node or depth."
        )
    environment = {
        "OMP_NUM_THREADS": depth,
        "KMP_BLOCKTIME": 0,
        "KMP_AFFINITY": "granularity=fine,compact,1,0",
        "TF_NUM_INTRAOP_THREADS": depth,
        "TF_NUM_INTEROP_THREADS": KNL_INTER_OP,
    }
    variables = " ".join(f"-e {name}={value}" for name, value in environment.items())
    return f"aprun -n {ranks} -N {per_node} -d {depth} -j {threads_per_core} -cc depth {variables}"
