"""Jobscripts as Snakemake's executor writes them, and what it does with them."""

import json
from pathlib import Path

RESOURCES = {
    "cobalt": {"queue": "debug-cache-quad", "attrs": "mcdram=cache:numa=quad"},
    "pbs": {"queue": "debug", "project": "connectomics", "filesystems": "home:eagle", "select": "system=polaris"},
    "slurm": {},
}


def write_jobscript(
    cluster, body: str = "exit 0", rule: str = "train", output: str | list[str] = "done.json", **resources: object
) -> Path:
    """A jobscript in the working directory of a cluster, with the resources that it needs; None = without."""
    outputs = [output] if isinstance(output, str) else output
    wanted = {"nodes": 1, "runtime": 5, **RESOURCES[cluster.key], **resources}
    properties = {
        "type": "single", "rule": rule, "local": False, "input": [], "output": outputs, "wildcards": {},
        "params": {}, "log": [], "threads": 1, "jobid": 1,
        "resources": {name: value for name, value in wanted.items() if value is not None},
    }  # fmt: skip
    path = cluster.workdir / "snakejob.sh"
    path.write_text(f"#!/bin/sh\n# properties = {json.dumps(properties)}\ncd {cluster.workdir} && {body}\n")
    return path


def submit(cluster, body: str = "exit 0", **more: object) -> str:
    """Submit a job and return its id."""
    done = cluster.call(cluster.command("submit"), write_jobscript(cluster, body, **more))
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def status(cluster, job_id: str) -> str:
    done = cluster.call(cluster.command("status"), job_id)
    assert done.returncode == 0
    return done.stdout.strip()
