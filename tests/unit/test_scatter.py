"""Blockwise stages as jobs of a cluster: how many, how long, with what memory, and what Snakemake waits for."""

from itertools import pairwise
from pathlib import Path

import pytest

from ffn.cluster.scatter import Scatter
from ffn.cluster.site import Node, Site
from ffn.config import Config, parse_config
from ffn.runs import RunPaths

MACHINE = Site(name="Here", scheduler="slurm", launcher="srun", node=Node(cores=32, memory_gb=128))


def configured(edge: int, folder: Path, **sections: dict) -> Config:
    return parse_config(
        {
            "run": "r",
            "results": str(folder),
            "data": {"test": {"image": "x.h5:image", "box": ",".join([f"0:{edge}"] * 3)}, "voxel_size": [10, 10, 10]},
            "network": {"fov": [33, 33, 33], "deltas": [8, 8, 8]},
            "inference": {"checkpoint": "model", "subvolume_size": [512] * 3, "subvolume_overlap": [64] * 3},
            **sections,
        }
    )


def scatter(config: Config, jobs: int | None = 100, site: Site | None = MACHINE) -> Scatter:
    return Scatter(config, RunPaths.of(config), jobs, site)


def touch(paths: list[str]) -> None:
    for path in paths:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).touch()


def test_a_small_volume_is_one_job(tmp_path):
    made = scatter(configured(1000, tmp_path))
    assert not made.is_scattered("assemble")
    assert made.behind("assemble") == []
    assert made.minutes("assemble") <= 60


def test_a_large_one_is_cut_into_jobs_of_a_quarter_of_an_hour(tmp_path):
    made = scatter(configured(10_000, tmp_path))
    assert made.is_scattered("assemble")
    (labels,) = [step for step in made.steps("assemble") if step.step == "labels"]
    assert labels.units == 20**3
    parts = made.parts(labels)
    assert 1 < parts < 100
    seconds = labels.core_seconds / parts / 32
    assert 600 < seconds < 1800
    assert made.minutes("assemble") * 60 > seconds
    assert [made.parts(step) for step in made.steps("assemble") if step.units == 1] == [1]


def test_there_are_no_more_jobs_than_the_profile_allows_unless_their_time_would_not_do(tmp_path):
    made = scatter(configured(10_000, tmp_path, cluster={"runtime_minutes": 600}), jobs=2)
    assert max(made.parts(step) for step in made.steps("assemble")) == 2
    short = scatter(configured(10_000, tmp_path, cluster={"runtime_minutes": 10}), jobs=2)
    (labels,) = [step for step in short.steps("assemble") if step.step == "labels"]
    assert labels.core_seconds / short.parts(labels) / 32 <= 300


def test_nodes_of_a_job_share_its_units(tmp_path):
    one = scatter(configured(10_000, tmp_path))
    many = scatter(configured(10_000, tmp_path, cluster={"stage_nodes": 4}))
    assert many.minutes("assemble") <= one.minutes("assemble")
    assert max(many.parts(step) for step in many.steps("assemble")) < max(
        one.parts(step) for step in one.steps("assemble")
    )


def test_memory_is_that_of_the_workers_and_within_the_node(tmp_path):
    keep = scatter(configured(10_000, tmp_path))
    assert 32 * 512**3 * 8 / 1e6 < keep.megabytes("assemble") < 128_000
    split = scatter(configured(10_000, tmp_path, assembly={"disconnected": "split"}))
    assert keep.megabytes("assemble") < split.megabytes("assemble") <= 128_000
    small = scatter(configured(500, tmp_path))
    assert small.megabytes("assemble") < keep.megabytes("assemble") / 2


def test_each_step_waits_for_the_one_before(tmp_path):
    made = scatter(configured(10_000, tmp_path, assembly={"disconnected": "split"}))
    steps = made.steps("assemble")
    assert [step.step for step in steps] == ["overlaps", "ids", "pieces", "touching", "objects", "labels"]
    assert made.before("assemble", "overlaps") is None
    for earlier, later in pairwise(steps):
        assert made.before("assemble", later.step) == made.markers(earlier)
    assert made.behind("assemble") == made.markers(steps[-1])
    assert made.unfinished_jobs("assemble") == sum(made.parts(step) for step in steps)
    touch(made.markers(steps[0])[:1])
    assert made.unfinished_jobs("assemble") == sum(made.parts(step) for step in steps) - 1


def test_a_step_stays_as_it_was_cut(tmp_path):
    config = configured(10_000, tmp_path)
    first, labels = scatter(config), scatter(config).steps("assemble")[-1]
    touch(first.markers(labels)[:2])
    for jobs in (3, 1000):
        assert scatter(config, jobs).markers(labels) == first.markers(labels)


@pytest.mark.parametrize("jobs", [None, 3, 100])
def test_what_a_finished_stage_waited_for_is_the_same_whoever_asks(tmp_path, jobs):
    """Else Snakemake would take it for made from other inputs, and make it again."""
    config = configured(10_000, tmp_path)
    first = scatter(config)
    markers = first.markers(first.steps("assemble")[-1])
    touch(markers)
    touch([str(tmp_path / "r" / "assemble" / "done.json")])
    assert scatter(config, jobs).behind("assemble") == markers
    assert scatter(config, jobs).unfinished_jobs("assemble") == 0


def test_what_was_made_on_one_machine_is_not_cut_afterwards(tmp_path):
    config = configured(10_000, tmp_path)
    assert scatter(config, None).behind("assemble") == []
    touch([str(tmp_path / "r" / "assemble" / "done.json")])
    assert scatter(config).behind("assemble") == []


def test_a_job_itself_waits_for_nothing(tmp_path):
    """Snakemake inside a job is not told how many jobs there are."""
    assert scatter(configured(10_000, tmp_path), None).before("assemble", "labels") == []


def test_without_a_size_there_are_no_steps(tmp_path):
    config = parse_config(
        {
            "run": "r",
            "results": str(tmp_path),
            "data": {"test": {"image": "missing.h5:image"}},
            "inference": {"checkpoint": "model"},
        }
    )
    made = scatter(config)
    assert made.stages
    assert made.steps("assemble") == []
    assert made.behind("assemble") == []
    assert (made.minutes("assemble"), made.megabytes("assemble")) == (45, 8000)


def test_layers_of_a_large_volume_are_jobs_of_their_own(tmp_path):
    small, large = (scatter(configured(edge, tmp_path)) for edge in (1000, 10_000))
    assert not small.is_scattered("export")
    (layer,) = large.steps("export")
    # Image and segmentation, a thousand boxes of 1,024^3 each.
    assert (layer.step, layer.units) == ("layer", 2000)
    assert 1 < large.parts(layer) < 100
    assert large.minutes("export") <= 60
    assert large.megabytes("export") <= 128_000
