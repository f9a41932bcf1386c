"""What is known of a machine: `site.yaml` beside a profile.

    name: Theta
    scheduler: cobalt
    launcher: aprun
    node: {cores: 64, hyperthreads: 4, memory_gb: 192}
    queues:
      debug-cache-quad:
        sizes:
          - {nodes: [1, 8], minutes: [1, 60]}

Rules, job scripts and checks take from it what differs between machines; a profile (`config.yaml`) says what its jobs
ask for where they do not say it themselves. The resource `site` of a job is the name of the folder.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ffn.cluster.profiles import shipped_profiles, snakemake_profiles
from ffn.errors import ClusterError

FILE = "site.yaml"

Count = Annotated[int, Field(ge=1)]
Range = tuple[Count, Count]


class _Facts(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Node(_Facts):
    """One machine of many.

    Attributes:
        hyperthreads: Hardware threads of a core.
        rank_threads: Hardware threads that the ranks of a node share where a job does not state its `depth`; empty =
            one of each core.
    """

    cores: Count
    hyperthreads: Count = 1
    rank_threads: Count | None = None
    memory_gb: Annotated[float, Field(gt=0)] | None = None
    gpus: Annotated[int, Field(ge=0)] = 0

    def depth(self, ranks: int) -> int:
        """Hardware threads of each of so many ranks, where a job does not state it."""
        return max((self.rank_threads or self.cores) // ranks, 1)


class JobSize(_Facts):
    """What a queue takes: jobs of so many nodes, for so many minutes."""

    nodes: Range
    minutes: Range


class JobQueue(_Facts):
    """A queue of the scheduler.

    Attributes:
        sizes: From few nodes to many.
        running: Jobs of one user that run at once.
        queued: Jobs of one user that it holds.
    """

    sizes: Annotated[list[JobSize], Field(min_length=1)]
    running: Count | None = None
    queued: Count | None = None

    def takes(self, nodes: int) -> JobSize | None:
        """The sizes for a number of nodes."""
        return next((size for size in self.sizes if size.nodes[0] <= nodes <= size.nodes[1]), None)

    @property
    def described(self) -> str:
        """The numbers of nodes that it takes."""
        least, most = self.sizes[0].nodes[0], self.sizes[-1].nodes[1]
        return f"{least} nodes" if least == most else f"{least:,} to {most:,} nodes"


class Site(_Facts):
    """A machine.

    Attributes:
        launcher: What starts ranks on its nodes.
        environment: Of each rank; `{depth}` and `{cores}` stand for the hardware threads and the cores that it has.
        affinity: How the launcher binds ranks.
        setup: Shell lines at the start of each job.
        queues: By name; empty = not known, so nothing is checked.
        note: What its users should know.
    """

    name: str
    scheduler: Literal["cobalt", "pbs", "slurm"]
    launcher: Literal["aprun", "mpiexec", "srun"]
    node: Node
    environment: dict[str, str | int] = Field(default_factory=dict)
    affinity: str | None = None
    setup: list[str] = Field(default_factory=list)
    queues: dict[str, JobQueue] = Field(default_factory=dict)
    note: str = ""

    def rank_environment(self, ranks: int, depth: int) -> dict[str, str]:
        """Variables of each of so many ranks of a node that own `depth` hardware threads."""
        cores = max(self.node.cores // ranks, 1)
        return {name: str(value).format(depth=depth, cores=cores) for name, value in self.environment.items()}


def load_site(name: str, folders: Iterable[Path] | None = None) -> Site:
    """The site of this name: of the user's own profiles, else of those that come with the workflow.

    Raises ClusterError where there is none, or its file says what cannot be.
    """
    searched = [snakemake_profiles(), shipped_profiles()] if folders is None else list(folders)
    path = next((folder / name / FILE for folder in searched if (folder / name / FILE).is_file()), None)
    if path is None:
        known = sorted({found.parent.name for folder in searched for found in folder.glob(f"*/{FILE}")})
        raise ClusterError(
            f"There is no site '{name}': no {FILE} in {' or '.join(str(folder / name) for folder in searched)}. "
            f"Known: {', '.join(known)}."
        )
    try:
        return Site.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, yaml.YAMLError) as error:
        raise ClusterError(f"{path} cannot be read: {error}") from error
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
        raise ClusterError(f"{path} does not describe a site: {problems}.") from error


def rank_depth(resources: Mapping[str, Any], per_node: int) -> int | None:
    """Hardware threads of each of a node's ranks, by the resource `depth` of their job; None where nobody says.

    0 stands for all of the node's: profiles give jobs a few cores, and stages that work block by block take all.
    """
    stated, site = resources.get("depth"), resources.get("site")
    if stated or not site:
        return int(stated) if stated else None
    return None if stated is None else load_site(str(site)).node.depth(per_node)


@dataclass(frozen=True)
class Request:
    """What the jobs of some rules ask for; `minutes` of wall time."""

    rules: Sequence[str]
    nodes: int
    minutes: int
    queue: str


def request_problem(site: Site, request: Request) -> str | None:
    """Why the site's scheduler would not take such a job, and what to do instead; None if it would."""
    if not site.queues:
        return None
    who = f"rule {request.rules[0]} asks" if len(request.rules) == 1 else f"rules {', '.join(request.rules)} ask"
    asked = f"{who} for {_nodes(request.nodes)}, {request.minutes} minutes"
    queue = site.queues.get(request.queue)
    if queue is None:
        return f"{site.name} has no queue '{request.queue}' ({asked}): use {', '.join(site.queues)}."
    size = queue.takes(request.nodes)
    if size is None:
        return f"{request.queue} takes {queue.described}, {asked}: {_instead(site.queues, request)}."
    (least, most), shape = size.minutes, _nodes(request.nodes)
    if request.minutes > most:
        return f"{request.queue} gives {shape} at most {most} minutes, {asked}: {_instead(site.queues, request)}."
    if request.minutes < least:
        return f"{request.queue} takes jobs of at least {least} minutes with {shape}, {asked}: ask for {least}."
    return None


def _instead(queues: Mapping[str, JobQueue], request: Request) -> str:
    """Where such a job would be taken; else the nearest that would be."""
    fitting = [
        name
        for name, queue in queues.items()
        if (size := queue.takes(request.nodes)) is not None and request.minutes <= size.minutes[1]
    ]
    if fitting:
        return f"use {' or '.join(fitting)}"
    longer = [
        (size.nodes[0], name)
        for name, queue in queues.items()
        for size in queue.sizes
        if size.nodes[0] > request.nodes and request.minutes <= size.minutes[1]
    ]
    shorter = [
        (size.minutes[1], name) for name, queue in queues.items() if (size := queue.takes(request.nodes)) is not None
    ]
    ways = []
    if longer:
        nodes, name = min(longer)
        ways.append(f"use {name} with at least {nodes:,} nodes")
    if shorter:
        minutes, name = max(shorter)
        ways.append(f"{name} with at most {minutes} minutes" if ways else f"use {name} with at most {minutes} minutes")
    if not ways:
        most = max(queue.sizes[-1].nodes[1] for queue in queues.values())
        ways.append(f"use at most {most:,} nodes")
    return ", or ".join(ways)


def _nodes(count: int) -> str:
    return "1 node" if count == 1 else f"{count:,} nodes"
