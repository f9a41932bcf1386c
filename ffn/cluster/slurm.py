"""Slurm.

squeue shows jobs for some minutes after their end (MinJobAge); sacct knows older ones, where the site has accounting.
"""

import getpass
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from ffn.cluster.scheduler import Called, Job, Phase, Seen, call

_ALIVE = {
    "PENDING", "RUNNING", "CONFIGURING", "COMPLETING", "STAGE_OUT", "SUSPENDED", "STOPPED", "SIGNALING", "RESIZING",
    "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "RESV_DEL_HOLD", "SPECIAL_EXIT", "POWER_UP_NODE",
}  # fmt: skip
_STOPPED = {"TIMEOUT", "NODE_FAIL", "PREEMPTED", "BOOT_FAIL", "DEADLINE", "REVOKED"}
_FAILED = {"FAILED", "CANCELLED", "OUT_OF_MEMORY"}
_NEVER = {"DependencyNeverSatisfied"}


class Slurm:
    """sbatch, squeue, sacct, scancel."""

    key, title, id_variable, shell, release = "slurm", "Slurm", "SLURM_JOB_ID", "/bin/bash", "scontrol release"

    def submit_command(self, job: Job) -> list[str]:
        """`nodes` and `runtime` (minutes) are needed; `queue` (partition), `project` (account), `qos`, `mem_mb`,
        `gpus_per_node`, and how the ranks lie on the nodes (`tasks`, `depth`) are passed where given."""
        job.need("nodes", "runtime")
        nodes = int(job.resources["nodes"])
        per_node = max(int(job.resources.get("tasks", nodes)) // nodes, 1)
        from ffn.cluster.site import rank_depth  # here: it takes longer to import than all else that a status needs

        depth = rank_depth(job.resources, per_node)
        return [
            "sbatch", "--parsable", f"--nodes={nodes}", f"--ntasks-per-node={per_node}",
            f"--time={job.resources['runtime']}", *([] if depth is None else ["--cpus-per-task", str(depth)]),
            *job.options(
                queue="--partition", project="--account", qos="--qos", mem_mb="--mem", gpus_per_node="--gpus-per-node",
            ),
            "--no-requeue", *job.extra, f"--job-name={job.name}", f"--chdir={job.workdir}",
            f"--output={job.prefix}.output", f"--error={job.prefix}.error", str(job.script),
        ]  # fmt: skip

    def job_id(self, stdout: str) -> str | None:
        """A line `id` or `id;cluster`."""
        found = (re.fullmatch(r"(\d+)(;\S+)?", line.strip()) for line in stdout.splitlines())
        return next((match[1] for match in found if match), None)

    def is_full(self, stderr: str) -> bool:
        return re.search(r"MaxSubmitJob|job submit limit", stderr) is not None

    def look(self, ids: Sequence[str]) -> Mapping[str, Seen] | None:
        answer = call(["squeue", "--noheader", "--states=all", f"--user={getpass.getuser()}", "--format=%i|%T|%r"])
        sys.stderr.write(answer.err)
        shown = parse_table(answer)
        if shown is None:
            return None
        older = sorted(set(ids) - set(shown))
        if not older:
            return shown
        # A site may have no accounting: then what squeue shows is all there is.
        fields = "--format=JobIDRaw,State,Reason"
        known = parse_table(call(["sacct", "-X", "--noheader", "--parsable2", fields, f"--jobs={','.join(older)}"]))
        return {**(known or {}), **shown}

    def find(self, name: str) -> str | None:
        answer = call(
            ["squeue", "--noheader", "--states=all", f"--user={getpass.getuser()}", f"--name={name}", "--format=%i"]
        )
        return self.job_id(answer.out)

    def ended(self, prefix: Path) -> Phase | None:
        return None

    def cancel_command(self, ids: Sequence[str]) -> list[str]:
        return ["scancel", *ids]


def parse_table(answer: Called) -> Mapping[str, Seen] | None:
    """Jobs by id from lines `id|STATE|reason`; None where that is no answer."""
    if answer.code != 0:
        return None
    found = {}
    for line in answer.out.splitlines():
        words = line.strip().split("|")
        phase = _phase(words[1].split()[0], words[2]) if len(words) == 3 and words[1].strip() else None
        if phase is None:
            return None
        found[words[0]] = Seen(phase, words[1])
    return found


def _phase(state: str, reason: str) -> Phase | None:
    if state == "COMPLETED":
        return Phase.SUCCESS
    if state == "PENDING" and reason in _NEVER:
        return Phase.FAILED
    if state == "PENDING" and reason.startswith("JobHeld"):
        return Phase.HELD
    phases = ((_ALIVE, Phase.ALIVE), (_STOPPED, Phase.STOPPED), (_FAILED, Phase.FAILED))
    return next((phase for states, phase in phases if state in states), None)
