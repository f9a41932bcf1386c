"""The whole chain through each scheduler, training and inference with two ranks started by the profile's launcher."""

import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from test_snakemake import ROOT, read_job_id, read_until, snakemake, start

from ffn.model.checkpoint import read_tensors
from ffn.runs import labels_in
from ffn.volumes import open_volume

PIECES = ROOT / "tests" / "workflow" / "configs" / "pieces.yaml"
RUN = Path("results/pieces")
pytestmark = pytest.mark.slow


def configuration(folder: Path, stage_jobs: int | None = None, **training: object) -> Path:
    """Objects that are split, dropped, filled and joined, with two ranks; each stage has many units."""
    values = yaml.safe_load(PIECES.read_text())
    values["training"] |= {"ranks": 2, "batch": 2, **training}
    values["inference"] |= {"tiles_per_job": 8}
    values["assembly"] |= {"shard": values["assembly"]["block"]}
    values["cluster"] = {"nodes": 1, "ranks_per_node": 2, "inference_ranks_per_node": 2, "stage_jobs": stage_jobs}
    path = folder / "chain.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def chain(*options: object) -> list[str]:
    return ["--snakefile", str(ROOT / "Snakefile"), *map(str, options)]


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run on this machine alone."""
    folder = tmp_path_factory.mktemp("local")
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", *chain("--cores", 2, "--configfile", configuration(folder))],
        cwd=folder,
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        text=True,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return folder / RUN


@pytest.mark.parametrize("how", ["node", "walltime"])
def test_training_that_is_stopped_goes_on(standin, local, how):
    """Whatever stops it, the next job continues from the last checkpoint, and comes to the same weights."""
    config = configuration(standin.workdir, checkpoint_every=20)
    train = standin.workdir / RUN / "train"
    process = start(standin, *chain("--configfile", config), "--", RUN / "train/done.json")
    read_job_id(process)  # the data
    job_id = read_job_id(process)
    while not any((train / "checkpoints").glob("step-" + 8 * "[0-9]")):
        assert process.poll() is None
        time.sleep(0.02)
    standin.end(job_id, how)
    assert "restarts left: 2" in read_until(process, f"Job {job_id} was stopped by")
    output, _ = process.communicate(timeout=400)
    assert process.returncode == 0, output
    assert len(standin.submitted()) == 3
    assert "Resuming after step" in (standin.workdir / RUN / "logs/train.log").read_text()
    ours, theirs = read_tensors(train / "model.ckpt"), read_tensors(local / "train/model.ckpt")
    assert ours.keys() == theirs.keys()
    for name, values in theirs.items():
        np.testing.assert_array_equal(ours[name], values, name)


def digest(folder: Path) -> dict[str, str]:
    """Of each file of a precomputed layer."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in ("done.json", "started.json")
    }


CUT = {
    "assemble": {"overlaps": 2, "ids": 1, "pieces": 2, "objects": 1, "touching": 2, "labels": 2},
    "agglomerate": {
        **{"sizes": 2, "segments": 1, "contacts": 2, "pairs": 1, "places": 2},
        **{"rank": 1, "resegment": 1, "join": 1, "relabel": 2},
    },
    "export": {"layer": 2},
}
"""Jobs of each step: those of several units are cut in two; what comes last of a stage is one with the stage."""


def labels(folder: Path) -> np.ndarray:
    with open_volume(labels_in(folder)) as volume:
        return volume[...]


def test_same_segmentation_bit_for_bit(cluster, local):
    config = configuration(cluster.workdir, stage_jobs=2)
    done = cluster.call(*snakemake(cluster, *chain("--configfile", config)), timeout=1500)
    assert done.returncode == 0, done.stderr[-6000:]
    run = cluster.workdir / RUN
    for stage, steps in CUT.items():
        jobs = [f"{step}-{part + 1}-of-{parts}" for step, parts in steps.items() for part in range(parts)]
        assert sorted(path.stem for path in (run / stage / "jobs").iterdir()) == sorted(jobs)
    # Data with preparation, training, inference, assembly, agglomeration, export, scores with report.
    assert len(cluster.submitted()) == 7 + sum(sum(steps.values()) for steps in CUT.values())
    assert json.loads((run / "train/done.json").read_text())["facts"]["layouts"][-1]["ranks"] == 2
    found = json.loads((local / "agglomerate/done.json").read_text())["facts"]
    assert 0 < found["joined"] < found["tried"]
    for stage in ("assemble", "agglomerate"):
        np.testing.assert_array_equal(labels(run / stage), labels(local / stage))
    assert (run / "evaluate/scores.json").read_bytes() == (local / "evaluate/scores.json").read_bytes()
    assert digest(run / "export/segmentation") == digest(local / "export/segmentation")
