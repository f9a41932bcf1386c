"""Our commands with a real Slurm of four nodes."""

import os
import time

import pytest
from jobscripts import status, submit, write_jobscript

from ffn.cluster.registry import Registry

pytestmark = pytest.mark.slow


def last_id(slurm) -> str:
    """Id of the job that does the work now."""
    registry = Registry(slurm.workdir / ".snakemake" / "slurm")
    (job,) = registry.last_jobs(path.stem for path in (registry.folder / "work").iterdir())
    return job.id


def test_job_runs_on_its_nodes_and_succeeds(slurm, real_slurm):
    job_id = submit(slurm, "srun hostname | wc -l > ran; echo $SLURM_JOB_NUM_NODES >> ran", nodes=3, tasks=6, depth=1)
    assert real_slurm.wait_for(job_id) == "COMPLETED"
    assert (slurm.workdir / "ran").read_text().split() == ["6", "3"]
    assert status(slurm, job_id) == "success"


def test_failing_job_is_failed(slurm, real_slurm):
    job_id = submit(slurm, "exit 3", restarts=2)
    assert real_slurm.wait_for(job_id) == "FAILED"
    assert status(slurm, job_id) == "failed"
    assert last_id(slurm) == job_id


def test_old_job_is_found_in_the_accounting(slurm, real_slurm):
    """squeue forgets jobs after MinJobAge, which here does not pass: it is asked for another user's."""
    job_id = submit(slurm, "exit 3")
    real_slurm.wait_for(job_id)
    programs = slurm.workdir / "programs"
    programs.mkdir()
    (programs / "squeue").write_text("#!/bin/sh\nexit 0\n")
    (programs / "squeue").chmod(0o755)
    slurm.env["PATH"] = f"{programs}:{slurm.env['PATH']}"
    assert status(slurm, job_id) == "failed"


def test_job_over_its_time_goes_on_in_another(slurm, real_slurm):
    job_id = submit(slurm, "if mkdir tried; then exec sleep 600; else exit 0; fi", runtime=1, restarts=1)
    real_slurm.wait_for(job_id, "RUNNING")
    real_slurm.end_time(job_id)
    assert real_slurm.wait_for(job_id) == "TIMEOUT"
    assert status(slurm, job_id) == "running"
    again = last_id(slurm)
    assert again != job_id
    assert real_slurm.wait_for(again) == "COMPLETED"
    assert status(slurm, job_id) == "success"


def test_job_of_a_lost_node_goes_on_in_another(slurm, real_slurm):
    task = "srun sh -c 'touch on-$SLURMD_NODENAME; exec sleep 600'"
    job_id = submit(slurm, f"if mkdir tried; then {task}; else exit 0; fi", nodes=2, restarts=1)
    while len(list(slurm.workdir.glob("on-*"))) < 2:
        time.sleep(0.05)
    node = real_slurm.first_node(job_id)
    real_slurm.kill_node(node)
    try:
        assert real_slurm.wait_for(job_id) == "NODE_FAIL"
        assert status(slurm, job_id) == "running"
        again = last_id(slurm)
        assert real_slurm.wait_for(again) == "COMPLETED"
        assert status(slurm, job_id) == "success"
    finally:
        real_slurm.start_node(node)


def test_silent_controller_is_no_failure(slurm, real_slurm):
    os.mkfifo(slurm.workdir / "go")
    job_id = submit(slurm, "read word < go; exit 0")
    real_slurm.wait_for(job_id, "RUNNING")
    real_slurm.stop_controller()
    try:
        state = slurm.call("ffn-slurm-status", job_id)
        assert (state.returncode, state.stdout) == (0, "running\n")
        assert "controller" in state.stderr
    finally:
        real_slurm.start_controller()
    (slurm.workdir / "go").write_text("now\n")
    assert real_slurm.wait_for(job_id) == "COMPLETED"
    assert status(slurm, job_id) == "success"


def test_held_job_is_told_of_and_cancelled(slurm, real_slurm):
    slurm.env["SBATCH_REQUEUE"] = "0"
    job_id = submit(slurm, submit_options="--hold")
    state = slurm.call("ffn-slurm-status", job_id)
    assert state.stdout == "running\n"
    assert "is held (PENDING); release it with scontrol release" in state.stderr
    assert slurm.call("ffn-slurm-cancel", job_id, timeout=2).returncode == 0
    assert real_slurm.wait_for(job_id) == "CANCELLED"
    assert status(slurm, job_id) == "failed"


def test_live_job_is_adopted(slurm, real_slurm):
    os.mkfifo(slurm.workdir / "go")
    job_id = submit(slurm, "read word < go; exit 0")
    assert submit(slurm, "read word < go; exit 0") == job_id
    (slurm.workdir / "go").write_text("now\n")
    assert real_slurm.wait_for(job_id) == "COMPLETED"


def test_refusal_is_shown_in_slurms_words(slurm):
    refused = slurm.call("ffn-slurm-submit", write_jobscript(slurm, "exit 0", queue="nowhere"))
    assert refused.returncode == 1
    assert "invalid partition specified: nowhere" in refused.stderr
    refused = slurm.call("ffn-slurm-submit", write_jobscript(slurm, "exit 0", nodes=5))
    assert "Node count specification invalid" in refused.stderr or "More processors requested" in refused.stderr


def test_jobs_wait_here_while_slurm_takes_no_more(slurm, real_slurm):
    real_slurm.limit_jobs(1)
    try:
        os.mkfifo(slurm.workdir / "go")
        first = submit(slurm, "read word < go; exit 0", output="0.json")
        done = slurm.call("ffn-slurm-submit", write_jobscript(slurm, "exit 0", output="1.json"))
        second = done.stdout.strip()
        assert "takes no more jobs of yours now" in done.stderr
        assert status(slurm, second) == "running"
        (slurm.workdir / "go").write_text("now\n")
        real_slurm.wait_for(first)
        assert status(slurm, second) == "running"
        submitted = Registry(slurm.workdir / ".snakemake" / "slurm").job(second).id
        assert real_slurm.wait_for(submitted) == "COMPLETED"
        assert status(slurm, second) == "success"
    finally:
        real_slurm.limit_jobs(-1)
