"""Whether this version makes what another one made, voxel for voxel, and however the work is cut.

The other version, in a checkout of its own, makes a small volume from nothing: training, 2 x 2 x 2 sub-volumes, one and
two passes, splitting, a least size, filling of gaps, agglomeration, scores, layers. Its volume, weights and finished
sub-volumes are handed over, and this version makes the rest of the same configuration

    1 job x 1 process       on this machine
    3 jobs x 2 processes    on this machine: each step is cut into three jobs, each of two ranks
    cobalt, pbs             the same through the stand-ins for these schedulers (tests/schedulers)
    slurm                   the same through a real Slurm, where it is installed

Prints a line for each, and one JSON line at the end. Takes a quarter of an hour on two cores.

    git worktree add --detach /tmp/old 97f6d3a
    python benchmarks/long/same_as.py /tmp/old --folder scratch
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from cloudvolume import CloudVolume

from ffn.runs import labels_in
from ffn.volumes import open_volume

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "schedulers"))
from clusters import STANDINS, Cluster, slurm_cluster, stand_in  # noqa: E402
from slurm.cluster import Slurm, missing_programs  # noqa: E402

PIECES = ROOT / "tests" / "workflow" / "configs" / "pieces.yaml"
RUN = Path("results/pieces")
TARGETS = [str(RUN / stage / "done.json") for stage in ("prepare", "evaluate", "export")]
JOBS, PROCESSES = 3, 2


def theirs(folder: Path, passes: int) -> Path:
    """The configuration of the other version in a file."""
    return written(folder, yaml.safe_load(PIECES.read_text()), passes)


def ours(folder: Path, passes: int, **cluster: object) -> Path:
    """That of this version, in which each stage has many units."""
    values = yaml.safe_load(PIECES.read_text())
    values["assembly"] |= {"shard": values["assembly"]["block"], "workers": 1}
    values["export"]["workers"] = 1
    return written(folder, values | {"cluster": cluster}, passes)


def written(folder: Path, values: dict[str, Any], passes: int) -> Path:
    """A configuration in a file, with a number of passes."""
    values["inference"]["passes"] = passes
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "same.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def snakemake(checkout: Path, folder: Path, config: Path, env: Mapping[str, str], *options: object) -> None:
    """The whole chain of a version, in a folder."""
    command = [sys.executable, "-m", "snakemake", "--snakefile", checkout / "Snakefile", "--configfile", config]
    with (folder / "snakemake.log").open("w") as log:
        subprocess.run(
            [*map(str, [*command, *options]), "--", *TARGETS],
            cwd=folder, env={**env, "PYTHONPATH": str(checkout)}, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            check=True,
        )  # fmt: skip


def local_environment(*programs: Path) -> dict[str, str]:
    """Ours, in which these programs are found, and those of this Python."""
    found = [*map(str, programs), str(Path(sys.executable).parent), os.environ["PATH"]]
    return {**os.environ, "PATH": os.pathsep.join(found)}


def hand_over(old: Path, new: Path, passes: int) -> None:
    """What takes long and is compared elsewhere: the volume, the weights, and what flood filling made.

    Of several passes only these themselves; what they agree on is made anew.
    """
    for stage in ("synth", "train"):
        shutil.copytree(old / stage, new / stage)
    for tile in sorted((old / "infer").glob("tile-*")):
        for made in [tile] if passes == 1 else sorted(tile.glob("pass-*")):
            shutil.copytree(made, new / "infer" / made.relative_to(old / "infer"))


# --- ways to cut the work: each is given the finished run of the other version and a new folder, and returns its run


def alone(old: Path, folder: Path, passes: int) -> Path:
    """One job for each stage, with one process."""
    hand_over(old, folder / RUN, passes)
    snakemake(ROOT, folder, ours(folder, passes), local_environment(), "--cores", 1)
    return folder / RUN


def in_jobs(old: Path, folder: Path, passes: int) -> Path:
    """Jobs that Snakemake starts on this machine, as if it were a cluster; their ranks are started side by side."""
    hand_over(old, folder / RUN, passes)
    submit, nodes = folder / "submit", folder / "nodes"
    submit.write_text('#!/bin/sh\nsh "$1" >"$1.out" 2>&1 &\necho $!\n')
    submit.chmod(0o755)
    nodes.write_text("localhost\n" * PROCESSES)
    config = ours(folder, passes, stage_jobs=JOBS, stage_nodes=PROCESSES, launcher="mpiexec")
    options = ["--executor", "cluster-generic", "--cluster-generic-submit-cmd", submit, "--jobs", JOBS]
    options += ["--seconds-between-status-checks", 1]
    resources = ["--default-resources", "mem_mb=1000", "disk_mb=1000", "nodes=1"]
    env = local_environment(STANDINS / "pbs") | {"PBS_NODEFILE": str(nodes)}
    snakemake(ROOT, folder, config, env, *options, *resources)
    return folder / RUN


def through_stand_in(key: str, old: Path, folder: Path, passes: int) -> Path:
    """Jobs of a scheduler that small programs play."""
    return through(stand_in(key, folder), old, passes)


def through_slurm(old: Path, folder: Path, passes: int) -> Path:
    """Jobs of a Slurm that is started for them."""
    slurm = Slurm(folder / "slurm")
    try:
        slurm.start()
        return through(slurm_cluster(slurm, folder), old, passes)
    finally:
        slurm.stop()


def through(cluster: Cluster, old: Path, passes: int) -> Path:
    """Jobs of a scheduler. They do not inherit our environment, and would find the installed version."""
    folder = cluster.workdir
    hand_over(old, folder / RUN, passes)
    prelude = folder / "prelude.sh"
    prelude.write_text(f"export PYTHONPATH='{ROOT}'\n")
    config = ours(folder, passes, stage_jobs=JOBS, stage_nodes=PROCESSES)
    profile = ["--profile", ROOT / "workflow" / "profiles" / cluster.profile, "--latency-wait", 10]
    env = {**cluster.env, "FFN_CLUSTER_PRELUDE": str(prelude)}
    snakemake(ROOT, folder, config, env, *profile, "--seconds-between-status-checks", 1)
    return folder / RUN


ONE, SEVERAL = "1 job x 1 process", f"{JOBS} jobs x {PROCESSES} processes"
WAYS = {
    ONE: alone,
    SEVERAL: in_jobs,
    "cobalt": partial(through_stand_in, "cobalt"),
    "pbs": partial(through_stand_in, "pbs"),
    "slurm": through_slurm,
}


# --- what is compared


def labels(folder: Path) -> np.ndarray:
    """uint64 zyx: what `assemble` or `agglomerate` left in its folder."""
    with open_volume(labels_in(folder)) as volume:
        return volume[...]


def layers(run: Path) -> dict[str, np.ndarray]:
    """The voxels of each resolution of each exported layer."""
    found = {}
    for info in sorted(run.glob("export/*/info")):
        for mip in range(len(json.loads(info.read_text())["scales"])):
            layer = CloudVolume(f"file://{info.parent.resolve()}", mip=mip, progress=False, fill_missing=True)
            found[f"{info.parent.name}-{mip}"] = np.asarray(layer[:, :, :])
    return found


def scores(run: Path) -> dict[str, object]:
    """Without the names of the files that were compared."""
    return {**json.loads((run / "evaluate/scores.json").read_text()), "inputs": None}


def same_layers(one: Path, other: Path) -> bool:
    """Whether the layers of two runs have the same names, resolutions and voxels."""
    ours, theirs = layers(one), layers(other)
    return ours.keys() == theirs.keys() and all(np.array_equal(ours[name], theirs[name]) for name in theirs)


def prepared(run: Path) -> dict[str, bytes]:
    """The files from which training begins."""
    return {name: (run / "prepare" / name).read_bytes() for name in ("seeds.csv", "partitions.h5", "coordinates.h5")}


def compared(ours: Path, theirs: Path) -> dict[str, bool]:
    """What of two runs is equal."""
    return {
        "prepared files": prepared(ours) == prepared(theirs),
        "assembled labels": np.array_equal(labels(ours / "assemble"), labels(theirs / "assemble")),
        "agglomerated labels": np.array_equal(labels(ours / "agglomerate"), labels(theirs / "agglomerate")),
        "scores": scores(ours) == scores(theirs),
        "layers": same_layers(ours, theirs),
    }


def described(run: Path) -> dict[str, int]:
    """What there was to make: a comparison of nothing would say nothing."""
    assembled, joined = (
        json.loads((run / name / "done.json").read_text())["facts"] for name in ("assemble", "agglomerate")
    )
    return {
        "segments": assembled["segments_in_tiles"],
        "equivalences": assembled["equivalences"],
        "objects_before_min_size": assembled["objects_in_tiles"],
        "objects": assembled["objects"],
        "pairs": joined["tried"],
        "joined": joined["joined"],
    }


def main() -> None:
    """Print what is equal."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("other", type=Path, help="a checkout of the other version")
    parser.add_argument("--folder", type=Path, required=True, help="for the runs; that of the other version is kept")
    parser.add_argument("--passes", type=int, nargs="+", default=[1, 2])
    parser.add_argument(
        "--ways", nargs="+", choices=list(WAYS), help="default: all; of two passes those without a scheduler"
    )
    args = parser.parse_args()
    other, differs = args.other.resolve(), {}
    for passes in args.passes:
        folder = args.folder.resolve() / f"{passes}-passes"
        there = folder / "other"
        snakemake(other, there, theirs(there, passes), local_environment(), "--cores", os.cpu_count())
        print(f"{passes} passes: {described(there / RUN)}", flush=True)
        for name in args.ways or (WAYS if passes == 1 else (ONE, SEVERAL)):
            if name == "slurm" and missing_programs():
                print(f"{name}: left out, {', '.join(missing_programs())} not installed", flush=True)
                continue
            here = folder / name.replace(" ", "-")
            shutil.rmtree(here, ignore_errors=True)
            here.mkdir()
            began = time.perf_counter()
            run = WAYS[name](there / RUN, here, passes)
            found = compared(run, there / RUN)
            jobs = len(list(run.glob("*/jobs/*-of-*.done")))
            words = ", ".join(f"{what} {'equal' if same else 'DIFFER'}" for what, same in found.items())
            seconds = time.perf_counter() - began
            print(f"{name}, {passes} passes: {words} ({jobs} jobs of steps, {seconds:.0f} s)", flush=True)
            differs[f"{name}, {passes} passes"] = [what for what, same in found.items() if not same]
    equal = not any(differs.values())
    print(json.dumps({"name": "same_as", "equal": equal, "compared": list(found), "differs": differs}))
    sys.exit(0 if equal else 1)


if __name__ == "__main__":
    main()
