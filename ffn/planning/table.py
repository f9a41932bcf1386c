"""The plan as a table, as a few lines, and as values for JSON."""

from collections.abc import Sequence
from typing import Any

from ffn.config import Config
from ffn.errors import FFNError
from ffn.geometry import ZYX
from ffn.planning.advice import warnings
from ffn.planning.estimate import Estimate, Known, configured_machine, estimate
from ffn.planning.extent import extent_of
from ffn.planning.outputs import Cut, Output, outputs

_UNKNOWN = "not known: nothing was measured (`ffn plan --measure` does, on the machine it runs on)"


def written(config: Config, plan: Estimate, known: Known, step_jobs: int = 0) -> list[Output]:
    """What the plan leaves on disk; `step_jobs` are those of the steps of blockwise stages."""
    machine, cluster = plan.machine, config.cluster
    at_once = min((machine.jobs_at_once or plan.jobs), plan.jobs) * machine.job_ranks * known.concurrent(config)
    here = machine.nodes is None
    training_ranks = config.training.ranks if here else cluster.nodes * cluster.ranks_per_node
    cut = Cut(plan.tiles_per_job, machine.job_ranks, at_once, training_ranks, step_jobs)
    return outputs(config, plan.extent, cut)


def table(
    plan: Estimate, files: Sequence[Output], advice: Estimate | None, stages: Sequence[tuple[str, str]] = ()
) -> str:
    """The whole plan for reading; `stages` are rows of the stages around inference."""
    extent, machine = plan.extent, plan.machine
    cut = "" if extent.count == 1 else f", overlap {_size(extent.overlap)}"
    rows = [
        ("region", f"{_size(extent.region)} voxels (z,y,x)"),
        ("sub-volumes", f"{extent.count:,} of {_size(extent.tile)}{cut}"),
        ("fields of view", f"{plan.fovs:,}" + ("" if plan.passes == 1 else f" in {plan.passes} passes")),
        ("", f"from {plan.work.basis}"),
        ("FOVs/s of a process", _UNKNOWN if plan.speed is None else f"{plan.speed.fovs_per_s:,.1f}"),
        *([] if plan.speed is None else [("", f"from {plan.speed.basis}")]),
        ("jobs", f"{plan.jobs:,} of up to {_counted(plan.tiles_per_job, 'sub-volume')}, {_processes(plan)}"),
        ("hours a job", _hours(plan.job_seconds) + _of_slowest(plan)),
        ("hours in all", _hours(plan.seconds) + ("" if machine.nodes is None else f" on {_nodes(machine.nodes)}")),
        ("node-hours", "not known" if plan.node_hours is None else f"{plan.node_hours:,.2f}"),
        ("memory of a node", f"{plan.node_bytes / 1e9:.1f} GB{_of_memory(plan)}"),
        *stages,
        *[(f"written: {output.name}", f"{_bytes(output.bytes)}, {output.files:,} files") for output in files],
        ("written in all", _in_all(files)),
    ]
    if advice is not None:
        rows += [("suggested", _settings(advice)), ("", _effect(advice))]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def short_lines(plan: Estimate, files: Sequence[Output]) -> list[str]:
    """The plan in three lines."""
    extent = plan.extent
    speed = "speed not known" if plan.speed is None else f"{plan.speed.fovs_per_s:,.1f} FOVs/s of a process"
    hours = "node-hours not known" if plan.node_hours is None else f"{plan.node_hours:,.2f} node-hours"
    return [
        f"Inference: {_counted(extent.count, 'sub-volume')} of {_size(extent.tile)}, {plan.fovs:,} fields of view "
        f"(from {plan.work.basis}).",
        f"  {_counted(plan.jobs, 'job')} of up to {_counted(plan.tiles_per_job, 'sub-volume')}, {speed}: {hours}, "
        f"{plan.node_bytes / 1e9:.1f} GB a node.",
        f"  Written: about {_in_all(files)}. More: ffn plan --config FILE",
    ]


def _in_all(files: Sequence[Output]) -> str:
    kept = [output for output in files if "while running" not in output.name]
    return f"{_bytes(sum(output.bytes for output in kept))}, {sum(output.files for output in kept):,} files"


def outlook(config: Config, jobs: int | None, tiles_per_job: int, step_jobs: int = 0) -> list[str]:
    """`short_lines` of a configuration, with warnings; an estimate is no reason to stop anything, so never an error."""
    try:
        extent, known = extent_of(config), Known.of(config)
        if extent is None:
            return ["Inference: the size of the test volume is not known before it is there."]
        plan = estimate(config, configured_machine(config, jobs), extent, known, tiles_per_job)
        return [*short_lines(plan, written(config, plan, known, step_jobs)), *warnings(plan)]
    except FFNError as error:
        return [f"Inference: no estimate. {error}"]


def as_values(plan: Estimate, files: Sequence[Output], advice: Estimate | None) -> dict[str, Any]:
    """The plan for JSON; times in seconds, memory in bytes, None = not known."""
    extent, machine, speed = plan.extent, plan.machine, plan.speed
    return {
        "region": extent.region,
        "subvolumes": {"count": extent.count, "size": extent.tile, "overlap": extent.overlap},
        "passes": plan.passes,
        "fovs": plan.fovs,
        "fovs_per_voxel": plan.work.fovs_per_voxel,
        "fovs_basis": plan.work.basis,
        "fovs_per_s": None if speed is None else speed.fovs_per_s,
        "speed_basis": None if speed is None else speed.basis,
        "tiles_per_job": plan.tiles_per_job,
        "jobs": plan.jobs,
        "job_nodes": machine.job_nodes,
        "job_ranks": machine.job_ranks,
        "nodes": machine.nodes,
        "subvolume_s": plan.tile_seconds,
        "job_s": plan.job_seconds,
        "longest_job_s": plan.longest_job_seconds,
        "total_s": plan.seconds,
        "node_hours": plan.node_hours,
        "node_bytes": plan.node_bytes,
        "written": {output.name: {"files": output.files, "bytes": output.bytes} for output in files},
        "suggested": None
        if advice is None
        else {
            "subvolume_size": advice.extent.tile,
            "tiles_per_job": advice.tiles_per_job,
            "subvolumes": advice.extent.count,
            "job_s": advice.job_seconds,
            "total_s": advice.seconds,
            "node_hours": advice.node_hours,
            "node_bytes": advice.node_bytes,
        },
        "warnings": warnings(plan),
    }


def _settings(advice: Estimate) -> str:
    size = ", ".join(map(str, advice.extent.tile))
    return f"inference: {{subvolume_size: [{size}], tiles_per_job: {advice.tiles_per_job}}}"


def _effect(advice: Estimate) -> str:
    parts = [
        _counted(advice.extent.count, "sub-volume"),
        _counted(advice.jobs, "job"),
        *(
            []
            if advice.seconds is None
            else [f"{_hours(advice.job_seconds)} a job", f"{_hours(advice.seconds)} in all"]
        ),
        f"{advice.node_bytes / 1e9:.1f} GB a node",
    ]
    return ", ".join(parts)


def _processes(plan: Estimate) -> str:
    machine = plan.machine
    if machine.job_ranks == 1:
        return "one process each"
    return f"{machine.job_ranks} processes on {_nodes(machine.job_nodes)} each"


def _of_memory(plan: Estimate) -> str:
    return "" if plan.machine.memory is None else f" of {plan.machine.memory / 1e9:g}"


def _hours(seconds: float | None) -> str:
    return "not known" if seconds is None else f"{seconds / 3600:,.2f} h"


def _of_slowest(plan: Estimate) -> str:
    return "" if plan.slowest == 1 else f" on average, {_hours(plan.longest_job_seconds)} of the slowest pass"


def _nodes(count: int) -> str:
    return _counted(count, "node")


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}" + ("" if count == 1 else "s")


def _size(values: ZYX) -> str:
    return " x ".join(map(str, values))


def _bytes(count: float) -> str:
    units = ["bytes", "kB", "MB", "GB", "TB", "PB"]
    while count >= 1000 and len(units) > 1:
        count /= 1000
        del units[0]
    return f"{count:.0f} {units[0]}" if units[0] == "bytes" or count >= 100 else f"{count:.1f} {units[0]}"
