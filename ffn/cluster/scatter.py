"""The steps of blockwise stages as jobs of a cluster: how many jobs, how long, how much memory; and their markers.

    results/<run>/<stage>/jobs/<step>-<part>-of-<parts>.done     empty; Snakemake's marker of one job

What is done is what the stage's ledgers say; a marker only says that a job ended. A step stays as it was cut first, so
that another number of jobs changes neither what is done nor what Snakemake takes for done.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import ceil
from pathlib import Path

from ffn.blockwise import usable_cores
from ffn.cluster.site import Site
from ffn.config import Config
from ffn.planning.extent import extent_of
from ffn.planning.steps import StepWork, steps_of
from ffn.runs import RunPaths

_SHORTEST_S = 900.0
"""A job of less waits in the queue and starts Python for longer than it works."""
_SHARE_OF_WALLTIME = 0.5
_MARGIN, _LEAST_MARGIN = 4, 1.5
"""In the wall time that is asked for: for slower cores and file systems. What is over its time goes on in a new job."""
_START_MIN = 10
_STEP_MIN = 5
_UNKNOWN_MIN, _UNKNOWN_MB = 45, 8000
"""Where the size of the volume is not known yet."""
_PROCESS_BYTES = 1_000_000_000
"""What the first process of a job holds beside its workers."""
_SHARE_OF_MEMORY = 0.8


@dataclass(frozen=True)
class Scatter:
    """How the blockwise stages of a run are cut into jobs.

    Attributes:
        jobs: How many a cluster is given at once; None where they run on this machine.
        site: What is known of its nodes.
        fovs_per_s: Fields of view a second of a process; None = as the run has measured.
    """

    config: Config
    paths: RunPaths
    jobs: int | None = None
    site: Site | None = None
    fovs_per_s: float | None = None

    @property
    def stages(self) -> list[str]:
        """The stages that can be cut into jobs."""
        return list(dict.fromkeys(step.stage for step in self._all)) or ["assemble"]

    def steps(self, stage: str) -> list[StepWork]:
        """The steps of a stage that may be jobs of their own, in their order; what comes behind them is short."""
        return [step for step in self._all if step.stage == stage]

    def is_scattered(self, stage: str) -> bool:
        """Whether the steps of a stage are jobs of their own: where one of them is worth more than one."""
        return self.jobs is not None and any(self.parts(step) > 1 for step in self.steps(stage))

    def parts(self, step: StepWork) -> int:
        """Jobs of a step: as it was cut before; else at most `jobs`, of a quarter of an hour each at least."""
        if found := self._marked(step):
            return found[0]
        if step.units == 1 or self.jobs is None:
            return 1
        if (stated := self.config.cluster.stage_jobs) is not None:
            return min(stated, step.units)
        worthwhile = ceil(step.core_seconds / self._cores(step) / _SHORTEST_S)
        fitting = ceil(step.core_seconds / self._cores(step) / (_SHARE_OF_WALLTIME * self._walltime_s))
        return max(min(max(min(worthwhile, self.jobs), fitting), step.units), 1)

    def minutes(self, stage: str) -> int:
        """Wall time of a stage's longest job: as it is configured at most, unless that is known to be too short."""
        steps = self.steps(stage)
        if not steps:
            return _UNKNOWN_MIN
        if self.is_scattered(stage):
            seconds = max(step.core_seconds / self.parts(step) / self._cores(step) for step in steps)
        else:
            seconds = sum(step.core_seconds / self._cores(step, nodes=1) for step in steps)
        longest = max(self.config.cluster.runtime_minutes, _START_MIN + _LEAST_MARGIN * seconds / 60)
        return ceil(min(_START_MIN + _MARGIN * seconds / 60, longest) / _STEP_MIN) * _STEP_MIN

    def ranks(self, stage: str, name: str) -> int:
        """Processes that a launcher starts for a job of a step: one a node, which starts workers, or one a device."""
        on_devices = any(step.step == name and step.on_devices for step in self.steps(stage))
        per_node = self.config.cluster.inference_ranks_per_node if on_devices else 1
        return self.config.cluster.stage_nodes * per_node

    def megabytes(self, stage: str) -> int:
        """Memory of a node of a job of a stage: of its workers, as many as fit, and of the process that leads them."""
        held = [self.workers(step) * step.worker_bytes for step in self.steps(stage)]
        return ceil((_PROCESS_BYTES + max(held)) / 1e6) if held else _UNKNOWN_MB

    @property
    def step_jobs(self) -> int:
        """Jobs of the steps of all stages that are cut into jobs."""
        return sum(self.parts(step) for step in self._all if self.is_scattered(step.stage))

    @property
    def all_steps(self) -> Sequence[StepWork]:
        """The steps of all stages."""
        return self._all

    def as_values(self, step: StepWork) -> dict[str, float]:
        """What a step takes, for JSON."""
        parts, cores = self.parts(step), self._cores(step)
        job_s = step.core_seconds / parts / cores
        return {"units": step.units, "jobs": parts, "core_s": step.core_seconds, "job_s": job_s, "job_cores": cores}

    def table(self) -> list[tuple[str, str]]:
        """Stages and steps by name, with what they take, for people."""
        rows = []
        for stage in dict.fromkeys(step.stage for step in self._all):
            steps, scattered = self.steps(stage), self.is_scattered(stage)
            hours = sum(step.core_seconds for step in steps) / 3600
            how = f"{sum(self.parts(step) for step in steps)} jobs" if scattered else "1 job"
            rows.append((stage, f"{how}, {hours:,.1f} core-hours, {self.megabytes(stage) / 1000:.0f} GB a node"))
            for step in steps if scattered else []:
                parts = self.parts(step)
                each = step.core_seconds / parts / self._cores(step) / 3600
                rows.append((f"  {step.step}", f"{step.units:,} units, {_counted(parts, 'job')} of about {each:.2f} h"))
        return rows

    # --- markers

    def marker(self, stage: str) -> str:
        """Marker of a job, with the wildcards `step`, `part` and `parts`."""
        return str(self._folder(stage) / "{step}-{part}-of-{parts}.done")

    def markers(self, step: StepWork) -> list[str]:
        """Markers of all jobs of a step."""
        parts = self.parts(step)
        return [str(self._folder(step.stage) / f"{step.step}-{part}-of-{parts}.done") for part in range(1, parts + 1)]

    def before(self, stage: str, name: str) -> list[str] | None:
        """What a job of a step waits for: the markers of the step before; None where it is the first one."""
        if self.jobs is None:
            return []  # Snakemake in a job does not know how the others were cut, and need not
        names = [step.step for step in self.steps(stage)]
        place = names.index(name)
        return None if place == 0 else self.markers(self.steps(stage)[place - 1])

    def behind(self, stage: str) -> list[str]:
        """What the last job of a stage waits for: the markers of its last step, where its steps are jobs of their own.

        The same for a finished stage as while it was made, on whatever machine Snakemake is asked: it takes another set
        of inputs for a reason to make a result again.
        """
        steps = self.steps(stage)
        if not steps:
            return []
        parts, found = self._marked(steps[-1]) or (0, set())
        if len(found) == parts > 0:
            return self.markers(steps[-1])
        finished = (self._folder(stage).parent / "done.json").exists()
        return [] if finished or not self.is_scattered(stage) else self.markers(steps[-1])

    def unfinished_jobs(self, stage: str) -> int:
        """Jobs of the steps of a stage that are still to be done."""
        if not self.is_scattered(stage) or (self._folder(stage).parent / "done.json").exists():
            return 0
        return sum(not Path(marker).exists() for step in self.steps(stage) for marker in self.markers(step))

    def _folder(self, stage: str) -> Path:
        return self.paths.root / stage / "jobs"

    def _marked(self, step: StepWork) -> tuple[int, set[int]] | None:
        """Into how many parts a step was cut before, and which of them have ended; None if none has."""
        found: dict[int, set[int]] = {}
        for path in self._folder(step.stage).glob(f"{step.step}-*-of-*.done"):
            match = re.fullmatch(rf"{step.step}-(\d+)-of-(\d+)\.done", path.name)
            if match is not None:
                found.setdefault(int(match[2]), set()).add(int(match[1]))
        return max(found.items(), key=lambda one: len(one[1]) / one[0]) if found else None

    # --- the machine

    @cached_property
    def _all(self) -> Sequence[StepWork]:
        extent = extent_of(self.config)
        return [] if extent is None else steps_of(self.config, extent, self.fovs_per_s)

    @property
    def _walltime_s(self) -> float:
        return self.config.cluster.runtime_minutes * 60.0

    def _cores(self, step: StepWork, nodes: int | None = None) -> int:
        """Cores that work on a job of a step; a reduce has one."""
        return 1 if step.units == 1 else self.workers(step) * (nodes or self.config.cluster.stage_nodes)

    def workers(self, step: StepWork) -> int:
        """Processes on a node."""
        if step.on_devices:
            return self.config.cluster.inference_ranks_per_node
        cores = usable_cores() if self.site is None else self.site.node.cores
        stated = self.site.node.memory_gb if self.site is not None else self.config.cluster.memory_gb
        fitting = (
            cores if stated is None else int((stated * 1e9 * _SHARE_OF_MEMORY - _PROCESS_BYTES) / step.worker_bytes)
        )
        return max(min(cores, fitting, step.units), 1)


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}" + ("" if count == 1 else "s")
