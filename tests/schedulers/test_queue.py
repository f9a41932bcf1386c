"""Our commands against the stand-ins: the same for all schedulers."""

import json
import os
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest
from jobscripts import status, submit, write_jobscript

from ffn.cluster.cobalt import Cobalt
from ffn.cluster.pbs import PBS, parse_qstat
from ffn.cluster.queue import Queue
from ffn.cluster.registry import Record, Registry
from ffn.cluster.scheduler import Called, Phase

KINDS = {"cobalt": Cobalt, "pbs": PBS}


def queue_of(cluster, monkeypatch, now=lambda: 1000.0) -> Queue:
    """The queue of a stand-in in this process, with a clock of our own."""
    for key in ("PATH", "SCHEDULER_STANDIN", "FFN_PROJECT", "FFN_CLUSTER_POLL_S"):
        monkeypatch.setenv(key, cluster.env[key])
    monkeypatch.chdir(cluster.workdir)
    return Queue(KINDS[cluster.key](), cluster.workdir, now=now)


def test_job_runs_and_succeeds(standin):
    script = write_jobscript(standin, 'echo "$COBALT_JOBID$PBS_JOBID" > ran; exit 0 || exit 1')
    submitted = standin.call(standin.command("submit"), script)
    assert submitted.returncode == 0, submitted.stderr
    job_id = submitted.stdout.strip()
    assert submitted.stdout == f"{job_id}\n"
    standin.wait_for(job_id)
    assert (standin.workdir / "ran").read_text().strip() == job_id
    state = standin.call(standin.command("status"), job_id)
    assert (state.returncode, state.stdout) == (0, "success\n")


def test_notices_of_the_scheduler_are_shown_and_do_not_hide_the_id(standin):
    standin.set("chatter", "Filesystem eagle will be down on Monday 12 at 08:00")
    job_id = submit(standin)
    assert job_id in standin.submitted()
    standin.wait_for(job_id)
    assert status(standin, job_id) == "success"


def test_job_finds_the_programs_of_this_environment(standin):
    (standin.workdir / "modules.sh").write_text("LOADED=yes\n")
    script = write_jobscript(
        standin, "command -v ffn-pbs-status > found; echo $LOADED $HDF5_USE_FILE_LOCKING >> found", site="aurora"
    )
    job_id = standin.call(standin.command("submit"), "--prelude", "modules.sh", script).stdout.strip()
    standin.wait_for(job_id)
    found, loaded, locking = (standin.workdir / "found").read_text().split()
    assert found.endswith("/ffn-pbs-status")
    assert (loaded, locking) == ("yes", "FALSE")


def test_submitted_script_outlives_snakemakes(cobalt):
    cobalt.set("hold", "user_hold")
    job_id = submit(cobalt)
    (cobalt.workdir / "snakejob.sh").unlink()
    job = json.loads((cobalt.state / "jobs" / f"{job_id}.json").read_text())
    assert Path(job["script"]).is_file()
    assert os.access(job["script"], os.X_OK)


def test_failing_job_is_failed_and_not_submitted_again(standin):
    job_id = submit(standin, "exit 3", restarts=2)
    standin.wait_for(job_id)
    assert status(standin, job_id) == "failed"
    assert status(standin, job_id) == "failed"
    assert len(standin.submitted()) == 1


@pytest.mark.slow
def test_job_over_its_time_is_failed_where_it_may_not_start_again(standin):
    standin.set("walltime", "1")
    job_id = submit(standin, "exec sleep 600")
    standin.wait_for(job_id)
    state = standin.call(standin.command("status"), job_id)
    assert state.stdout == "failed\n"
    assert "was stopped" in state.stderr
    assert "may not start again" in state.stderr


@pytest.mark.slow
def test_job_over_its_time_is_submitted_again_as_often_as_it_may(standin):
    """The second job finds what the first one left, and is over its time too; the third one ends."""
    standin.set("walltime", "1")
    job_id = submit(
        standin, "echo >> starts; if [ $(wc -l < starts) = 3 ]; then exit 0; else exec sleep 600; fi", restarts=2
    )
    for left in (1, 0):
        standin.wait_for(max(standin.submitted()))
        state = standin.call(standin.command("status"), job_id)
        assert state.stdout == "running\n"
        assert f"goes on with its work (restarts left: {left})" in state.stderr
    standin.wait_for(max(standin.submitted()))
    assert status(standin, job_id) == "success"
    assert len(standin.submitted()) == 3


def test_lost_node_is_no_failure_of_the_job(standin):
    job_id = submit(standin, "if mkdir tried; then exec sleep 600; else exit 0; fi", restarts=1)
    while not (standin.workdir / "tried").exists():
        time.sleep(0.02)
    standin.end(job_id, "node")
    standin.wait_for(job_id)
    assert status(standin, job_id) == "running"
    standin.wait_for(max(standin.submitted()))
    assert status(standin, job_id) == "success"


@pytest.mark.slow
def test_cancel_finds_the_job_that_goes_on(standin):
    standin.set("walltime", "1")
    job_id = submit(standin, "exec sleep 600", restarts=1)
    standin.wait_for(job_id)
    standin.set("walltime", "600")
    status(standin, job_id)
    second = max(standin.submitted())
    assert second != job_id
    assert standin.call(standin.command("cancel"), job_id, timeout=2).returncode == 0
    standin.wait_for(second)
    assert status(standin, job_id) == "failed"
    assert len(standin.submitted()) == 2


def test_cancel_returns_before_the_scheduler_has_finished(cobalt):
    job_id = submit(cobalt, "exec sleep 600")
    assert cobalt.call("ffn-cobalt-cancel", job_id, timeout=2).returncode == 0
    cobalt.wait_for(job_id)
    assert status(cobalt, job_id) == "failed"


@pytest.mark.parametrize(
    ("fault", "words"), [("Project foo is not known", "foo"), ("no nodes of that kind", "no nodes")]
)
def test_refused_job_shows_the_schedulers_own_words(standin, fault, words):
    standin.set("refuse", fault)
    refused = standin.call(standin.command("submit"), write_jobscript(standin, "exit 0"))
    assert refused.returncode == 1
    assert refused.stdout == ""
    assert words in refused.stderr
    assert "refused job train" in refused.stderr
    assert "Traceback" not in refused.stderr


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"queue": "batch"}, {"cobalt": "Queue 'batch' doesn't exist", "pbs": "Unknown queue"}),
        ({"nodes": 64}, {"cobalt": "exceeds the node limit", "pbs": "violates queue and/or server resource limits"}),
    ],
)
def test_queue_and_node_count_that_the_scheduler_refuses(standin, asked, words):
    """What our own look at the site's limits does not know."""
    refused = standin.call(standin.command("submit"), write_jobscript(standin, **asked))
    assert (refused.returncode, refused.stdout) == (1, "")
    assert words[standin.key] in refused.stderr
    assert "refused job train" in refused.stderr
    assert standin.submitted() == []


def test_job_without_node_count_is_refused_by_name(standin):
    refused = standin.call(standin.command("submit"), write_jobscript(standin, "exit 0", nodes=None, runtime=None))
    assert "has no resource nodes and runtime" in refused.stderr


def test_machine_without_scheduler_is_told(standin):
    standin.env["PATH"] = os.pathsep.join(standin.env["PATH"].split(os.pathsep)[1:])
    refused = standin.call(standin.command("submit"), write_jobscript(standin, "exit 0"))
    assert refused.returncode == 1
    assert "no program qsub here" in refused.stderr


@pytest.mark.parametrize(
    ("key", "state", "word"),
    [
        ("cobalt", "user_hold", "running"), ("cobalt", "dep_fail", "failed"), ("cobalt", "exiting", "running"),
        ("pbs", "H", "running"), ("pbs", "E", "running"), ("pbs", "B", "running"),
    ],
)  # fmt: skip
def test_states_of_the_queue_in_snakemakes_words(request, key, state, word):
    cluster = request.getfixturevalue(key)
    cluster.set("hold", state)
    job_id = submit(cluster)
    first, second = (cluster.call(cluster.command("status"), job_id) for _ in range(2))
    assert (first.stdout, second.stdout) == (f"{word}\n", f"{word}\n")
    if state in ("user_hold", "H"):
        assert f"is held ({state}); release it with qrls" in first.stderr
        assert second.stderr == ""


@pytest.mark.parametrize(("fault", "text"), [("deaf", ""), ("garbage", "Traceback: 563001 done\n{"), ("garbage", "")])
def test_scheduler_out_of_order_is_no_failure_of_a_job(standin, fault, text, monkeypatch):
    standin.set("hold", standin.held)
    job_id = submit(standin)
    standin.set(fault, text)
    clock = [1000.0]
    queue = queue_of(standin, monkeypatch, lambda: clock[0])
    for seconds in (0, 61, 600):
        clock[0] += seconds
        assert queue.status(job_id) is Phase.ALIVE
    standin.clear(fault)
    assert queue.status(job_id) is Phase.ALIVE
    assert len(standin.submitted()) == 1


def test_states_are_found_in_json_that_is_none(pbs):
    """PBS does not escape what a job's variables hold."""
    pbs.set("unescaped")
    failed = submit(pbs, "exit 3")
    pbs.wait_for(failed)
    assert status(pbs, failed) == "failed"
    done = submit(pbs)
    pbs.wait_for(done)
    pbs.set("walltime", "1")
    over = submit(pbs, "exec sleep 600", restarts=0, output="other.json")
    pbs.wait_for(over)
    text = pbs.call("qstat", "-x", "-f", "-F", "json", failed, done, over).stdout
    with pytest.raises(ValueError, match=r"Expecting|Invalid"):
        json.loads(text, strict=False)
    phases = {job_id: seen.phase for job_id, seen in parse_qstat(Called(0, text, "")).items()}
    assert phases == {failed: Phase.FAILED, done: Phase.SUCCESS, over: Phase.STOPPED}
    assert parse_qstat(Called(0, text[:-10], "")) is None


def test_unreadable_bookkeeping_does_not_end_the_workflow(standin):
    (standin.workdir / ".snakemake").write_text("a file where a folder should be")
    assert status(standin, "563001") == "running"


def test_vanished_job_fails_after_a_grace_period(standin, monkeypatch):
    standin.set("vanish")
    job_id = submit(standin, "kill -9 $$; sleep 1")
    standin.wait_for(job_id)
    clock = [1000.0]
    queue = queue_of(standin, monkeypatch, lambda: clock[0])
    for at, phase in ((1000.0, Phase.ALIVE), (1059.0, Phase.ALIVE), (1061.0, Phase.FAILED)):
        clock[0] = at
        assert queue.status(job_id) is phase


def test_vanished_job_that_came_to_its_end_has_succeeded(standin):
    standin.set("vanish")
    job_id = submit(standin)
    standin.wait_for(job_id)
    assert status(standin, job_id) == "success"


@pytest.mark.slow
@pytest.mark.parametrize("skew", ["-86400", "86400"])
def test_wrong_clock_of_the_scheduler_changes_nothing(standin, skew):
    standin.set("skew", skew)
    standin.set("walltime", "1")
    job_id = submit(standin, "if mkdir tried; then exec sleep 600; else exit 0; fi", restarts=1)
    standin.wait_for(job_id)
    assert status(standin, job_id) == "running"
    standin.wait_for(max(standin.submitted()))
    assert status(standin, job_id) == "success"


@pytest.mark.parametrize("count", [1, 3])
def test_one_question_serves_all_jobs(standin, count):
    standin.set("hold", standin.held)
    ids = [submit(standin, output=f"{number}.json") for number in range(count)]
    standin.env["FFN_CLUSTER_POLL_S"] = "600"
    before = len(standin.calls("qstat"))
    assert [status(standin, job_id) for job_id in ids] == ["running"] * count
    assert len(standin.calls("qstat")) == before + 1


def clones(standin, job_id: str, count: int) -> list[str]:
    """As if this job had been submitted so many times more, each for a work of its own."""
    registry = Registry(standin.workdir / ".snakemake" / standin.key)
    record = registry.job(job_id)
    job = json.loads((standin.state / "jobs" / f"{job_id}.json").read_text())
    ids = []
    for number in range(1, count + 1):
        clone = job_id.replace(str(job["number"]), str(job["number"] + number))
        changed = {**job, "id": clone, "number": job["number"] + number}
        (standin.state / "jobs" / f"{clone}.json").write_text(json.dumps(changed))
        registry.add(replace(record, name=f"{record.name}-{number}", works=[f"{number}"], id=""))
        registry.update(registry.job(f"{record.name}-{number}"), id=clone)
        ids.append(clone)
    return ids


@pytest.mark.parametrize("count", [1, pytest.param(500, marks=pytest.mark.slow)])
def test_questions_of_a_minute_do_not_grow_with_the_jobs(standin, count, monkeypatch):
    standin.set("hold", standin.held)
    first = submit(standin)
    ids = [first, *clones(standin, first, count - 1)]
    standin.env["FFN_CLUSTER_POLL_S"] = "15"
    clock = [1000.0]
    queue = queue_of(standin, monkeypatch, lambda: clock[0])
    before = len(standin.calls("qstat"))
    for _ in range(6):
        assert {queue.status(job_id) for job_id in ids} == {Phase.ALIVE}
        clock[0] += 10
    assert len(standin.calls("qstat")) - before == 3


def test_live_job_is_adopted_instead_of_submitted_twice(standin):
    os.mkfifo(standin.workdir / "go")
    script = write_jobscript(standin, "read word < go; exit 0")
    first = standin.call(standin.command("submit"), script).stdout
    second = standin.call(standin.command("submit"), script)
    assert second.stdout == first
    assert "already does the work" in second.stderr
    other = submit(standin, output="other.json")
    assert other != first.strip()
    (standin.workdir / "go").write_text("now\n")
    standin.wait_for(first.strip())
    assert submit(standin) != first.strip()


def test_job_that_does_more_than_asked_is_adopted_too(standin):
    """A group of two rules: after a crash, only the one that has not ended is asked for."""
    standin.set("hold", standin.held)
    both = submit(standin, output=["first.json", "second.json"])
    assert submit(standin, output="second.json") == both
    assert standin.submitted() == [both]


def test_job_waits_for_one_that_does_a_part_of_its_work(standin):
    os.mkfifo(standin.workdir / "go")
    part = submit(standin, "read word < go; exit 0", output="first.json")
    asked = standin.call(standin.command("submit"), write_jobscript(standin, output=["first.json", "second.json"]))
    assert f"waits here for job {part}" in asked.stderr
    waiting = asked.stdout.strip()
    assert status(standin, waiting) == "running"
    assert standin.submitted() == [part]
    (standin.workdir / "go").write_text("now\n")
    standin.wait_for(part)
    assert status(standin, waiting) == "running"
    standin.wait_for(max(standin.submitted()))
    assert status(standin, waiting) == "success"
    assert len(standin.submitted()) == 2


def test_job_takes_the_work_of_one_that_never_reached_the_queue(standin):
    """Nobody asks for that one any more, so nothing would submit it."""
    standin.set("full", "0")
    part = submit(standin, output="first.json")
    standin.clear("full")
    whole = submit(standin, output=["first.json", "second.json"])
    assert standin.submitted() == [whole]
    assert status(standin, part) == "failed"


def test_job_whose_answer_was_lost_is_found_by_its_name(standin):
    standin.set("lost")
    os.mkfifo(standin.workdir / "go")
    job_id = submit(standin, "read word < go; exit 0")
    assert standin.submitted() == [job_id]
    (standin.workdir / "go").write_text("now\n")
    standin.wait_for(job_id)
    assert status(standin, job_id) == "success"


def test_job_that_was_noted_down_but_never_answered_for_is_found_by_its_name(standin):
    """As after a power failure between the scheduler's answer and our note of it."""
    standin.set("hold", standin.held)
    job_id = submit(standin)
    registry = Registry(standin.workdir / ".snakemake" / standin.key)
    record = registry.job(job_id)
    registry.update(record, id="")
    (registry.folder / "ids" / f"{job_id}.json").unlink()
    assert submit(standin) == job_id
    assert standin.submitted() == [job_id]


@pytest.mark.slow
def test_jobs_wait_here_while_the_queue_is_full(standin):
    standin.set("full", "2")
    os.mkfifo(standin.workdir / "go")
    bodies = ["read word < go; exit 0", "exit 0", "exit 0", "exit 0"]
    held = standin.held
    first = submit(standin, bodies[0], output="0.json")
    standin.set("hold", held)
    second = submit(standin, output="1.json")
    standin.clear("hold")
    waiting = [submit(standin, output=f"{number}.json") for number in (2, 3)]
    assert standin.submitted() == sorted([first, second])
    assert [status(standin, name) for name in waiting] == ["running"] * 2
    (standin.workdir / "go").write_text("now\n")
    standin.wait_for(first)
    assert status(standin, waiting[0]) == "running"
    third = max(standin.submitted())
    assert third not in (first, second)
    standin.wait_for(third)
    assert status(standin, waiting[0]) == "success"
    assert standin.call(standin.command("cancel"), waiting[1]).returncode == 0
    assert status(standin, waiting[1]) == "failed"
    assert len(standin.submitted()) == 3


@pytest.mark.slow
def test_many_jobs_through_a_queue_that_takes_few(standin, monkeypatch):
    """200 at once where 20 may be in the queue: each is done once, and none is refused."""
    standin.set("full", "20")
    standin.env["FFN_CLUSTER_POLL_S"] = "1"
    queue, registry = queue_of(standin, monkeypatch, time.time), Registry(standin.workdir / ".snakemake" / standin.key)
    waiting = {
        queue.submit(write_jobscript(standin, f"echo x >> {number}.done", output=f"{number}.json"))
        for number in range(200)
    }
    most = 0
    while waiting:
        most = max(most, len(standin.jobs()))
        phases = {reference: queue.status(reference) for reference in waiting}
        assert Phase.FAILED not in phases.values()
        waiting = {reference for reference, phase in phases.items() if phase is Phase.ALIVE}
    assert most <= 20
    assert registry.open_jobs() == []
    assert [(standin.workdir / f"{number}.done").read_text() for number in range(200)] == ["x\n"] * 200
    assert len(standin.submitted()) == 200


@pytest.mark.slow
def test_full_queue_is_not_asked_for_each_job(standin):
    standin.set("full", "0")
    standin.env["FFN_CLUSTER_POLL_S"] = "600"
    names = [submit(standin, output=f"{number}.json") for number in range(5)]
    assert [status(standin, name) for name in names] == ["running"] * 5
    assert len(standin.calls("qsub")) == 1
    assert standin.calls("qstat") == standin.calls("qselect") == []


def test_submission_goes_through_though_snakemake_is_killed_meanwhile(standin):
    submitting = subprocess.Popen(
        [standin.command("submit"), write_jobscript(standin, "exit 0")],
        cwd=standin.workdir, env=standin.env, stdout=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    os.killpg(submitting.pid, signal.SIGKILL)
    submitting.communicate()
    again = submit(standin)
    assert standin.submitted() == [again]


def test_registry_keeps_what_it_is_told(tmp_path):
    registry = Registry(tmp_path)
    record = Record("train-1", ["one", "two"], "train", "train-1.sh", {"nodes": 1}, id="7.server")
    registry.add(record)
    registry.update(registry.job("7.server"), missing_since=3.0)
    assert [job.missing_since for job in registry.last_jobs(["one", "two"])] == [3.0]
    assert registry.job("train-1") == registry.job("7.server")
    assert registry.job("8") is None
    assert registry.last_jobs(["other"]) == []
    assert registry.open_jobs() == [registry.job("train-1")]
    registry.update(registry.job("7.server"), end=Phase.SUCCESS)
    assert registry.open_jobs() == []
