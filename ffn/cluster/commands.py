"""The commands that Snakemake's cluster-generic executor calls, four for each scheduler:

    ffn-cobalt-submit [--prelude FILE] JOBSCRIPT     prints the job's id
    ffn-cobalt-status ID                             prints running, success or failed; always exits with 0
    ffn-cobalt-cancel ID...                          returns at once, before the jobs are gone
    ffn-cobalt-sidecar                               runs beside Snakemake; cancels what it leaves behind

Snakemake forgets a job while it asks for its state or submits it, and an interrupt may come just then; so the sidecar,
which it ends on its way out, cancels all that this run waits for. If Snakemake is killed, the sidecar ends without
cancelling anything: the jobs go on, and the next start of Snakemake waits for them.

Snakemake also loses an interrupt that comes in the last moment of one of its short asynchronous parts (asyncio's runner
drops it), and goes on. A terminal's Ctrl-C reaches the sidecar too: where Snakemake then neither cancels its jobs nor
ends the sidecar, it is interrupted again.
"""

import argparse
import os
import signal
import sys
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from ffn.cluster.cobalt import Cobalt
from ffn.cluster.pbs import PBS
from ffn.cluster.queue import Queue
from ffn.cluster.scheduler import Phase, Scheduler
from ffn.cluster.slurm import Slurm
from ffn.errors import FFNError
from ffn.files import write_text

RUN_VARIABLE = "SNAKEMAKE_CLUSTER_SIDECAR_VARS"
"""In it Snakemake passes on what the sidecar printed first."""
_WATCH_S = 2.0
"""How long Snakemake may take to hear an interrupt, and to be gone before that is seen."""

_WORDS = {Phase.ALIVE: "running", Phase.SUCCESS: "success", Phase.FAILED: "failed"}


def submit_main(scheduler: Scheduler, argv: Sequence[str] | None = None) -> int:
    """Submit a jobscript."""
    parser = argparse.ArgumentParser(
        prog=f"ffn-{scheduler.key}-submit", description=f"Submit a Snakemake jobscript to {scheduler.title}."
    )
    parser.add_argument(
        "--prelude",
        type=Path,
        default=os.environ.get("FFN_CLUSTER_PRELUDE") or None,
        help="shell file sourced first in each job, e.g. with the modules to load (default: $FFN_CLUSTER_PRELUDE)",
    )
    parser.add_argument("jobscript", type=Path)
    args = parser.parse_args(argv)

    def submit() -> int:
        try:
            print(_queue(scheduler).submit(args.jobscript, args.prelude), flush=True)
        except FFNError as error:
            print(f"{parser.prog}: {error}", file=sys.stderr)
            return 1
        except BrokenPipeError:
            # Snakemake is gone; the job is noted down for its next start.
            return 0
        return 0

    return _to_its_end(submit)


def status_main(scheduler: Scheduler, argv: Sequence[str] | None = None) -> int:
    """Print a job's state. One failure here would end the whole workflow, so there is none."""
    parser = argparse.ArgumentParser(
        prog=f"ffn-{scheduler.key}-status", description="State of a job, in Snakemake's words."
    )
    parser.add_argument("id")
    args = parser.parse_args(argv)
    try:
        print(_WORDS[_queue(scheduler).status(args.id)])
    except Exception as error:
        print(f"{parser.prog}: {error!r}; asking again later.", file=sys.stderr)
        print("running")
    return 0


def cancel_main(scheduler: Scheduler, argv: Sequence[str] | None = None) -> int:
    """Take jobs out of the queue."""
    parser = argparse.ArgumentParser(
        prog=f"ffn-{scheduler.key}-cancel", description=f"Delete jobs from {scheduler.title}'s queue."
    )
    parser.add_argument("id", nargs="+")
    args = parser.parse_args(argv)
    queue = _queue(scheduler)
    try:
        _unheard(queue).unlink(missing_ok=True)
        queue.cancel(args.id)
    except OSError as error:
        print(f"{parser.prog}: jobs cannot be cancelled: {error}.", file=sys.stderr)
        return 1
    return 0


def sidecar_main(scheduler: Scheduler, argv: Sequence[str] | None = None) -> int:
    """Wait for the end of Snakemake."""
    parser = argparse.ArgumentParser(
        prog=f"ffn-{scheduler.key}-sidecar", description="Runs beside Snakemake and cancels the jobs it leaves behind."
    )
    parser.parse_args(argv)
    # A terminal's Ctrl-C is for Snakemake; it ends this process when it is through with its own jobs.
    signals = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    snakemake, run = os.getppid(), uuid.uuid4().hex
    queue = Queue(scheduler, Path.cwd(), run)
    unheard = _unheard(queue)
    print(run, flush=True)
    while os.getppid() == snakemake:
        received = signal.sigtimedwait(signals, _WATCH_S)
        if received is None:
            if unheard.exists():
                with suppress(ProcessLookupError):
                    os.kill(snakemake, signal.SIGINT)
        elif received.si_signo == signal.SIGINT:
            write_text(unheard, "")
        else:
            queue.cancel_run()
            break
    unheard.unlink(missing_ok=True)
    return 0


def _queue(scheduler: Scheduler) -> Queue:
    return Queue(scheduler, Path.cwd(), os.environ.get(RUN_VARIABLE, ""))


def _unheard(queue: Queue) -> Path:
    """There while nothing shows that this run of Snakemake heard of its interrupt."""
    return queue.registry.folder / f"interrupted-{queue.run}"


def _to_its_end(work: Callable[[], int]) -> int:
    """Do this work in a process that no interrupt and no end of this one reaches, and return its exit code.

    Between handing a job over and noting its id down nothing may stop us.
    """
    child = os.fork()
    if child == 0:
        os.setsid()
        try:
            code = work()
        except BaseException as error:
            print(repr(error), file=sys.stderr)
            code = 1
        os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


_SCHEDULERS: dict[str, type[Scheduler]] = {kind.key: kind for kind in (Cobalt, PBS, Slurm)}
_VERBS = {"submit": submit_main, "status": status_main, "cancel": cancel_main, "sidecar": sidecar_main}


def main() -> int:
    """Entry point of them all: the name by which it is called says which one it is."""
    _, key, verb = Path(sys.argv[0]).name.split("-")
    return _VERBS[verb](_SCHEDULERS[key]())
