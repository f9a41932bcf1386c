"""Plans of all shipped configurations with all profiles, in all the ways the workflow can be called."""

import pytest
import yaml
from calling import ROOT

from ffn.config import load_config

CONFIGS = [None, "fib25", "fib25_released", "fib25_split", "snemi3d"]
STAGES = ["prepare", "train", "infer", "assemble", "evaluate", "export", "report", "all"]


def jobs(output: str) -> dict[str, int]:
    """Rules and numbers of jobs in the table that a dry-run prints."""
    lines = output.splitlines()
    table = lines[lines.index("Job stats:") + 3 :]
    rows = [line.split() for line in table[: table.index("")]]
    return {name: int(count) for name, count in rows if name != "total"}


PLANS = [
    pytest.param(config, profile, marks=() if profile in ("local", "theta") else pytest.mark.slow)
    for config in CONFIGS
    for profile in ("local", "theta", "polaris", "aurora", "slurm")
]


@pytest.mark.parametrize(("config", "profile"), PLANS)
def test_plan(snakemake, config, profile):
    """`snakemake --profile theta -n` from the repository's root, as written."""
    chosen = [] if config is None else ["--configfile", f"config/{config}.yaml"]
    done = snakemake.plan("--profile", profile, "-n", *chosen, "--forceall", cwd=ROOT)
    assert done.returncode == 0, done.stdout
    planned = jobs(done.stdout)
    expected = set(STAGES)
    expected |= {"synth"} if config is None else set()
    expected |= {"fetch"} if config not in (None, "snemi3d") else set()
    expected |= {"consensus"} if config == "fib25_split" else set()
    expected -= {"prepare", "train"} if config == "fib25_released" else set()
    assert set(planned) == expected
    if config == "fib25_split":
        passes = load_config(ROOT / "config" / "fib25_split.yaml").inference.passes
        assert passes > 1
        assert (planned["infer"], planned["consensus"]) == (passes, 1)
    launcher = {"theta": "aprun", "polaris": "mpiexec", "aurora": "mpiexec", "slurm": "srun"}.get(profile)
    for one in ("aprun", "mpiexec", "srun"):
        assert (f" {one} -" in done.stdout) == (one == launcher)
    assert "Inference: " in done.stdout
    assert "Traceback" not in done.stdout


def test_training_goes_to_the_nodes_of_the_configuration(snakemake):
    done = snakemake.plan("--profile", "theta", "-n", "--forceall", "--configfile", "config/fib25.yaml", cwd=ROOT)
    assert "aprun -n 8 -N 1 -d 128 -j 2 -cc depth" in done.stdout


@pytest.mark.slow
def test_what_a_queue_does_not_take_is_refused_before_anything_waits_in_it(snakemake):
    asked = ("--profile", "theta", "--configfile", "config/fib25.yaml", "--config", 'cluster={"nodes": 64}')
    for done in (snakemake(*asked, cwd=ROOT), snakemake.plan(*asked, "-n", cwd=ROOT)):
        assert done.returncode != 0
        assert "debug-cache-quad takes 1 to 8 nodes, rule train asks for 64 nodes, 60 minutes" in done.stdout
        assert "use default with at least 128 nodes" in done.stdout
        assert "Traceback" not in done.stdout
    done = snakemake.plan("--profile", "theta", "-n", "--set-resources", "train:queue=batch", cwd=ROOT)
    assert "Theta has no queue 'batch'" in done.stdout


def test_training_on_one_machine_starts_its_ranks(snakemake):
    done = snakemake.plan("-n", "-p", "--cores", "2", "--forceall", "--config", 'training={"ranks": 2}', cwd=ROOT)
    assert "horovodrun --gloo -np 2 -H localhost:2 ffn train" in done.stdout


def test_agglomeration_is_a_job_after_assembly_where_it_is_enabled(snakemake):
    joined = "agglomeration={'enabled': True}"
    done = snakemake.plan("-n", "-p", "--cores", "2", "--forceall", "--config", joined, cwd=ROOT)
    assert done.returncode == 0, done.stdout
    assert set(jobs(done.stdout)) == {*STAGES, "synth", "agglomerate"}
    assert "ffn agglomerate --config " in done.stdout


def test_lint_is_clean(snakemake):
    done = snakemake.plan("--lint", cwd=ROOT)
    assert done.returncode == 0
    assert "Congratulations" in done.stdout


def test_given_configuration_stands_alone(snakemake):
    """Nothing of the default leaks into it: its synthetic regions would be used, and its tiles."""
    config = snakemake.folder / "mine.yaml"
    config.write_text("run: mine\ndata: {test: {image: 'a.h5:raw'}}\ninference: {checkpoint: weights}\n")
    done = snakemake.plan("-n", "--cores", "1", "--configfile", config, cwd=ROOT)
    assert set(jobs(done.stdout)) == {"infer", "assemble", "export", "report", "all"}
    assert jobs(done.stdout)["infer"] == 1


def test_working_directory_may_be_elsewhere(snakemake):
    done = snakemake.plan("-n", "--cores", "1", "--snakefile", ROOT / "Snakefile")
    assert set(jobs(done.stdout)) == {*STAGES, "synth"}
    (snakemake.folder / "config.yaml").write_text((ROOT / "config/snemi3d.yaml").read_text())
    done = snakemake.plan("-n", "--cores", "1", "--snakefile", ROOT / "Snakefile")
    assert set(jobs(done.stdout)) == set(STAGES)


def test_snakefile_of_the_catalog(snakemake):
    done = snakemake.plan("-n", "--cores", "1", "--snakefile", "workflow/Snakefile", "--forceall", cwd=ROOT)
    assert set(jobs(done.stdout)) == {*STAGES, "synth", "everything"} - {"all"}


@pytest.mark.parametrize("snakefile", ["Snakefile", "workflow/Snakefile"])
def test_use_as_a_module(snakemake, snakefile):
    mine = "".join(f"  {line}" for line in (ROOT / "config/fib25_split.yaml").read_text().splitlines(keepends=True))
    (snakemake.folder / "mine.yaml").write_text(f"segmentation:\n{mine}")
    (snakemake.folder / "Snakefile").write_text(
        f"""
configfile: "mine.yaml"

module ffn:
    snakefile: "{ROOT / snakefile}"
    config: config["segmentation"]

use rule * from ffn as ffn_*

rule count:
    default_target: True
    input: "results/fib25_split/assemble/done.json"
    output: "count.txt"
    shell: "wc -l {{input}} > {{output}}"
"""
    )
    done = snakemake.plan("-n", "--cores", "1")
    assert done.returncode == 0, done.stdout
    assert set(jobs(done.stdout)) == {
        "count", "ffn_fetch", "ffn_prepare", "ffn_train", "ffn_infer", "ffn_consensus", "ffn_assemble",
    }  # fmt: skip


def test_number_of_sub_volumes_may_be_open(snakemake):
    config = snakemake.folder / "mine.yaml"
    config.write_text(
        "run: mine\ndata: {test: {image: 'a.h5:raw'}}\ninference: {checkpoint: weights, subvolume_size: [64, 64, 64]}\n"
    )
    done = snakemake.plan("-n", "--cores", "1", "--configfile", config, cwd=ROOT)
    assert "tiles" in jobs(done.stdout)


def test_a_job_fills_a_batch(snakemake):
    """Three sub-volumes in batches of two, with as many processes as the configuration says."""
    box = {"test": {"image": "synthetic", "box": "0:80,0:64,0:64"}}
    values = yaml.safe_load((ROOT / "tests/workflow/configs/tiny.yaml").read_text())
    values["data"] |= box
    values["inference"] |= {"subvolume_size": [40, 64, 64], "tiles_per_job": 2, "ranks": 2}
    values["cluster"] = {"inference_nodes": 2, "inference_ranks_per_node": 4}
    config = snakemake.folder / "mine.yaml"
    config.write_text(yaml.safe_dump(values))
    local = snakemake.plan("-n", "-p", "--cores", "1", "--configfile", config, cwd=ROOT)
    assert jobs(local.stdout)["infer"] == 2
    assert "horovodrun --gloo -np 2 -H localhost:2 ffn infer" in local.stdout
    assert "--tile 0000-0001 --pass 0 --ranks 2" in local.stdout
    assert "--tile 0002-0002 --pass 0 --ranks 2" in local.stdout
    assert "Inference: 3 sub-volumes of 40 x 64 x 64" in local.stdout
    assert "2 jobs of up to 2 sub-volumes, speed not known" in local.stdout
    theta = snakemake.plan("-n", "-p", "--profile", "theta", "--configfile", config, cwd=ROOT)
    assert jobs(theta.stdout)["infer"] == 2
    assert "aprun -n 8 -N 4 -d 32 -j 2 -cc depth -e OMP_NUM_THREADS=16" in theta.stdout
    assert "--tile 0000-0001 --pass 0 --ranks 8" in theta.stdout


def test_passes_are_jobs_of_their_own_for_each_batch(snakemake):
    changed = 'inference={"passes": 2, "tiles_per_job": 2}'
    arguments = ("--configfile", "tests/workflow/configs/tiny.yaml", "--config", "results=nowhere", changed)
    done = snakemake.plan("-n", "-p", "--cores", "1", *arguments, cwd=ROOT)
    planned = jobs(done.stdout)
    assert (planned["infer"], planned["consensus"]) == (2, 1)
    assert "ffn consensus --wait --config" in done.stdout
    assert "--tile 0000-0001 --ranks 1" in done.stdout


def test_bad_configuration_ends_in_one_report(snakemake):
    config = snakemake.folder / "bad.yaml"
    config.write_text("run: mine\ndata: {test: {image: synthetic}}\nnetwork: {dept: 9, fov: [32, 33, 33]}\n")
    done = snakemake("--cores", "1", "--configfile", config, cwd=ROOT)
    assert done.returncode != 0
    assert "bad.yaml has 3 problems:" in done.stdout
    assert "did you mean 'depth'?" in done.stdout
    assert "fov 32 along z is even" in done.stdout
    assert "data.train is empty and inference.checkpoint too" in done.stdout
    assert "Traceback" not in done.stdout


def test_missing_input_stops_a_run_and_is_shown_by_a_dry_run(snakemake):
    arguments = ("--cores", "1", "--snakefile", ROOT / "Snakefile", "--configfile", ROOT / "config/snemi3d.yaml")
    real, dry = snakemake(*arguments), snakemake.plan("-n", *arguments)
    assert real.returncode != 0
    assert "data.test.image: There is no file data/snemi3d/train_18nm.h5" in real.stdout
    assert "Traceback" not in real.stdout
    assert not (snakemake.folder / "results").exists()
    assert dry.returncode == 0
    assert "A run would stop here: data.test.image" in dry.stdout
