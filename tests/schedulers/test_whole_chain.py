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

TINY = ROOT / "tests" / "workflow" / "configs" / "tiny.yaml"
RUN = Path("results/tiny")
pytestmark = pytest.mark.slow


def configuration(folder: Path, stage_jobs: int | None = None, **training: object) -> Path:
    """The tiny run with two ranks, in which nothing depends on how many threads a rank has."""
    values = yaml.safe_load(TINY.read_text())
    values["threads"] = {"intra_op": 1, "inter_op": 1}
    values["training"] |= {"ranks": 2, "batch": 1, **training}
    values["inference"] |= {"intra_op_threads": 1}
    values["assembly"] = {"block": [20, 32, 32], "shard": [20, 32, 32], "disconnected": "split", "min_size": 20}
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
    config = configuration(standin.workdir, checkpoint_every=5)
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


def test_same_segmentation_bit_for_bit(cluster, local):
    config = configuration(cluster.workdir, stage_jobs=2)
    done = cluster.call(*snakemake(cluster, *chain("--configfile", config)), timeout=1500)
    assert done.returncode == 0, done.stderr[-6000:]
    # Each step of several units is cut in two; what lies between them is a job, what comes last is one with the stage.
    steps = [
        path.stem for stage in ("assemble", "export") for path in (cluster.workdir / RUN / stage / "jobs").iterdir()
    ]
    assert sorted(steps) == sorted(
        [
            *(
                f"{step}-{part}-of-2"
                for step in ("overlaps", "pieces", "touching", "labels", "layer")
                for part in (1, 2)
            ),
            *(f"{step}-1-of-1" for step in ("ids", "objects")),
        ]
    )
    # Data with preparation, training, inference, assembly, export, scores with report.
    assert len(cluster.submitted()) == 6 + len(steps)
    run = cluster.workdir / RUN
    assert json.loads((run / "train/done.json").read_text())["facts"]["layouts"][-1]["ranks"] == 2
    with open_volume(labels_in(run / "assemble")) as ours, open_volume(labels_in(local / "assemble")) as theirs:
        assert theirs[...].any()
        np.testing.assert_array_equal(ours[...], theirs[...])
    assert digest(run / "export/segmentation") == digest(local / "export/segmentation")
