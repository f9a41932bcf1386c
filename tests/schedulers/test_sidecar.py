"""What runs beside Snakemake, against the stand-ins."""

import os
import signal
import subprocess

import pytest
from jobscripts import status, submit


@pytest.mark.slow
def test_sidecar_cancels_what_its_run_left_behind(standin):
    sidecar = subprocess.Popen(
        [standin.command("sidecar")], cwd=standin.workdir, env=standin.env, stdout=subprocess.PIPE, text=True
    )
    other = submit(standin, "exec sleep 600", output="other.json")
    standin.env["SNAKEMAKE_CLUSTER_SIDECAR_VARS"] = sidecar.stdout.readline().strip()
    ours = submit(standin, "exec sleep 600")
    sidecar.send_signal(signal.SIGINT)
    sidecar.terminate()
    assert sidecar.wait(20) == 0
    standin.wait_for(ours)
    assert standin.jobs() == [other]
    standin.call(standin.command("cancel"), other)
    standin.wait_for(other)


def with_sidecar(standin, then: str) -> subprocess.Popen[str]:
    """A process that starts a sidecar, as Snakemake does, and goes on with Python code; its next line is awaited."""
    code = (
        "import signal, subprocess, sys\n"
        "sidecar = subprocess.Popen(sys.argv[1:], stdout=subprocess.PIPE, text=True)\n"
        "print(sidecar.stdout.readline(), end='', flush=True)\n"
    )
    process = subprocess.Popen(
        ["python3", "-c", code + then, standin.command("sidecar")],
        cwd=standin.workdir, env=standin.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    standin.env["SNAKEMAKE_CLUSTER_SIDECAR_VARS"] = process.stdout.readline().strip()
    return process


def test_sidecar_leaves_the_jobs_alone_when_snakemake_is_killed(standin):
    snakemake = with_sidecar(standin, "sys.stdin.read()\n")
    os.mkfifo(standin.workdir / "go")
    job_id = submit(standin, "read word < go; exit 0")
    snakemake.kill()
    snakemake.communicate()
    (standin.workdir / "go").write_text("now\n")
    standin.wait_for(job_id)
    assert status(standin, job_id) == "success"


INTERRUPTED = """
try:
    sidecar.send_signal(signal.SIGINT)
    sys.stdin.read()
except KeyboardInterrupt:
    sidecar.terminate()
    sys.exit(7 if sidecar.wait() == 0 else 1)
"""


def test_interrupt_that_snakemake_lost_is_repeated(standin):
    """Only the sidecar hears it."""
    snakemake = with_sidecar(standin, INTERRUPTED)
    assert snakemake.wait(20) == 7
    assert not list((standin.workdir / ".snakemake" / standin.key).glob("interrupted-*"))


def test_interrupt_that_snakemake_heard_is_not_repeated(standin):
    standin.set("hold", standin.held)
    snakemake = with_sidecar(standin, "sys.stdin.readline()\n" + INTERRUPTED)
    job_id = submit(standin)
    snakemake.stdin.write("now\n")
    snakemake.stdin.flush()
    noted = standin.workdir / ".snakemake" / standin.key
    while not list(noted.glob("interrupted-*")):
        assert snakemake.poll() is None
    standin.call(standin.command("cancel"), job_id)
    assert not list(noted.glob("interrupted-*"))
    with pytest.raises(subprocess.TimeoutExpired):
        snakemake.wait(5)
    snakemake.communicate()
    assert snakemake.returncode == 0
