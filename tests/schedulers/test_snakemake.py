"""Snakemake with the profiles of clusters, all the way through their schedulers."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROFILES = ROOT / "workflow" / "profiles"
NODES_OF_THE_JOB = "${{COBALT_PARTSIZE:-${{SLURM_JOB_NUM_NODES:-$(wc -l < $PBS_NODEFILE)}}}}"
TWO_STEPS = f"""
rule last:
    input: "middle.txt"
    output: "last.txt"
    shell: "tr a-z A-Z < {{input}} > {{output}}"

rule middle:
    output: "middle.txt"
    resources: nodes=3, runtime=7
    shell: "echo {NODES_OF_THE_JOB} nodes > {{output}}"
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
GROUPED = """
rule last:
    input: "first.txt"
    output: "done.txt"
    group: "both"
    resources: runtime=10
    shell: "cat go > {output}"

rule first:
    output: "first.txt"
    group: "both"
    resources: runtime=10
    shell: "echo > {output}"
"""
MANY = """
rule all:
    input: expand("{number}.txt", number=range(int(config["jobs"])))

rule one:
    output: "{number}.txt"
    shell: "echo {wildcards.number} > {output}"
"""


def snakemake(cluster, *options: object) -> list[str]:
    """Snakemake with the profile of a cluster, and faster than one would want there."""
    return [
        sys.executable, "-m", "snakemake", "--profile", str(PROFILES / cluster.profile),
        "--seconds-between-status-checks", "1", "--latency-wait", "10", *map(str, options),
    ]  # fmt: skip


def start(cluster, *options: object) -> subprocess.Popen[str]:
    """Snakemake in a session of its own, with its messages in a pipe."""
    return subprocess.Popen(
        snakemake(cluster, *options),
        cwd=cluster.workdir,
        env=cluster.env,
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


def read_job_id(process: subprocess.Popen[str]) -> str:
    return read_until(process, "with external jobid").split("'")[1]


def write_snakefile(cluster, text: str) -> None:
    (cluster.workdir / "Snakefile").write_text(text)


def waiting_job(cluster, *options: object) -> tuple[subprocess.Popen[str], str]:
    """Snakemake with one job in the queue that waits for a word in the pipe `go`."""
    os.mkfifo(cluster.workdir / "go")
    write_snakefile(cluster, WAITING)
    process = start(cluster, *options)
    return process, read_job_id(process)


def give_word(cluster) -> None:
    (cluster.workdir / "go").write_text("went\n")


def assert_went(cluster, process: subprocess.Popen[str], submissions: int) -> None:
    """The workflow ends well, its only rule ran to its end, and so many jobs were submitted for it."""
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output
    assert "Error in rule" not in output
    assert (cluster.workdir / "done.txt").read_text() == "went\n"
    assert len(cluster.submitted()) == submissions


def assert_goes_on_after_a_crash(cluster, process: subprocess.Popen[str], job_id: str) -> None:
    """Kill Snakemake while its only job waits for a word: the next start waits for that job."""
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert cluster.jobs() == [job_id]
    cluster.call(*snakemake(cluster, "--unlock"))
    again = start(cluster)
    read_until(again, "already does the work of")
    assert read_job_id(again) == job_id
    give_word(cluster)
    assert_went(cluster, again, submissions=1)


@pytest.mark.slow
def test_jobs_run_in_order_with_their_resources(cluster):
    write_snakefile(cluster, TWO_STEPS)
    done = cluster.call(*snakemake(cluster), timeout=240)
    assert done.returncode == 0, done.stderr
    assert (cluster.workdir / "last.txt").read_text() == "3 NODES\n"
    assert len(cluster.submitted()) == 2


@pytest.mark.slow
def test_job_over_its_time_is_submitted_again(standin):
    process, job_id = waiting_job(standin)
    standin.end(job_id, "walltime")
    assert "goes on with its work" in read_until(process, f"Job {job_id} was stopped by")
    give_word(standin)
    assert_went(standin, process, submissions=2)


@pytest.mark.slow
def test_failed_job_is_not(standin):
    write_snakefile(standin, FAILING)
    done = standin.call(*snakemake(standin), timeout=240)
    assert done.returncode != 0
    assert len(standin.submitted()) == 1


@pytest.mark.slow
def test_refused_submission_is_shown(standin):
    del standin.env["FFN_PROJECT"]
    write_snakefile(standin, FAILING)
    done = standin.call(*snakemake(standin), timeout=240)
    assert done.returncode != 0
    words = {"cobalt": "No project specified", "pbs": "Account_Name is required to be set"}
    assert words[standin.key] in done.stdout + done.stderr


@pytest.mark.slow
def test_scheduler_that_does_not_answer_for_a_while(standin):
    process, _ = waiting_job(standin)
    standin.set("deaf")
    asked = len(standin.calls("qstat"))
    while len(standin.calls("qstat")) < asked + 6:
        assert process.poll() is None
        time.sleep(0.02)
    standin.clear("deaf")
    give_word(standin)
    assert_went(standin, process, submissions=1)


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["submitting", "asking", "waiting"])
def test_interrupt_takes_all_jobs_out_of_the_queue(standin, moment):
    """Whatever Snakemake is at: it forgets a job while it submits it or asks how it is."""
    os.mkfifo(standin.workdir / "go")
    write_snakefile(standin, MANY.replace("echo {wildcards.number} >", "cat go >"))
    polls = "1" if moment == "asking" else "8"
    process = start(standin, "--config", "jobs=3", "--seconds-between-status-checks", polls)
    for _ in range(1 if moment == "submitting" else 3):
        read_job_id(process)
    asked = len(standin.calls("qstat"))
    while moment == "asking" and len(standin.calls("qstat")) == asked:
        assert process.poll() is None
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    process.communicate(timeout=120)
    assert process.returncode != 0
    for job_id in standin.submitted():
        standin.wait_for(job_id)
    assert standin.jobs() == []


@pytest.mark.slow
def test_crashed_snakemake_finds_its_job_again(cluster):
    process, job_id = waiting_job(cluster)
    assert_goes_on_after_a_crash(cluster, process, job_id)


@pytest.mark.slow
def test_two_workflows_side_by_side(cluster):
    """Of one user, in two working directories: each waits for its own jobs, and an interrupt ends only its own."""
    first, first_id = waiting_job(cluster)
    other = cluster.beside()
    second, second_id = waiting_job(other)
    assert first_id != second_id
    os.killpg(first.pid, signal.SIGINT)
    first.communicate(timeout=120)
    cluster.wait_for(first_id)
    assert other.jobs() == [second_id]
    give_word(other)
    assert_went(other, second, submissions=1)


@pytest.mark.slow
def test_more_jobs_than_the_queue_takes(standin):
    """Snakemake waits for those that wait here; with 200 of them: test_queue."""
    standin.set("full", "3")
    write_snakefile(standin, MANY)
    done = standin.call(*snakemake(standin, "--config", "jobs=8"), timeout=400)
    assert done.returncode == 0, done.stderr[-3000:]
    assert sorted(path.stem for path in standin.workdir.glob("*.txt")) == list("01234567")
    assert len(standin.submitted()) == 8


@pytest.mark.slow
def test_first_stages_of_our_workflow(cluster):
    """From another folder, so that a relative path anywhere in the profile would show."""
    elsewhere = replace(cluster, workdir=cluster.workdir / "elsewhere")
    elsewhere.workdir.mkdir()
    config = ROOT / "tests" / "workflow" / "configs" / "tiny.yaml"
    done = cluster.call(
        *snakemake(cluster, "--snakefile", ROOT / "Snakefile", "--directory", "elsewhere", "--configfile", config),
        "--", "results/tiny/prepare/done.json", timeout=400,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (elsewhere.workdir / "results/tiny/prepare/coordinates.h5").is_file()
    assert len(elsewhere.submitted()) == 1  # both are short, and share a job


@pytest.mark.slow
def test_crash_in_the_middle_of_a_group(cluster):
    """The next start needs only the second rule of the group, whose job still runs."""
    os.mkfifo(cluster.workdir / "go")
    write_snakefile(cluster, GROUPED)
    process = start(cluster)
    job_id = read_job_id(process)
    while not (cluster.workdir / "first.txt").exists():
        assert process.poll() is None
        time.sleep(0.02)
    assert_goes_on_after_a_crash(cluster, process, job_id)
