"""How large sub-volumes and jobs should be, and what is wrong with those that are configured.

Large sub-volumes share less with their neighbours, so less is filled twice and joined; what limits them is the memory
of a process, the wall time of a job, and that every process should get one.
"""

from ffn.config import Config
from ffn.errors import PlanError
from ffn.geometry import ZYX
from ffn.planning.estimate import SHARE_OF_WALLTIME, Estimate, Known, Machine, estimate
from ffn.planning.extent import Extent

_STEP = 32
_LARGEST = 1024
"""Beyond that nothing is gained: neighbours share a tenth, and a sub-volume that is lost costs days."""


def advise(config: Config, machine: Machine, extent: Extent, known: Known) -> Estimate | None:
    """The largest sub-volumes, cubes as far as the region and its voxels allow, that fit memory and wall time and give
    each process one; where the region is too small for that, the smallest. None if none fits the memory."""
    found: Estimate | None = None
    for edge in range(_LARGEST, 0, -_STEP):
        size = _size(config, extent, edge)
        if size is None:
            break
        cut = Extent.of(extent.region, size, config.inference.subvolume_overlap, extent.voxel_size)
        plan = estimate(config, machine, cut, known)
        if machine.memory is not None and plan.node_bytes > machine.memory:
            continue
        found = plan
        if _fits_walltime(plan) and _feeds_all(plan):
            break
    return found


def warnings(plan: Estimate) -> list[str]:
    """What the user should know, each a sentence."""
    found = []
    walltime = plan.machine.walltime_s
    if walltime is not None and plan.longest_tile_seconds is not None and plan.longest_tile_seconds > walltime:
        found.append(
            f"A sub-volume is expected to take {plan.longest_tile_seconds / 60:,.0f} minutes, longer than the wall "
            f"time of {walltime / 60:,.0f}. It resumes where it stopped when its job is submitted again; smaller "
            "sub-volumes or a longer wall time spare that."
        )
    elif walltime is not None and plan.longest_job_seconds is not None and plan.longest_job_seconds > walltime:
        found.append(
            f"A job is expected to take {plan.longest_job_seconds / 60:,.0f} minutes, longer than the wall time of "
            f"{walltime / 60:,.0f}. It resumes when it is submitted again; lower inference.tiles_per_job."
        )
    return found


def require_memory(plan: Estimate, advice: Estimate | None) -> None:
    """Raise PlanError where a job needs more memory than its node has."""
    memory, ranks = plan.machine.memory, plan.machine.ranks
    if memory is None or plan.node_bytes <= memory:
        return
    shared = "" if ranks == 1 else f" ({ranks} processes of {plan.process_bytes / 1e9:.1f} GB)"
    remedy = "fewer ranks" if ranks > 1 else "a lower inference.concurrent, or a node with more memory"
    if advice is not None:
        remedy = f"inference.subvolume_size [{_listed(advice.extent.tile)}], or {remedy}"
    raise PlanError(
        f"A sub-volume of {_listed(plan.extent.tile)} voxels (z,y,x) needs {plan.node_bytes / 1e9:.1f} GB on a "
        f"node{shared}, but it has {memory / 1e9:.1f} GB. Use {remedy}."
    )


def _size(config: Config, extent: Extent, edge: int) -> ZYX | None:
    """Sub-volumes whose shortest edge in nanometres is that of `edge` voxels; None where they hold no field of view or
    nothing but their overlap."""
    shortest = min(extent.voxel_size)
    wanted = (round(edge * shortest / nm / _STEP) * _STEP or _STEP for nm in extent.voxel_size)
    z, y, x = (min(n, size) for n, size in zip(wanted, extent.region, strict=True))
    least = (
        max(fov, overlap + 1)
        for fov, overlap in zip(config.network.fov_in_image_voxels, config.inference.subvolume_overlap, strict=True)
    )
    return (z, y, x) if all(n >= m for n, m in zip((z, y, x), least, strict=True)) else None


def _fits_walltime(plan: Estimate) -> bool:
    walltime = plan.machine.walltime_s
    return (
        walltime is None
        or plan.longest_tile_seconds is None
        or plan.longest_tile_seconds <= SHARE_OF_WALLTIME * walltime
    )


def _feeds_all(plan: Estimate) -> bool:
    return plan.extent.count * plan.passes >= (plan.machine.nodes or 1) * plan.machine.ranks


def _listed(values: ZYX) -> str:
    return ", ".join(map(str, values))
