"""What the jobs of rules ask a machine for, by the resources that Snakemake knows of them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ffn.cluster.launch import Layout, launch_line, spread
from ffn.cluster.site import Request, Site, load_site, request_problem


@dataclass(frozen=True)
class Asked:
    """The jobs of a rule.

    Attributes:
        site: Folder of the profile whose `site.yaml` says what the machine is; empty = none does.
        nodes: Of a job.
        minutes: Wall time of a job.
    """

    rule: str
    site: str
    queue: str
    nodes: int
    minutes: int

    @property
    def node_hours(self) -> float:
        """What one job takes that lasts its whole wall time."""
        return self.nodes * self.minutes / 60


def asked_of(rules: Iterable[Any]) -> list[Asked]:
    """What Snakemake's rules state, with what the profile and the command line state for them.

    Left out are rules that run nothing, and those whose nodes or minutes are not known before a job is.
    """
    found = []
    for rule in rules:
        stated = {name: _unquoted(one.raw) for name, one in rule.resources.items() if one.raw is not None}
        nodes, minutes = stated.get("nodes"), stated.get("runtime")
        if not rule.norun and isinstance(nodes, int) and isinstance(minutes, int):
            site, queue = (str(stated.get(name) or "") for name in ("site", "queue"))
            found.append(Asked(str(rule.name), site, queue, nodes, minutes))
    return found


def refusals(asked: Iterable[Asked], groups: Mapping[str, str]) -> list[str]:
    """What the queues would not take, a sentence each; `groups` by rule, where several run one after the other in one
    job."""
    alike: dict[tuple[str, str, int, int], list[str]] = {}
    for rules, job in _jobs(asked, groups):
        if job.site and job.queue:
            alike.setdefault((job.site, job.queue, job.nodes, job.minutes), []).extend(rules)
    problems = []
    for (site, queue, nodes, minutes), rules in alike.items():
        problem = request_problem(load_site(site), Request(rules, nodes, minutes, queue))
        problems += [] if problem is None else [problem]
    return problems


def node_hours(asked: Sequence[Asked], counts: Mapping[str, int]) -> str:
    """What so many jobs of each rule take at most, in one line; empty where no job goes to a machine that is known."""
    parts = {one.rule: one.node_hours * counts.get(one.rule, 0) for one in asked if one.site}
    parts = {rule: hours for rule, hours in parts.items() if hours}
    if not parts:
        return ""
    listed = ", ".join(f"{rule} {hours:,.2f}" for rule, hours in parts.items())
    return (
        f"Asked for: at most {sum(parts.values()):,.2f} node-hours, if each job takes its whole wall time ({listed})."
    )


def default_site(resources: Mapping[str, Any] | None) -> Site | None:
    """The site that a profile's default resources name; None where they name none."""
    stated = None if resources is None else resources.get("site")
    name = _unquoted(getattr(stated, "raw", stated) or "")
    return load_site(str(name)) if name else None


def launcher_of(resources: Any, default: str) -> str:
    """What starts the ranks of a job: as its site says, else as its resources do."""
    site = _site(resources)
    return str(resources.get("launcher", default)) if site is None else site.launcher


def launch_line_of(resources: Any, default: str, ranks: int, nodes: int) -> str:
    """Launch line of the ranks of a job, by its site and resources; `default` is the launcher where none is stated."""
    site, per_node, depth = _site(resources), spread(ranks, nodes), resources.get("depth")
    if site is None:
        depth = int(depth or 1)
        layout = Layout(nodes, per_node, depth, environment={"OMP_NUM_THREADS": str(depth)})
    else:
        node, depth = site.node, int(depth or site.node.depth(per_node))
        environment = site.rank_environment(per_node, depth)
        layout = Layout(nodes, per_node, depth, node.cores, node.hyperthreads, site.affinity, environment)
    return launch_line(launcher_of(resources, default), layout)


def _jobs(asked: Iterable[Asked], groups: Mapping[str, str]) -> list[tuple[list[str], Asked]]:
    """Rules and request of each job."""
    shared: dict[str, list[Asked]] = {}
    for one in asked:
        shared.setdefault(groups.get(one.rule, one.rule), []).append(one)
    return [([one.rule for one in members], _together(members)) for members in shared.values()]


def _together(members: Sequence[Asked]) -> Asked:
    """What a job asks for that runs several after each other."""
    nodes, minutes = max(one.nodes for one in members), sum(one.minutes for one in members)
    return replace(members[0], nodes=nodes, minutes=minutes)


def _site(resources: Any) -> Site | None:
    name = resources.get("site")
    return load_site(name) if name else None


def _unquoted(value: int | str) -> int | str:
    """Profiles put texts in quotes of their own, so that they are not computed."""
    if not isinstance(value, str):
        return value
    text = value.strip()
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" else text
