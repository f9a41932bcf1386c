"""Plans of the scaling study's targets, and one real study whose cells are jobs of their own."""

import json
from pathlib import Path

import pytest
import yaml
from calling import ROOT, Snakemake
from test_dry_runs import jobs

from ffn.config import load_config
from ffn.scaling.targets import StudyPlan

TINY = Path(__file__).parent / "configs" / "tiny.yaml"


NOWHERE = "no-results"
"""Where nothing is done yet, whatever the checkout holds."""


def plan(snakemake: Snakemake, target: str, config: str = "lr_study_fib25") -> str:
    given = ("--configfile", f"config/{config}.yaml", "--config", f"results={NOWHERE}")
    done = snakemake.plan(target, "-n", "-p", "--cores", "2", *given, cwd=ROOT)
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_throughput_is_measured_once_for_each_start(snakemake):
    text = plan(snakemake, "scaling")
    assert jobs(text)["scaling_point"] == 9
    assert "horovodrun --gloo -np 4 -H localhost:4 ffn study rate" in text


def test_learning_rates_are_tried_in_rounds(snakemake):
    assert set(jobs(plan(snakemake, "lr_study"))) == {"fetch", "lr_round", "lr_study"}


def test_a_cell_of_virtual_workers_is_one_process_with_its_threads(snakemake):
    cell = plan(snakemake, f"{NOWHERE}/lr_study_fib25/scaling/cells/w0008-p03-s0/done.json")
    assert "ffn study cell" in cell
    assert "horovodrun" not in cell
    threads = {
        name: StudyPlan.of(load_config(ROOT / "config" / f"{name}.yaml")).cell_threads
        for name in ("lr_study_fib25", "fib25_split")
    }
    assert threads == {"lr_study_fib25": 1, "fib25_split": 0}  # side by side; one after the other


def test_efficiency_needs_cells_and_costs(snakemake):
    expected = {"fetch", "lr_round", "lr_study", "prepare", "cost_model", "efficiency"}
    assert set(jobs(plan(snakemake, "efficiency"))) == expected


def test_costs_are_measured_by_one_job(snakemake):
    assert set(jobs(plan(snakemake, "cost_model"))) == {"fetch", "prepare", "cost_model"}


def test_on_a_cluster_a_cell_has_as_many_ranks_as_workers(snakemake):
    real = ("--config", 'study={"real": true, "lr_study": {"workers": [2, 8], "rates": 3}}')
    arguments = ("--profile", "theta", "-n", "-p", "--configfile", "config/fib25.yaml", *real)
    rounds = snakemake.plan("lr_study", *arguments, cwd=ROOT)
    assert rounds.returncode == 0, rounds.stdout
    assert set(jobs(rounds.stdout)) == {"fetch", "lr_round", "lr_study"}
    cell = snakemake.plan("results/fib25/scaling/cells/w0008-p03-s0/done.json", *arguments, cwd=ROOT)
    assert "aprun -n 8 -N 1 -d" in cell.stdout
    assert "ffn study cell" in cell.stdout
    assert "--cell w0008-p03-s0" in cell.stdout
    measured = snakemake.plan("scaling", *arguments, cwd=ROOT)
    assert "aprun -n 4 -N 1 -d" in measured.stdout


@pytest.mark.slow
@pytest.mark.parametrize("real", [False, True])
def test_study(snakemake, real):
    study = {"workers": [1, 2], "rates": 3, "steps": 6, "seeds": 2, "log_every": 2, "extensions": 0, "score": "loss"}
    values = yaml.safe_load(TINY.read_text()) | {"study": {"real": real, "lr_study": study}}
    values["training"] |= {"batch": 1}
    config = snakemake.folder / "study.yaml"
    config.write_text(yaml.safe_dump(values))
    arguments = ("lr_study", "--snakefile", ROOT / "Snakefile", "--cores", "2", "--configfile", config)
    done = snakemake(*arguments)
    assert done.returncode == 0, done.stdout
    folder = snakemake.folder / "results" / "tiny" / "scaling"
    assert len(list(folder.glob("cells/*/done.json"))) == 8
    assert json.loads((folder / "lr_study" / "lr_study.json").read_text())["by_score"][0]["score"] == "loss"
    ranks = json.loads((folder / "cells" / "w0002-p01-s0" / "train" / "done.json").read_text())["facts"]["ranks"]
    assert ranks == (2 if real else 1)
    again = snakemake(*arguments)
    assert "Nothing to be done" in again.stdout
