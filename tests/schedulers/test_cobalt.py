"""The Cobalt wrappers against the stand-in for Cobalt: what they ask, what they make of the answers."""

import json
import os
from pathlib import Path

import pytest

from ffn.cluster.cobalt import ended_as, parse_qstat, qsub_command, status
from ffn.cluster.registry import Record, Registry
from ffn.errors import ClusterError

RESOURCES = {"nodes": 8, "runtime": 60, "queue": "debug-cache-quad", "attrs": "mcdram=cache:numa=quad"}


def jobscript(folder: Path, body: str, rule: str = "train", output: str = "done.json", **resources: object) -> Path:
    """A jobscript as Snakemake's executor writes it."""
    properties = {
        "type": "single", "rule": rule, "local": False, "input": [], "output": [output], "wildcards": {},
        "params": {}, "log": [], "threads": 1, "resources": {"nodes": 1, "runtime": 5, **resources}, "jobid": 1,
    }  # fmt: skip
    path = folder / "snakejob.sh"
    path.write_text(f"#!/bin/sh\n# properties = {json.dumps(properties)}\n{body}\n")
    return path


def test_resources_become_options_of_qsub():
    command = qsub_command(RESOURCES, "train", Path("/w"), Path("/w/p"), Path("/w/p.sh"))
    assert command == [
        "qsub", "-n", "8", "-t", "60", "-q", "debug-cache-quad", "--attrs", "mcdram=cache:numa=quad",
        "--mode", "script", "--jobname", "train", "--cwd", "/w", "-O", "/w/p", "/w/p.sh",
    ]  # fmt: skip


def test_a_job_without_node_count_is_refused_by_name():
    with pytest.raises(ClusterError, match=r"Job train has no resource nodes and runtime.*default-resources"):
        qsub_command({}, "train", Path("/w"), Path("/w/p"), Path("/w/p.sh"))


def test_qstat_table_is_read():
    assert parse_qstat("JobID   State     \n=========\n563001  running\n563002  user_hold\n") == {
        "563001": "running",
        "563002": "user_hold",
    }


@pytest.mark.parametrize(
    ("line", "end"),
    [
        ("Info: task completed normally with an exit code of 0; initiating job cleanup and removal", "success"),
        ("Info: task completed normally with an exit code of 1; initiating job cleanup and removal", "failed"),
        ("Info: task completed normally with an exit code of None; initiating job cleanup and removal", "stopped"),
        ("Info: maximum execution time exceeded; initiating job termination", "stopped"),
        ("Info: maximum execution time exceeded; initiating job terminiation", "stopped"),
        ("Info: user delete requested with signal SIGTERM by user x", "failed"),
        ("Info: user delete requested; removing job from the queue", "failed"),
        ("ERROR: execution failure; initiating job cleanup and removal", "stopped"),
        ("Info: Job 1/x/ Q.debug: Running job on 0", None),
    ],
)
def test_last_line_of_the_log_decides(line, end):
    head = "Jobid: 1\nThu Nov 05 17:29:30 2020 +0000 (UTC) submitted with cwd set to: /w\n"
    assert ended_as(f"{head}Thu Nov 05 17:29:31 2020 +0000 (UTC) {line}\n") == end


def test_job_runs_and_succeeds(cobalt):
    script = jobscript(cobalt.workdir, 'echo "$COBALT_JOBID" > ran; exit 0 || exit 1')
    submitted = cobalt.call("ffn-cobalt-submit", script)
    assert submitted.returncode == 0
    job_id = submitted.stdout.strip()
    assert submitted.stdout == f"{job_id}\n"
    assert "Job routed to queue" in submitted.stderr
    cobalt.wait_for(job_id)
    assert (cobalt.workdir / "ran").read_text().strip() == job_id
    state = cobalt.call("ffn-cobalt-status", job_id)
    assert (state.returncode, state.stdout) == (0, "success\n")


def test_job_finds_the_programs_of_this_environment(cobalt):
    script = jobscript(cobalt.workdir, "command -v ffn-cobalt-status > found; echo $LOADED >> found")
    (cobalt.workdir / "modules.sh").write_text("LOADED=yes\n")
    job_id = cobalt.call("ffn-cobalt-submit", "--prelude", "modules.sh", script).stdout.strip()
    cobalt.wait_for(job_id)
    found, loaded = (cobalt.workdir / "found").read_text().split()
    assert found.endswith("/ffn-cobalt-status")
    assert loaded == "yes"


def test_submitted_script_outlives_snakemakes(cobalt):
    cobalt.set("hold", "user_hold")
    script = jobscript(cobalt.workdir, "exit 0")
    job_id = cobalt.call("ffn-cobalt-submit", script).stdout.strip()
    script.unlink()
    job = json.loads((cobalt.state / "jobs" / f"{job_id}.json").read_text())
    assert Path(job["script"]).is_file()
    assert os.access(job["script"], os.X_OK)


def test_failing_job_is_failed(cobalt):
    job_id = cobalt.call("ffn-cobalt-submit", jobscript(cobalt.workdir, "exit 3")).stdout.strip()
    cobalt.wait_for(job_id)
    assert cobalt.call("ffn-cobalt-status", job_id).stdout == "failed\n"


def test_job_over_its_time_is_failed(cobalt):
    script = jobscript(cobalt.workdir, "exec sleep 600", runtime="00:00:01")
    job_id = cobalt.call("ffn-cobalt-submit", script).stdout.strip()
    cobalt.wait_for(job_id)
    assert cobalt.call("ffn-cobalt-status", job_id).stdout == "failed\n"


def test_job_over_its_time_is_submitted_again_as_often_as_it_may(cobalt):
    """The second job finds what the first one left, and is over its time too; the third one ends."""
    body = "echo >> starts; if [ $(wc -l < starts) = 3 ]; then exit 0; else exec sleep 600; fi"
    script = jobscript(cobalt.workdir, body, runtime="00:00:01", restarts=2)
    job_id = cobalt.call("ffn-cobalt-submit", script).stdout.strip()
    for left in (1, 0):
        cobalt.wait_for(max(cobalt.submitted()))
        state = cobalt.call("ffn-cobalt-status", job_id)
        assert state.stdout == "running\n"
        assert f"goes on with its work (restarts left: {left})" in state.stderr
    cobalt.wait_for(max(cobalt.submitted()))
    assert cobalt.call("ffn-cobalt-status", job_id).stdout == "success\n"
    assert len(cobalt.submitted()) == 3
    outputs = [line.split(" -O ")[1].split()[0] for line in cobalt.calls("qsub")]
    assert len(set(outputs)) == 3


def test_cancel_finds_the_job_that_goes_on(cobalt):
    os.mkfifo(cobalt.workdir / "go")
    body = "if mkdir tried; then exec sleep 600; else read word < go; fi"
    job_id = cobalt.call(
        "ffn-cobalt-submit", jobscript(cobalt.workdir, body, runtime="00:00:01", restarts=1)
    ).stdout.strip()
    cobalt.wait_for(job_id)
    cobalt.call("ffn-cobalt-status", job_id)
    second = max(cobalt.submitted())
    assert second != job_id
    assert cobalt.call("ffn-cobalt-cancel", job_id).returncode == 0
    cobalt.wait_for(second)
    assert cobalt.call("ffn-cobalt-status", job_id).stdout == "failed\n"
    assert len(cobalt.submitted()) == 2


def test_job_that_ends_by_itself_is_not_submitted_again(cobalt):
    job_id = cobalt.call("ffn-cobalt-submit", jobscript(cobalt.workdir, "exit 3", restarts=2)).stdout.strip()
    cobalt.wait_for(job_id)
    assert cobalt.call("ffn-cobalt-status", job_id).stdout == "failed\n"
    assert len(cobalt.submitted()) == 1


def test_refused_job_shows_the_schedulers_own_words(cobalt):
    del cobalt.env["COBALT_PROJ"]
    refused = cobalt.call("ffn-cobalt-submit", jobscript(cobalt.workdir, "exit 0"))
    assert refused.returncode == 1
    assert refused.stdout == ""
    assert "No project specified" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_machine_without_cobalt_is_told(cobalt):
    cobalt.env["PATH"] = os.pathsep.join(cobalt.env["PATH"].split(os.pathsep)[1:])
    refused = cobalt.call("ffn-cobalt-submit", jobscript(cobalt.workdir, "exit 0"))
    assert refused.returncode == 1
    assert "no program qsub here" in refused.stderr


@pytest.mark.parametrize(("state", "word"), [("user_hold", "running"), ("dep_fail", "failed"), ("exiting", "running")])
def test_states_of_the_queue_in_snakemakes_words(cobalt, state, word):
    cobalt.set("hold", state)
    job_id = cobalt.call("ffn-cobalt-submit", jobscript(cobalt.workdir, "exit 0")).stdout.strip()
    first, second = cobalt.call("ffn-cobalt-status", job_id), cobalt.call("ffn-cobalt-status", job_id)
    assert (first.stdout, second.stdout) == (f"{word}\n", f"{word}\n")
    if state == "user_hold":
        assert "is held (user_hold)" in first.stderr
        assert second.stderr == ""


def test_silent_scheduler_is_not_a_failure(cobalt):
    cobalt.set("hold", "user_hold")
    job_id = cobalt.call("ffn-cobalt-submit", jobscript(cobalt.workdir, "exit 0")).stdout.strip()
    cobalt.set("deaf")
    state = cobalt.call("ffn-cobalt-status", job_id)
    assert (state.returncode, state.stdout) == (0, "running\n")
    assert "Communication Failure" in state.stderr


def test_unreadable_bookkeeping_does_not_end_the_workflow(cobalt):
    (cobalt.workdir / ".snakemake").write_text("a file where a folder should be")
    state = cobalt.call("ffn-cobalt-status", "563001")
    assert (state.returncode, state.stdout) == (0, "running\n")


def test_vanished_job_fails_after_a_grace_period(cobalt, monkeypatch):
    cobalt.set("vanish")
    job_id = cobalt.call("ffn-cobalt-submit", jobscript(cobalt.workdir, "exit 0")).stdout.strip()
    cobalt.wait_for(job_id)
    for key in ("PATH", "COBALT_STANDIN", "FFN_COBALT_POLL_S"):
        monkeypatch.setenv(key, cobalt.env[key])
    registry = Registry(cobalt.workdir / ".snakemake" / "cobalt")
    assert status(job_id, registry, now=lambda: 1000.0) == "running"
    assert status(job_id, registry, now=lambda: 1059.0) == "running"
    assert status(job_id, registry, now=lambda: 1061.0) == "failed"


def test_one_question_serves_all_jobs(cobalt):
    cobalt.set("hold", "user_hold")
    ids = [
        cobalt.call("ffn-cobalt-submit", jobscript(cobalt.workdir, "exit 0", output=f"{i}.json")).stdout.strip()
        for i in range(3)
    ]
    cobalt.env["FFN_COBALT_POLL_S"] = "600"
    before = len(cobalt.calls("qstat"))
    assert [cobalt.call("ffn-cobalt-status", job_id).stdout for job_id in ids] == ["running\n"] * 3
    assert len(cobalt.calls("qstat")) == before + 1


def test_live_job_is_adopted_instead_of_submitted_twice(cobalt):
    os.mkfifo(cobalt.workdir / "go")
    script = jobscript(cobalt.workdir, "read word < go; exit 0")
    first = cobalt.call("ffn-cobalt-submit", script).stdout
    second = cobalt.call("ffn-cobalt-submit", script)
    assert second.stdout == first
    assert "already does the work" in second.stderr
    other = cobalt.call("ffn-cobalt-submit", jobscript(cobalt.workdir, "exit 0", output="other.json")).stdout
    assert other != first
    (cobalt.workdir / "go").write_text("now\n")
    cobalt.wait_for(first.strip())
    (cobalt.workdir / "go").unlink()
    assert cobalt.call("ffn-cobalt-submit", jobscript(cobalt.workdir, "exit 0")).stdout != first


def test_cancel_returns_before_qdel_has_finished(cobalt):
    os.mkfifo(cobalt.workdir / "go")
    job_id = cobalt.call("ffn-cobalt-submit", jobscript(cobalt.workdir, "read word < go")).stdout.strip()
    cancelled = cobalt.call("ffn-cobalt-cancel", job_id, timeout=2)
    assert cancelled.returncode == 0
    cobalt.wait_for(job_id)
    assert cobalt.call("ffn-cobalt-status", job_id).stdout == "failed\n"


def test_registry_keeps_what_it_is_told(tmp_path):
    registry = Registry(tmp_path)
    registry.add(Record("7", "key", "train", "log"))
    registry.update(registry.job("7"), missing_since=3.0)
    assert registry.work("key") == Record("7", "key", "train", "log", 3.0)
    assert registry.job("8") is None
    assert registry.work("other") is None
