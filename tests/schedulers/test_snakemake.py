"""Snakemake with the profiles of clusters, all the way through their schedulers."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def snakemake(cluster) -> list[str]:
    """Snakemake with the profile of a cluster."""
    profile = ROOT / "workflow" / "profiles" / cluster.profile
    return [
        sys.executable, "-m", "snakemake", "--profile", str(profile), "--seconds-between-status-checks", "1",
        "--latency-wait", "10", "--set-resources", *cluster.overrides,
    ]  # fmt: skip


TWO_STEPS = """
rule last:
    input: "middle.txt"
    output: "last.txt"
    shell: "tr a-z A-Z < {input} > {output}"

rule middle:
    output: "middle.txt"
    resources: nodes=3, runtime=7
    shell: "echo $COBALT_PARTSIZE nodes > {output}"
"""
FAILING = """
rule all:
    output: "done.txt"
    shell: "exit 1"
"""
WAITING = """
rule all:
    output: "done.txt"
    shell: "cat go > {output}"
"""


def start(cobalt, *options: str) -> subprocess.Popen[str]:
    """Snakemake in a session of its own, with its messages in a pipe."""
    return subprocess.Popen(
        [*SNAKEMAKE, *options],
        cwd=cobalt.workdir,
        env=cobalt.env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def read_until(process: subprocess.Popen[str], words: str) -> str:
    """Lines of a process up to the one with these words, which is returned."""
    seen = []
    for line in process.stdout:
        seen.append(line)
        if words in line:
            return line
    pytest.fail(f"'{words}' never came:\n{''.join(seen)}")


def at_rest(process: subprocess.Popen[str]) -> bool:
    """Whether a process has no child and all its threads sleep."""
    try:
        threads = list(Path(f"/proc/{process.pid}/task").iterdir())
        states = {(thread / "stat").read_text().rpartition(")")[2].split()[0] for thread in threads}
        children = [child for thread in threads for child in (thread / "children").read_text().split()]
    except FileNotFoundError:  # a thread ended just now
        return False
    return states == {"S"} and not children


def write_snakefile(cobalt, text: str) -> None:
    (cobalt.workdir / "Snakefile").write_text(text)


def test_jobs_run_in_order_with_their_resources(cobalt):
    write_snakefile(cobalt, TWO_STEPS)
    done = cobalt.call(*SNAKEMAKE, timeout=240)
    assert done.returncode == 0, done.stderr
    assert (cobalt.workdir / "last.txt").read_text() == "3 NODES\n"
    first, second = cobalt.calls("qsub")
    assert "-n 3 -t 7 -q debug-cache-quad --attrs mcdram=cache:numa=quad" in first
    assert "-n 1 -t 60" in second


@pytest.mark.slow
def test_job_over_its_time_is_submitted_again(cobalt):
    os.mkfifo(cobalt.workdir / "go")
    write_snakefile(cobalt, WAITING)
    snakemake = start(cobalt)
    job_id = read_until(snakemake, "with external jobid").split("'")[1]
    cobalt.time_is_up(job_id)
    assert "goes on with its work" in read_until(snakemake, f"Job {job_id} was stopped by Cobalt")
    (cobalt.workdir / "go").write_text("went\n")
    output, _ = snakemake.communicate(timeout=240)
    assert snakemake.returncode == 0, output
    assert len(cobalt.calls("qsub")) == 2
    assert "Error in rule" not in output
    assert (cobalt.workdir / "done.txt").read_text() == "went\n"


@pytest.mark.slow
def test_failed_job_is_not(cobalt):
    write_snakefile(cobalt, FAILING)
    done = cobalt.call(*SNAKEMAKE, timeout=240)
    assert done.returncode != 0
    assert len(cobalt.calls("qsub")) == 1


def test_refused_submission_is_shown(cobalt):
    del cobalt.env["COBALT_PROJ"]
    write_snakefile(cobalt, FAILING)
    done = cobalt.call(*SNAKEMAKE, timeout=240)
    assert done.returncode != 0
    assert "No project specified" in done.stdout + done.stderr


@pytest.mark.slow
def test_interrupt_takes_the_jobs_out_of_the_queue(cobalt):
    os.mkfifo(cobalt.workdir / "go")
    write_snakefile(cobalt, WAITING)
    snakemake = start(cobalt, "--seconds-between-status-checks", "5")
    job_id = read_until(snakemake, "with external jobid").split("'")[1]
    # Snakemake may lose an interrupt that comes while it notes the new job down, and it forgets its jobs while it asks
    # for their states. So: after it has asked once, and when none of its threads runs.
    while not (cobalt.calls("qstat") and at_rest(snakemake)):
        assert snakemake.poll() is None
        time.sleep(0.02)
    snakemake.send_signal(signal.SIGINT)
    snakemake.communicate(timeout=120)
    assert snakemake.returncode != 0
    cobalt.wait_for(job_id)
    assert cobalt.calls("qdel") == [f"qdel {job_id}"]
    assert len(cobalt.calls("qsub")) == 1
    assert cobalt.jobs() == []


@pytest.mark.slow
def test_crashed_snakemake_finds_its_job_again(cobalt):
    os.mkfifo(cobalt.workdir / "go")
    write_snakefile(cobalt, WAITING)
    snakemake = start(cobalt)
    job_id = read_until(snakemake, "with external jobid").split("'")[1]
    os.killpg(snakemake.pid, signal.SIGKILL)
    snakemake.communicate()
    assert cobalt.jobs() == [job_id]
    cobalt.call(*SNAKEMAKE, "--unlock")
    again = start(cobalt)
    read_until(again, "already does the work of all")
    assert job_id in read_until(again, "with external jobid")
    (cobalt.workdir / "go").write_text("went\n")
    again.communicate(timeout=240)
    assert again.returncode == 0
    assert len(cobalt.calls("qsub")) == 1
    assert (cobalt.workdir / "done.txt").read_text() == "went\n"


@pytest.mark.slow
def test_first_stages_of_our_workflow(cobalt):
    """From another folder, so that a relative path anywhere in the profile would show."""
    (cobalt.workdir / "elsewhere").mkdir()
    config = ROOT / "tests" / "workflow" / "configs" / "tiny.yaml"
    done = cobalt.call(
        *SNAKEMAKE, "--snakefile", ROOT / "Snakefile", "--directory", "elsewhere", "--configfile", config, "--",
        "results/tiny/prepare/done.json", timeout=400,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (cobalt.workdir / "elsewhere/results/tiny/prepare/coordinates.h5").is_file()
    assert len(cobalt.calls("qsub")) == 2
