"""The stages that work block by block, through Snakemake: processes and Snakemake killed at random; and run twice at
once."""

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import yaml
from calling import ROOT, Snakemake

KILLS = int(os.environ.get("FFN_KILLS", "7"))
"""More of them: FFN_KILLS=60 pytest -s tests/workflow/test_survival.py."""
PIECES = ROOT / "tests" / "workflow" / "configs" / "pieces.yaml"
STAGES = {
    "prepare": ["prepare/done.json"],
    "infer": ["infer/jobs/0000-0007-pass-0.done", "infer/jobs/0000-0007-pass-1.done"],
    "consensus": ["infer/jobs/0000-0007.done"],
    **{stage: [f"{stage}/done.json"] for stage in ("assemble", "agglomerate", "evaluate", "export")},
}
"""Those that are killed, and removed when all is done, with their markers. What else a run needs is made once."""
JOURNAL = os.pathsep.join([str(Path(__file__).parent / "journal"), os.environ.get("PYTHONPATH", "")])
_SOONER = 0.7
"""Time to wait for a kill, where a stage ended before: the machine may have more to give now."""
pytestmark = pytest.mark.slow


class Workflow:
    """One call of Snakemake after the other, for a run in a folder.

    Attributes:
        run: Where the results are: not in the working directory, so that several callers can share them.
        journal: The units that were begun and noted since the stages were removed.
    """

    def __init__(self, folder: Path, results: Path) -> None:
        self.caller, self.run = Snakemake(folder), results / "pieces"
        self.journal = results / "journal.jsonl"
        self.caller.env |= {"PYTHONPATH": JOURNAL, "FFN_JOURNAL": str(self.journal)}
        values = yaml.safe_load(PIECES.read_text())
        values["results"] = str(results)
        values["assembly"] |= {"shard": values["assembly"]["block"], "workers": 2}
        values["inference"] |= {"passes": 2, "tiles_per_job": 8}
        values["export"]["workers"] = 2
        (folder / "config.yaml").write_text(yaml.safe_dump(values))

    @property
    def output(self) -> str:
        """What the last call said."""
        return (self.caller.folder / "output").read_text()

    def start(self) -> subprocess.Popen[bytes]:
        options = ["--cores", "2", "--configfile", "config.yaml", "--nolock", "--quiet"]
        options += ["--rerun-incomplete", "--keep-incomplete"]  # as our profiles say
        targets = [str(self.run / marker) for markers in STAGES.values() for marker in markers]
        with (self.caller.folder / "output").open("wb") as output:
            return subprocess.Popen(
                ["snakemake", "--snakefile", str(ROOT / "Snakefile"), *options, "--", *targets],
                cwd=self.caller.folder, env=self.caller.env, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                start_new_session=True,
            )  # fmt: skip

    def unfinished(self) -> list[str]:
        return [stage for stage, markers in STAGES.items() if not all((self.run / name).exists() for name in markers)]

    @property
    def folders(self) -> list[Path]:
        return sorted({self.run / Path(marker).parts[0] for markers in STAGES.values() for marker in markers})

    def made(self) -> dict[str, str]:
        """A digest of each file of the stages; nothing else may be left there.

        Archives of sub-volumes, and their ledgers, have the names of processes; what is in them is in what follows.
        """
        files = [path.relative_to(self.run) for folder in self.folders for path in folder.rglob("*") if path.is_file()]
        ours = [path for path in sorted(files) if not {"archives", "ledger", "jobs"} & set(path.parts)]
        return {str(path): hashlib.sha256((self.run / path).read_bytes()).hexdigest() for path in ours}

    def remove_stages(self) -> None:
        for folder in self.folders:
            shutil.rmtree(folder, ignore_errors=True)
        self.journal.unlink(missing_ok=True)


def at_work(snakemake: subprocess.Popen[bytes]) -> dict[str, list[psutil.Process]]:
    """Which commands run, each with its processes: the shell, its pipe, the command and its workers."""
    found: dict[str, list[psutil.Process]] = {}
    with suppress(psutil.Error):
        for shell in psutil.Process(snakemake.pid).children():
            with suppress(psutil.Error):
                processes = [shell, *shell.children(recursive=True)]
                for process in processes:
                    names = [Path(word).name for word in process.cmdline()]
                    if "ffn" in names[:-1]:
                        found.setdefault(names[names.index("ffn") + 1], []).extend(processes)
                        break
    return found


def timed(snakemake: subprocess.Popen[bytes]) -> dict[str, float]:
    """Wait for the end; seconds that each command ran."""
    seen: dict[str, tuple[float, float]] = {}
    while snakemake.poll() is None:
        now = time.monotonic()
        for command in at_work(snakemake):
            seen[command] = seen.get(command, (now, now))[0], now
        time.sleep(0.05)
    return {command: last - first for command, (first, last) in seen.items()}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> tuple[Workflow, dict[str, str], dict[str, float]]:
    """A finished run, what its stages made, and how long they took."""
    folder = tmp_path_factory.mktemp("undisturbed")
    workflow = Workflow(folder, folder / "results")
    process = workflow.start()
    lasting = timed(process)
    assert process.returncode == 0, workflow.output
    made = workflow.made()
    joined = json.loads((workflow.run / "agglomerate" / "done.json").read_text())["facts"]
    assert 0 < joined["joined"] < joined["tried"]
    assert {name.split("/")[0] for name in made} == {folder.name for folder in workflow.folders}
    assert not any("/steps/" in name for name in made)
    assert_little_was_lost(workflow.journal)
    return workflow, made, lasting


def assert_little_was_lost(journal: Path) -> None:
    """A process that ended leaves begun at most one unit for each that it did at once, and nobody who came later does
    what was noted before."""
    begun, noted, at_once = Counter[str](), Counter[str](), {}
    first_noted: dict[tuple[str, str, int], float] = {}
    for line in map(json.loads, journal.read_text().splitlines()):
        unit, process = (line["stage"], line["step"], line["unit"]), line["process"]
        assert first_noted.get(unit, line["time"]) >= line["started"], f"done again: {line}"
        if line["event"] == "noted":
            assert line["redone"] == 0, f"the output of a unit in a ledger was damaged: {line}"
            noted[process] += 1
            first_noted.setdefault(unit, line["time"])
        else:
            begun[process] += 1
            at_once[process] = line["at_once"]
    for process, count in begun.items():
        assert count - noted[process] <= at_once[process], f"{process} lost {count - noted[process]} units"


def struck(snakemake: subprocess.Popen[bytes], stage: str, seconds: float, rng: random.Random) -> list[psutil.Process]:
    """Kill Snakemake or a process of a stage at some time while the stage works; returns all that was at work, nothing
    where the stage ended before."""
    while stage not in at_work(snakemake):
        if snakemake.poll() is not None:
            return []
        time.sleep(0.02)
    with suppress(subprocess.TimeoutExpired):
        snakemake.wait(rng.uniform(0, seconds))
    working = at_work(snakemake)
    if stage not in working:
        return []
    victim = rng.choice([psutil.Process(snakemake.pid), *working[stage]])
    with suppress(psutil.NoSuchProcess):
        victim.send_signal(signal.SIGKILL)
    return [process for processes in working.values() for process in processes]


def test_killed_at_random(undisturbed):
    """As often in each stage. What a killed Snakemake had started goes on beside the next one."""
    workflow, made, lasting = undisturbed
    workflow.remove_stages()
    rng, kills, runs, ended = random.Random(3), Counter(dict.fromkeys(STAGES, 0)), 0, False
    seconds = {stage: lasting.get(stage, 1.0) for stage in STAGES}
    beside: list[psutil.Process] = []
    while kills.total() < KILLS or not ended:
        snakemake, hit = workflow.start(), False
        while not hit and snakemake.poll() is None and kills.total() < KILLS:
            least = min(kills.values()) + KILLS // 30
            stages = [stage for stage in workflow.unfinished() if kills[stage] <= least]
            if not stages:
                break
            stage = stages[0]
            working = struck(snakemake, stage, seconds[stage], rng)
            hit = bool(working)
            kills[stage] += hit
            seconds[stage] *= 1.0 if hit else _SOONER
            beside += working
        snakemake.wait(600)
        ended = snakemake.returncode == 0
        assert ended or hit, workflow.output
        if ended:
            psutil.wait_procs(beside, timeout=600)
            beside, runs = [], runs + 1
            print(f"{kills.total()} kills in {runs} runs: {dict(kills)}", flush=True)
            assert workflow.made() == made
            assert_little_was_lost(workflow.journal)
            if kills.total() < KILLS:
                workflow.remove_stages()
    assert min(kills.values()) >= KILLS // len(STAGES) - KILLS // 30


def test_two_workflows_on_one_folder_at_once(undisturbed, tmp_path):
    workflow, made, _ = undisturbed
    workflow.remove_stages()
    both = []
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        both.append(Workflow(tmp_path / name, workflow.run.parent))
    processes = [one.start() for one in both]
    for one, process in zip(both, processes, strict=True):
        process.wait(900)
        assert process.returncode == 0, one.output
    assert workflow.made() == made
