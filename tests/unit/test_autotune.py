"""`ffn train --autotune`: what is tried, what is recommended, and one real search."""

import importlib.util
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny_training import run, settings, train_command, write_config

from ffn.cli import main
from ffn.config import Config, Threads, Training, parse_config
from ffn.errors import RankError
from ffn.training.autotune.candidates import Candidate, layouts, refinements
from ffn.training.autotune.search import autotune
from ffn.training.autotune.teams import Team
from ffn.training.autotune.tuning import Trial, Tuning


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return parse_config(settings(tmp_path))


def merged(values: dict[str, Any], lines: str) -> dict[str, Any]:
    """A configuration with the printed lines put into it."""
    found = yaml.safe_load(lines)
    return {**values, **{key: {**values.get(key, {}), **section} for key, section in found.items()}}


@pytest.mark.parametrize(
    ("training", "ranks", "expected"),
    [
        ({"batch": 8}, 2, (1, 4)),
        ({"batch": 8, "rate_scaling": "sqrt"}, 2, (1, 8)),  # more workers would change the rate
        ({"batch": 8, "virtual_workers": 4, "rate_scaling": "sqrt"}, 2, (2, 8)),
        ({"batch": 1}, 2, (1, 1)),
        ({"batch": 4, "ranks": 4}, 2, (2, 4)),
        ({"batch": 3, "ranks": 2}, 4, (1, 3)),
        ({"batch": 2, "virtual_workers": 3}, 1, (3, 2)),
    ],
)
def test_ranks_share_out_the_configured_update_where_they_can(training, ranks, expected) -> None:
    candidate = Candidate.of(Training(**training), ranks, Threads())
    assert (candidate.virtual_workers, candidate.batch) == expected


def test_a_rank_takes_its_lanes_through_the_network_in_parts() -> None:
    candidate = Candidate.of(Training(batch=5, virtual_workers=4), 1, Threads())
    assert candidate.at_once(16) == 10
    assert candidate.at_once(100) == 20


def test_layouts_begin_with_one_rank_on_all_cores(tmp_path: Path) -> None:
    config = parse_config({**settings(tmp_path), "threads": {}})
    assert [(c.ranks, c.threads) for c in layouts(config, 8)] == [
        (1, Threads(intra_op=8)),
        (2, Threads(intra_op=4)),
        (4, Threads(intra_op=2)),
        (8, Threads(intra_op=1)),
    ]


def test_what_is_configured_is_tried_too(tmp_path: Path) -> None:
    values = settings(tmp_path, ranks=2)
    values["threads"] = {"inter_op": 2, "kmp_blocktime": 0}
    first, second, *_ = layouts(parse_config(values), 8)
    assert (first.ranks, first.threads) == (1, Threads(intra_op=8))
    assert (second.ranks, second.threads) == (2, Threads(intra_op=4, inter_op=2, kmp_blocktime=0))


def test_openmp_is_only_tuned_where_tensorflow_runs_on_it(config: Config) -> None:
    best = Candidate.of(config.training, 1, Threads(intra_op=64))
    assert {c.threads.kmp_blocktime for c in refinements(best, 64, openmp=False)} == {None}
    first, second, *_ = refinements(best, 64, openmp=True)
    assert first.threads == Threads(intra_op=64, omp=64, kmp_blocktime=0)
    assert second.threads.kmp_affinity is not None


def tuning(config: Config, rates: dict[Candidate, list[float]], untried: list[Candidate] | None = None) -> Tuning:
    trials = [Trial(candidate, values) for candidate, values in rates.items()]
    return Tuning(config, 2, True, True, trials, [(candidate, "no time left") for candidate in untried or []])


def test_of_equally_fast_ones_the_simplest_is_recommended(config: Config) -> None:
    one, two = (Candidate.of(config.training, ranks, Threads(intra_op=2 // ranks)) for ranks in (1, 2))
    assert tuning(config, {one: [10.0], two: [10.2]}).best.candidate == one
    assert tuning(config, {one: [10.0, 10.0, 30.0], two: [12.0]}).best.candidate == two


def test_recommended_lines_load(tmp_path: Path) -> None:
    values = settings(tmp_path, batch=1, ranks=1)
    config = parse_config(values)
    one, two = (Candidate.of(config.training, ranks, Threads(intra_op=2 // ranks)) for ranks in (1, 2))
    pinned = two.with_threads(pin=True, kmp_blocktime=0)
    found = tuning(config, {one: [10.0], two: [11.0], pinned: [14.0]}, untried=[one.with_threads(onednn=False)])
    chosen = parse_config(merged(values, found.yaml()))
    assert chosen.threads == Threads(intra_op=1, pin=True, kmp_blocktime=0)
    assert (chosen.training.ranks, chosen.training.batch) == (2, 1)
    assert "2 fields of view instead of 1" in found.yaml()
    unchanged = "\n".join(line.removeprefix("#   ") for line in found.yaml().splitlines() if line.startswith("#   "))
    assert parse_config(merged(values, unchanged)) == parse_config({**values, "threads": {"intra_op": 2}})
    lines = found.table().splitlines()
    assert lines[1].endswith("<- best")
    assert "pin=True" in lines[1]
    assert "1.40" in lines[1]
    assert "onednn=False" in lines[-1]
    assert lines[-1].endswith("not tried: no time left")
    assert parse_config({**values, **found.as_json()["best_same_update"], "training": values["training"]})


def test_too_little_time_is_said(tmp_path: Path, capsys) -> None:
    config = write_config(tmp_path)
    assert main(["train", "--autotune", "--config", str(config), "--seconds", "0.05"]) == 2
    assert "No training step could be measured within" in capsys.readouterr().err


def test_a_rank_that_cannot_run_is_reported(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(RankError, match=r"ended with code 1"):
        autotune(config, 20.0, cores=1)


def test_a_team_takes_turns_and_ends_with_whoever_started_it(config: Config) -> None:
    candidate = Candidate.of(config.training, 1, Threads(intra_op=1))
    with Team(config, candidate) as team:
        deadline = time.monotonic() + 120
        openmp, memory = team.ready(deadline)
        assert memory > 2**26
        assert isinstance(openmp, bool)
        assert team.turn(0.1, deadline) > 0
        (connection,), (process,) = team._connections, team._processes
        connection.close()
        assert process.wait(60) == 0


@pytest.mark.slow
def test_the_command_prints_a_table_and_lines_that_load(tmp_path: Path) -> None:
    config, output = write_config(tmp_path), tmp_path / "tuning.json"
    done = run([*train_command(config, "--autotune", "--seconds", "40"), "--output", str(output)])
    assert done.returncode == 0, done.stderr
    table, _, lines = done.stdout.partition("\n\n")
    assert table.splitlines()[0].split()[:3] == ["ranks", "intra_op", "inter_op"]
    assert table.count("<- best") == 1
    chosen = parse_config(merged(settings(tmp_path), lines))
    saved = json.loads(output.read_text())
    assert saved["best"]["threads"]["intra_op"] == chosen.threads.intra_op
    assert len(saved["trials"]) + len(saved["untried"]) == len(table.splitlines()) - 1 - (not saved["openmp"]) - (
        not saved["exchange"]
    )
    assert saved["exchange"] == (importlib.util.find_spec("horovod") is not None)
    assert 2 in [trial["training"]["ranks"] for trial in saved["trials"]] or len(os.sched_getaffinity(0)) == 1
    assert not (tmp_path / "results").exists()
