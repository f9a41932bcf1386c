"""What inference on a run's test region will take, on a given machine.

sub-volumes x voxels x FOVs per voxel = FOVs       FOVs / (FOVs/s of a process) = hours of a process
sub-volumes / sub-volumes a job       = jobs       jobs in turns on the nodes   = hours from begin to end
"""

from dataclasses import dataclass
from math import ceil

from ffn.assembly.spec import CONSENSUS_BYTES
from ffn.config import Config
from ffn.inference.devices import visible_gpus
from ffn.planning.extent import Extent, extent_of
from ffn.planning.memory import PROCESS_BYTES, concurrent_tiles, process_bytes
from ffn.planning.rates import Speed, Work, expected_work, known_speed, slowest_pass

SHARE_OF_WALLTIME = 0.5
"""Of the wall time that a job is meant to take: sub-volumes differ, and what is over has to be submitted again."""
_SHORTEST_S = 900.0
"""Of a job, where its wall time allows: shorter ones wait in the queue and start Python for longer than they work."""
_ON_GPU = 64
"""Sub-volumes for each process on a machine with a GPU: twice as many as it fills side by side."""


@dataclass(frozen=True)
class Machine:
    """What inference runs on.

    Attributes:
        nodes: Used at once; None = unlimited.
        job_nodes: Of one job.
        ranks: Processes of a job on each of its nodes.
        walltime_s: Of a job; None = unlimited.
        memory: Bytes of a node; None = not looked at.
    """

    nodes: int | None = 1
    job_nodes: int = 1
    ranks: int = 1
    walltime_s: float | None = None
    memory: float | None = None

    @property
    def job_ranks(self) -> int:
        return self.job_nodes * self.ranks

    @property
    def jobs_at_once(self) -> int | None:
        return None if self.nodes is None else max(self.nodes // self.job_nodes, 1)


@dataclass(frozen=True)
class Estimate:
    """The plan for one cut of the region; times are None where no speed is known.

    Attributes:
        extent: The region and its sub-volumes.
        work: Fields of view a voxel.
        speed: Of a process.
        passes: Over every sub-volume.
        machine: Where it runs.
        tiles_per_job: Sub-volumes of a job.
        process_bytes: Memory of one process.
        slowest: How many times as long as the average pass the one takes that takes longest.
    """

    extent: Extent
    work: Work
    speed: Speed | None
    passes: int
    machine: Machine
    tiles_per_job: int
    process_bytes: int
    slowest: float = 1.0

    @property
    def fovs(self) -> int:
        return round(self.extent.filled * self.work.fovs_per_voxel * self.passes)

    @property
    def jobs(self) -> int:
        return ceil(self.extent.count / self.tiles_per_job) * self.passes

    @property
    def tile_seconds(self) -> float | None:
        """Of a pass over a sub-volume by one process, on average."""
        fovs = self.extent.tile_voxels * self.work.fovs_per_voxel
        return None if self.speed is None else fovs / self.speed.fovs_per_s

    @property
    def job_seconds(self) -> float | None:
        """Of a full job of an average pass: as long as the process with most sub-volumes."""
        tiles = min(self.tiles_per_job, self.extent.count)
        return None if self.tile_seconds is None else ceil(tiles / self.machine.job_ranks) * self.tile_seconds

    @property
    def longest_tile_seconds(self) -> float | None:
        """Of the slowest pass over a sub-volume."""
        return None if self.tile_seconds is None else self.tile_seconds * self.slowest

    @property
    def longest_job_seconds(self) -> float | None:
        """Of a full job of the slowest pass."""
        return None if self.job_seconds is None else self.job_seconds * self.slowest

    @property
    def seconds(self) -> float | None:
        """From begin to end, without waiting in the queue."""
        at_once = self.machine.jobs_at_once or self.jobs
        return None if self.job_seconds is None else ceil(self.jobs / at_once) * self.job_seconds

    @property
    def node_hours(self) -> float | None:
        return None if self.job_seconds is None else self.jobs * self.machine.job_nodes * self.job_seconds / 3600

    @property
    def node_bytes(self) -> int:
        return self.process_bytes * self.machine.ranks


@dataclass(frozen=True)
class Known:
    """What is known of a run's work and speed, on average over its passes; `speed` None = nothing.

    `slowest` is how many times as long one pass takes as the average.
    """

    work: Work
    speed: Speed | None
    slowest: float = 1.0

    @classmethod
    def of(cls, config: Config, measured: bool = False) -> "Known":
        """With `measured` what `store_speed` kept goes before what the run reached."""
        return cls(expected_work(config), known_speed(config, measured), slowest_pass(config, measured))

    def concurrent(self, config: Config) -> int:
        """Sub-volumes that a process fills side by side."""
        return max(concurrent_tiles(config), 1 if self.speed is None else self.speed.concurrent)


def estimate(
    config: Config, machine: Machine, extent: Extent, known: Known, tiles_per_job: int | None = None
) -> Estimate:
    """The plan for a region; `tiles_per_job` None = as many as suit the machine."""
    tiles = tiles_per_job or suitable_tiles(config, machine, extent, known)
    held = process_bytes(config, extent.tile, known.concurrent(config))
    passes = len(config.inference.all_passes)
    return Estimate(extent, known.work, known.speed, passes, machine, tiles, held, known.slowest)


def suitable_tiles(config: Config, machine: Machine, extent: Extent, known: Known) -> int:
    """Sub-volumes of a job: as many as half of its wall time holds in the slowest pass, but so that all nodes have
    work, if that is work for a quarter of an hour; at least one for each process, and no more than that while no speed
    is known."""
    if known.speed is None or machine.walltime_s is None:
        return machine.job_ranks
    tile_seconds = extent.tile_voxels * known.work.fovs_per_voxel / known.speed.fovs_per_s * known.slowest
    fitting = max(int(SHARE_OF_WALLTIME * machine.walltime_s / tile_seconds), 1) * machine.job_ranks
    even = ceil(extent.count * len(config.inference.all_passes) / (machine.jobs_at_once or extent.count))
    worthwhile = ceil(_SHORTEST_S / tile_seconds) * machine.job_ranks
    return max(min(fitting, max(even, worthwhile)), machine.job_ranks)


def configured_machine(config: Config, jobs: int | None) -> Machine:
    """The machine of the section `cluster`, where `jobs` run at once; None = this machine."""
    cluster = config.cluster
    memory = None if cluster.memory_gb is None else cluster.memory_gb * 1e9
    if jobs is None:
        return Machine(ranks=config.inference.ranks, memory=memory)
    nodes, ranks = cluster.inference_nodes, cluster.inference_ranks_per_node
    return Machine(jobs * nodes, nodes, ranks, cluster.runtime_minutes * 60.0, memory)


def chosen_tiles_per_job(config: Config, jobs: int | None) -> int:
    """Sub-volumes of a job where the configuration leaves them open."""
    machine = configured_machine(config, jobs)
    if jobs is None:
        return machine.ranks * (_ON_GPU if visible_gpus() else 1)
    extent = extent_of(config)
    return machine.job_ranks if extent is None else suitable_tiles(config, machine, extent, Known.of(config))


def inference_mb(config: Config, jobs: int | None) -> int:
    """Memory to ask for, of a node of an inference job: what its processes hold, at least 8 GB."""
    machine, extent = configured_machine(config, jobs), extent_of(config)
    if extent is None:
        return _LEAST_MB
    held = process_bytes(config, extent.tile, Known.of(config).concurrent(config))
    return max(_LEAST_MB, ceil(machine.ranks * held / 1e6))


def consensus_mb(config: Config, workers: int = 1) -> int:
    """Memory to ask for where the passes over so many sub-volumes are joined side by side, at least 8 GB."""
    extent = extent_of(config)
    if extent is None:
        return _LEAST_MB
    return max(_LEAST_MB, ceil((PROCESS_BYTES + workers * consensus_bytes(extent)) / 1e6))


def consensus_bytes(extent: Extent) -> int:
    """What a process holds that joins the passes over a sub-volume."""
    return CONSENSUS_BYTES * extent.tile_voxels


_LEAST_MB = 8000
