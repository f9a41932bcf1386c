"""What follows inference, through Snakemake: processes and Snakemake killed at random; and run twice at once."""

import hashlib
import os
import random
import shutil
import signal
import subprocess
from pathlib import Path

import numpy as np
import psutil
import pytest
import yaml
from calling import ROOT, Snakemake
from tiled import cells, finished_tiles

from ffn.geometry import Box, overlapping_tiles
from ffn.runs import labels_in
from ffn.volumes import create_hdf5, open_volume

KILLS = int(os.environ.get("FFN_KILLS", "6"))
"""More of them: FFN_KILLS=60 pytest tests/workflow/test_survival.py."""
SHAPE = (90, 128, 160)
STAGES = ("assemble", "evaluate", "export")
pytestmark = pytest.mark.slow


def run_in(folder: Path, results: Path) -> None:
    """A configuration, and sub-volumes that are filled: 2 x 2 x 2 of a volume of cells in pieces."""
    whole = Box.of_shape(SHAPE)
    truth = cells(whole)
    image = np.where(truth == 0, 40, 160).astype(np.uint8)
    for name, values in (("image", image), ("labels", truth)):
        with create_hdf5(folder / f"{name}.h5", name, SHAPE, values.dtype, (10.0, 10.0, 10.0)) as volume:
            volume.write(whole, values)
    for suffix in (".index", ".data-00000-of-00001"):
        (folder / f"model.ckpt{suffix}").touch()
    size, overlap = (54, 72, 88), (18, 16, 16)
    boxes = overlapping_tiles(whole, size, overlap)
    assert len(boxes) == 8
    pieces = (np.unique(truth[box.slices], return_inverse=True)[1].reshape(box.shape) for box in boxes)
    finished_tiles(results / "survives" / "infer", boxes, (piece.astype(np.uint64) for piece in pieces))
    for index in range(len(boxes)):
        marker = results / "survives" / "infer" / "jobs" / f"{index:04d}-{index:04d}.done"
        marker.parent.mkdir(exist_ok=True)
        marker.touch()
    config = {
        "run": "survives",
        "results": str(results),
        "data": {"test": {"image": f"{folder}/image.h5:image", "labels": f"{folder}/labels.h5:labels"}},
        "network": {"depth": 2, "features": 2, "fov": [9, 9, 9], "deltas": [2, 2, 2]},
        "inference": {
            "checkpoint": f"{folder}/model.ckpt",
            "subvolume_size": list(size),
            "subvolume_overlap": list(overlap),
        },
        "assembly": {
            **{"disconnected": "split", "min_size": 200, "fill_nm": 15, "min_overlap_voxels": 20},
            **{"block": [32, 32, 32], "shard": [32, 64, 64], "workers": 2},
        },
        "export": {"chunk": [32, 32, 32], "mips": 2, "workers": 2},
    }
    config["data"]["test"]["box"] = str(whole)
    (folder / "config.yaml").write_text(yaml.safe_dump(config))


def start(caller: Snakemake, results: Path) -> subprocess.Popen[str]:
    targets = [str(results / "survives" / stage / "done.json") for stage in STAGES]
    options = ["--cores", "2", "--configfile", "config.yaml", "--rerun-incomplete", "--nolock", "--quiet"]
    return subprocess.Popen(
        ["snakemake", "--snakefile", str(ROOT / "Snakefile"), *options, "--", *targets],
        cwd=caller.folder, env=caller.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, start_new_session=True,
    )  # fmt: skip


def made(results: Path) -> dict[str, object]:
    """What the stages made, without markers: labels as voxels, all else as it is."""
    run = results / "survives"
    with open_volume(labels_in(run / "assemble")) as volume:
        labels = hashlib.sha256(volume[...].tobytes()).hexdigest()
    files = [path for path in (run / "export").glob("*/**/*") if path.is_file()]
    layers = {str(path.relative_to(run)): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(files)}
    markers = [run / stage / "done.json" for stage in STAGES]
    left = sorted(str(path.relative_to(run)) for stage in STAGES for path in (run / stage).glob("steps"))
    return {
        "labels": labels,
        "layers": {name: digest for name, digest in layers.items() if "jobs/" not in name},
        "scores": (run / "evaluate" / "scores.json").read_bytes(),
        "done": all(marker.exists() for marker in markers),
        "left": left,
    }


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> tuple[Path, dict[str, object]]:
    folder = tmp_path_factory.mktemp("undisturbed")
    run_in(folder, folder / "results")
    process = start(Snakemake(folder), folder / "results")
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output
    found = made(folder / "results")
    assert found["done"]
    assert found["left"] == []
    return folder, found


def copied(undisturbed: tuple[Path, dict[str, object]], tmp_path: Path) -> tuple[Snakemake, Path]:
    """The same run, with nothing done behind inference. Results lie where the configuration says they do."""
    folder, _ = undisturbed
    results = folder / "results"
    for stage in STAGES:
        shutil.rmtree(results / "survives" / stage, ignore_errors=True)
    shutil.copy(folder / "config.yaml", tmp_path)
    return Snakemake(tmp_path), results


def one_to_kill(process: subprocess.Popen[str], rng: random.Random) -> psutil.Process | None:
    """Snakemake, or any process below it."""
    try:
        whole = psutil.Process(process.pid)
        return rng.choice([whole, *whole.children(recursive=True)])
    except psutil.NoSuchProcess:
        return None


def test_killed_at_random(undisturbed, tmp_path):
    caller, results = copied(undisturbed, tmp_path)
    rng, kills, finished = random.Random(3), 0, 0
    while kills < KILLS:
        process = start(caller, results)
        try:
            process.communicate(timeout=rng.uniform(2, 20))
        except subprocess.TimeoutExpired:
            victim = one_to_kill(process, rng)
            if victim is not None:
                try:
                    victim.send_signal(signal.SIGKILL)
                except psutil.NoSuchProcess:
                    continue
                kills += 1
            # Whatever is left below it goes on, beside the next one.
            if victim is not None and victim.pid != process.pid:
                process.communicate(timeout=600)
            else:
                process.stdout.close()
                process.wait(timeout=600)
            continue
        if process.returncode == 0:
            finished += 1
            assert made(results) == undisturbed[1]
            for stage in STAGES:
                shutil.rmtree(results / "survives" / stage)
    for _ in range(3):
        process = start(caller, results)
        output, _ = process.communicate(timeout=600)
        if process.returncode == 0:
            break
    assert process.returncode == 0, output
    assert made(results) == undisturbed[1]


def test_two_workflows_on_one_folder_at_once(undisturbed, tmp_path):
    callers = []
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        callers.append(copied(undisturbed, tmp_path / name))
    processes = [start(*call) for call in callers]
    for process in processes:
        output, _ = process.communicate(timeout=900)
        assert process.returncode == 0, output
    assert made(callers[0][1]) == undisturbed[1]
