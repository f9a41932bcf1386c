"""What the Snakemake rules are told about a configuration, without Snakemake."""

import json
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from ffn.blockwise.ledger import LedgerWriter
from ffn.cluster.resources import Asked, asked_of
from ffn.config import load_config
from ffn.config.load import default_config_file
from ffn.errors import ClusterError, ConfigError
from ffn.workflow import ALL_CORES, Plan

TINY = yaml.safe_load((Path(__file__).parents[1] / "workflow" / "configs" / "tiny.yaml").read_text())
FETCHED = {
    "run": "released",
    "data": {
        "test": {"image": "data/x/images", "labels": "data/x/truth.h5"},
        "voxel_size": [10, 10, 10],
        "sources": [{"dataset": "fib25_test", "folder": "data/x"}],
    },
    "inference": {"checkpoint": "data/x/model.ckpt"},
}


def plan(base: dict = TINY, **sections: object) -> Plan:
    merged = {
        key: {**base.get(key, {}), **value} if isinstance(value, dict) else value for key, value in sections.items()
    }
    return Plan.of({**base, **merged}, "config.yaml", inputs=False)


class Checkpoints:
    """What Snakemake gives for `checkpoints` once the checkpoint `tiles` has run."""

    def __init__(self, boxes: Path) -> None:
        self.tiles = self
        self.output = self
        self.boxes = boxes

    def get(self) -> "Checkpoints":
        return self


def test_run_on_the_synthetic_volume():
    made = plan()
    assert (made.synthesises, made.fetches, made.trains, made.scores) == (True, False, True, True)
    assert made.data("train") == ["results/tiny/synth/done.json"]
    assert made.weights == ["results/tiny/train/done.json"]
    assert made.targets == [f"results/tiny/{stage}/done.json" for stage in ("evaluate", "export", "report")]
    assert set(made.figures) == {"overlay", "curves", "scores"}


def test_training_waits_for_the_data_of_all_its_volumes():
    mine = {"image": "a.h5:raw", "labels": "a.h5:labels"}
    synthetic = {"image": "synthetic", "labels": "synthetic", "box": "0:40,0:64,0:64"}
    marker = ["results/tiny/synth/done.json"]
    several = plan(data={"train": [mine, synthetic], "test": {"image": "b.h5:raw"}})
    assert '"c.h5:raw"' in plan(data={"train": [mine, {**mine, "image": "c.h5:raw"}]}).settings("data.train")
    assert (several.data("train"), several.data("test"), several.synthesises) == (marker, [], True)
    judged = plan(data={"train": mine, "validation": synthetic, "test": {"image": "b.h5:raw"}})
    assert (judged.data("train"), judged.data("test"), judged.synthesises) == (marker, [], True)
    assert plan(data={"train": [mine], "test": {"image": "b.h5:raw"}}).data("train") == []


def test_released_checkpoint_is_not_trained():
    made = plan(FETCHED)
    assert (made.synthesises, made.fetches, made.trains, made.scores) == (False, True, False, True)
    assert made.data("test") == ["results/released/fetched"]
    assert made.weights == []
    assert "curves" not in made.figures
    assert set(made.results) == {"assemble", "evaluate"}


def test_what_is_scored_and_shown_is_agglomerated_where_that_is_enabled():
    apart, joined = plan(), plan(agglomeration={"enabled": True})
    assert (apart.agglomerates, apart.segmentation_marker) == (False, "results/tiny/assemble/done.json")
    assert (joined.agglomerates, joined.segmentation_marker) == (True, "results/tiny/agglomerate/done.json")
    assert set(joined.results) == {"train", "agglomerate", "evaluate"}
    assert joined.results["agglomerate"] == joined.segmentation_marker


def test_nothing_is_scored_without_ground_truth():
    made = plan(FETCHED, data={"test": {"image": "data/x/images"}})
    assert not made.scores
    assert "results/released/evaluate/done.json" not in made.targets
    assert set(made.figures) == {"overlay"}


def test_outputs_are_markers_never_data():
    made = plan()
    for path in (*made.targets, *made.results.values()):
        assert Path(path).name == "done.json"
    assert Path(made.batch_marker).suffix == ".done"


@pytest.mark.parametrize(
    ("inference", "count"),
    [
        ({"subvolume_size": None}, 1),
        ({"subvolume_size": [40, 40, 64], "subvolume_overlap": [8, 16, 8]}, 2),
        ({"subvolume_size": [40, 64, 64], "subvolume_overlap": [8, 8, 8]}, 1),
    ],
)
def test_number_of_sub_volumes_is_known_from_the_box(inference, count):
    made = plan(inference=inference)
    assert made.batches.count == count
    assert made.batch_markers(None) == [f"results/tiny/infer/jobs/{i:04d}-{i:04d}.done" for i in range(count)]


def test_passes_are_jobs_of_their_own_before_the_sub_volume_is_done():
    once, thrice = plan(), plan(inference={"passes": 3})
    assert (once.joins_passes, once.pass_marker) == (False, once.batch_marker)
    assert thrice.joins_passes
    assert thrice.pass_marker == "results/tiny/infer/jobs/{first}-{last}-pass-{number}.done"
    assert thrice.pass_markers == [f"results/tiny/infer/jobs/{{first}}-{{last}}-pass-{n}.done" for n in range(3)]
    assert "{number}" in thrice.pass_log


def filled(folder: Path, numbers: Iterable[int], **facts: Any) -> None:
    """Leave what tells that sub-volumes are finished, each in an archive of its own."""
    (folder / "archives").mkdir(parents=True, exist_ok=True)
    for number in numbers:
        (folder / "archives" / f"{number}.tar").touch()
        with LedgerWriter(folder / "ledger" / f"{number}", "settings", 6) as writer:
            writer.add(number, {}, {"archive": f"{number}.tar", "end": 0, **facts})


@pytest.fixture
def six_tiles(tmp_path) -> Plan:
    """A run of six sub-volumes, with markers as if the batches 0-1 and 2-3 were finished."""
    made = plan(results=str(tmp_path), data={"test": {"image": "synthetic"}}, inference={"tiles_per_job": 2})
    assert made.batches.count == 6
    filled(made.paths.infer_pass(), range(4))
    made.paths.infer_jobs.mkdir()
    for name in ("0000-0001.done", "0002-0003.done", "0000-0001-pass-0-rank-0.json"):
        (made.paths.infer_jobs / name).touch()
    return made


def with_tiles_per_job(made: Plan, tiles: int) -> Plan:
    return Plan.of(made.config.model_dump() | {"inference": {**made.config.model_dump()["inference"],
                   "tiles_per_job": tiles}}, "config.yaml", inputs=False)  # fmt: skip


def names(made: Plan) -> list[str]:
    return [Path(path).stem for path in made.batch_markers(None)]


def test_finished_batches_stay_as_they_are_and_the_rest_is_cut_as_asked(six_tiles):
    assert names(six_tiles) == ["0000-0001", "0002-0003", "0004-0005"]
    assert names(with_tiles_per_job(six_tiles, 6)) == ["0000-0001", "0002-0003", "0004-0005"]
    assert names(with_tiles_per_job(six_tiles, 1)) == ["0000-0001", "0002-0003", "0004-0004", "0005-0005"]


def test_a_batch_of_which_a_sub_volume_was_deleted_is_made_again(six_tiles):
    six_tiles.batches.forget_lost()
    assert len(list(six_tiles.paths.infer_jobs.glob("*.done"))) == 2
    (six_tiles.paths.infer_pass() / "archives" / "2.tar").unlink()
    six_tiles.batches.forget_lost()
    assert [path.name for path in six_tiles.paths.infer_jobs.glob("*.done")] == ["0000-0001.done"]
    assert names(with_tiles_per_job(six_tiles, 6)) == ["0000-0001", "0002-0005"]


def test_finished_passes_are_batches_too(six_tiles):
    values = six_tiles.config.model_dump()
    values["inference"] |= {"passes": 2, "tiles_per_job": 6}
    for path in six_tiles.paths.infer_jobs.glob("*.done"):
        path.unlink()
    made = Plan.of(values, "config.yaml", inputs=False)
    filled(made.paths.infer_pass(1), (2, 3, 4))
    (made.paths.infer_jobs / "0002-0004-pass-1.done").touch()
    made.batches.forget_lost()
    assert names(made) == ["0000-0001", "0002-0004", "0005-0005"]
    (made.paths.infer_pass(1) / "archives" / "3.tar").unlink()
    made.batches.forget_lost()
    assert names(made) == ["0000-0005"]


def test_sub_volumes_of_a_job_follow_from_speed_and_wall_time(tmp_path, monkeypatch):
    monkeypatch.setattr("ffn.planning.estimate.visible_gpus", list)
    values = {"results": str(tmp_path), "data": {"test": {"image": "synthetic"}}}

    def tiles(jobs: int | None, **sections: object) -> int:
        return Plan.of(plan(**values, **sections).config.model_dump(), "config.yaml", False, jobs).batches.size

    shared = {"inference_nodes": 2, "inference_ranks_per_node": 4}
    assert (tiles(None), tiles(20), tiles(20, cluster=shared)) == (1, 1, 8)  # nothing measured
    assert tiles(None, inference={"ranks": 3}) == 3
    made = plan(**values)
    # 64,000 voxels of 40x40x64 and 0.1 FOVs each: 10,240 FOVs in 1,024 s, of half an hour in the wall time.
    filled(made.paths.infer_pass(), range(2), box="0:40,0:40,0:64", fovs=10240, label_bytes=0)
    made.paths.infer_jobs.mkdir()
    reached = {"tiles": 1, "concurrent": 1, "fovs": 1000, "seconds": 100}
    (made.paths.infer_jobs / "0000-0001-pass-0-rank-0.json").write_text(json.dumps(reached))
    assert tiles(1, cluster={"runtime_minutes": 60}) == 1
    assert tiles(1, cluster={"runtime_minutes": 120}) == 3
    assert tiles(3, cluster={"runtime_minutes": 6000}) == 2  # six sub-volumes, three jobs at once
    assert tiles(1, cluster={"runtime_minutes": 120, "inference_ranks_per_node": 2}) == 6
    assert tiles(None) == 1
    monkeypatch.setattr("ffn.planning.estimate.visible_gpus", lambda: ["0"])
    assert tiles(None) == 64
    assert tiles(None, inference={"tiles_per_job": 5}) == 5


def test_number_of_sub_volumes_is_known_from_the_synthetic_shape():
    assert plan(data={"test": {"image": "synthetic"}}).batches.count == 6


def test_number_of_sub_volumes_may_need_the_data(tmp_path):
    made = plan(FETCHED, inference={**FETCHED["inference"], "subvolume_size": [64, 64, 64]})
    assert made.batches.count is None
    listing = tmp_path / "tiles.txt"
    listing.write_text("2 sub-volumes\n0\t0:64,0:64,0:64\n1\t32:96,0:64,0:64\n")
    assert made.batch_markers(Checkpoints(listing)) == [
        f"results/released/infer/jobs/{i:04d}-{i:04d}.done" for i in range(2)
    ]


def test_a_change_of_result_starts_a_rule_and_a_change_of_speed_does_not():
    keys = ("network", "training", "seed")
    before = plan().settings(*keys)
    assert plan(training={"steps": 61}).settings(*keys) != before
    assert plan(training={"checkpoint_every": 7, "log_every": 3, "microbatch": 1}).settings(*keys) == before
    assert plan(export={"mips": 0}).settings(*keys) == before
    before = plan().settings("assembly")
    assert plan(assembly={"min_size": 10}).settings("assembly") != before
    assert plan(assembly={"workers": 3}).settings("assembly") == before


def test_other_votes_do_not_fill_anything_again():
    before = plan(inference={"passes": 3})
    votes = plan(inference={"passes": 3, "consensus": "split", "agreement": 0.7, "split_min_size": 9, "batch_size": 4})
    assert votes.pass_settings == before.pass_settings
    assert votes.settings("inference") != before.settings("inference")
    for change in ({"inference": {"passes": 3, "deltas": [1, 1, 1]}}, {"network": {"features": 3}}):
        assert plan(**{"inference": {"passes": 3}, **change}).pass_settings != before.pass_settings


def test_launch_lines():
    made = plan(training={"ranks": 2}, cluster={"nodes": 4, "ranks_per_node": 2})
    assert made.launch({}) == ""
    assert made.launch_training({}) == "horovodrun --gloo -np 2 -H localhost:2"
    theta = {"site": "theta"}
    assert made.launch(theta).startswith("aprun -n 1 -N 1 -d 128 -j 2 -cc depth -e OMP_NUM_THREADS=64 ")
    assert made.launch({**theta, "depth": 64}).startswith("aprun -n 1 -N 1 -d 64 -j 1 -cc depth ")

    class Resources(dict):
        nodes = 4
        tasks = made.tasks

    assert made.launch_training(Resources(theta)).startswith("aprun -n 8 -N 2 -d 64 -j 2 ")
    with pytest.raises(ClusterError):
        made.launch({"launcher": "prun"})


THETA = Asked("prepare", "theta", "debug-cache-quad", nodes=1, minutes=60)


def test_what_a_queue_would_refuse_is_known_before_anything_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    train, infer = (replace(THETA, rule=rule, nodes=64) for rule in ("train", "infer"))
    assert plan().refusals([THETA, replace(infer, site="")]) == []
    (told,) = plan().refusals([THETA, train, infer])
    assert "rules train, infer ask for 64 nodes" in told
    finished = Path(plan().marker("train"))
    finished.parent.mkdir(parents=True)
    finished.touch()
    assert plan().refusals([train]) == []


def test_rules_of_a_group_need_the_time_of_all(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    evaluate, report = (replace(THETA, rule=rule, minutes=40) for rule in ("evaluate", "report"))
    made = replace(plan(), jobs=20)
    assert made.group("evaluate") == made.group("report")
    assert plan().group("evaluate") is None  # on one machine
    assert made.refusals([evaluate, replace(report, minutes=20)]) == []
    (told,) = made.refusals([evaluate, report])
    assert "rules evaluate, report ask for 1 node, 80 minutes" in told


def test_node_hours_of_what_is_still_to_do(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = plan(inference={"subvolume_size": [40, 40, 40], "tiles_per_job": 1, "passes": 2})
    batches = len(made.batch_markers(None))
    assert batches > 1
    train, infer = replace(THETA, rule="train", nodes=8), replace(THETA, rule="infer", minutes=30)
    told = made.node_hours([THETA, train, infer, replace(THETA, rule="lr_cell")])
    assert f"at most {1 + 8 + batches:,.2f} node-hours" in told
    assert f"(prepare 1.00, train 8.00, infer {batches:,.2f})" in told
    finished = Path(made.marker("train"))
    finished.parent.mkdir(parents=True)
    finished.touch()
    assert "(prepare 1.00, infer" in made.node_hours([THETA, train, infer])
    assert made.node_hours([replace(THETA, site="")]) == ""


def test_what_rules_ask_for_as_profiles_state_it():
    class Resource:
        def __init__(self, raw):
            self.raw = raw

    class Rule:
        def __init__(self, name, norun=False, **resources):
            self.name, self.norun = name, norun
            self.resources = {key: Resource(value) for key, value in resources.items()}

    rules = [
        Rule("train", nodes=3, runtime=30, queue="'debug-cache-quad'", site=None),
        Rule("report", nodes=1, runtime=15, site="'theta'"),
        Rule("infer", nodes=1, runtime=lambda wildcards: 5),
        Rule("all", norun=True, nodes=1, runtime=5),
    ]
    assert asked_of(rules) == [
        Asked("train", "", "debug-cache-quad", 3, 30),
        Asked("report", "theta", "", 1, 15),
    ]


def test_wall_time_of_the_embedded_volume_grows_with_it():
    whole = {"test": {"image": "synthetic", "labels": "synthetic"}}
    small, large = (plan(data=whole, synthetic={"shape": [size] * 3}) for size in (64, 2000))
    assert small.synth_minutes == 15
    assert large.synth_minutes > 15


def test_processes_of_an_inference_job():
    made = plan(
        inference={"ranks": 3, "intra_op_threads": 2}, cluster={"inference_nodes": 2, "inference_ranks_per_node": 4}
    )
    assert (made.inference_ranks({}), made.inference_tasks, made.inference_threads) == (3, 8, 6)
    assert made.launch_inference({}) == "horovodrun --gloo -np 3 -H localhost:3"
    assert plan().launch_inference({}) == ""

    class Resources(dict):
        nodes = 2

    theta = Resources(site="theta", depth=16)
    assert made.inference_ranks(theta) == 8
    assert made.launch_inference(theta).startswith("aprun -n 8 -N 4 -d 16 -j 1 ")
    assert made.launch_inference(Resources(site="polaris", depth=16)).startswith("mpiexec -n 8 --ppn 4 --depth 16 ")
    assert plan().launch_inference(Resources(launcher="srun")).startswith("srun --nodes=1 --ntasks=1 ")


def test_threads_follow_the_configuration():
    assert (plan().training_threads, plan().inference_threads) == (ALL_CORES, ALL_CORES)
    made = plan(training={"ranks": 2}, threads={"intra_op": 3}, inference={"intra_op_threads": 1})
    assert (made.training_threads, made.inference_threads) == (6, 1)


def test_commands_read_one_complete_file_that_never_changes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first, second = plan(), plan(training={"steps": 61})
    first.write_config()
    assert load_config(Path(first.config_file)) == first.config
    assert second.config_file != first.config_file
    written = Path(first.config_file).stat()
    first.write_config()
    second.write_config()
    assert Path(first.config_file).stat() == written


def test_missing_configuration_says_what_to_do():
    with pytest.raises(ConfigError, match="--configfile, or pass `config: config`"):
        Plan.of({}, "The configuration")


def test_missing_inputs_are_reported_before_anything_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    values = {**TINY, "data": {**TINY["data"], "test": {"image": "nowhere.h5:raw"}}}
    with pytest.raises(ConfigError, match=r"tiny\.yaml has 1 problem(.|\n)*nowhere\.h5"):
        Plan.of(values, "tiny.yaml")


def test_default_configuration_is_the_working_directorys_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert default_config_file("shipped.yaml") == "shipped.yaml"
    (tmp_path / "config.yaml").write_text("run: mine\n")
    assert default_config_file("shipped.yaml") == "config.yaml"


@pytest.mark.parametrize("rule", ["infer", "consensus"])
def test_wall_time_of_jobs_that_grow_with_the_volume_is_configured(rule):
    """With a fixed one a large sub-volume would never end."""
    rules = [path.read_text() for path in (Path(__file__).parents[2] / "workflow" / "rules").glob("*.smk")]
    bodies = [body for text in rules for body in re.split(r"^ *rule ", text, flags=re.MULTILINE)]
    body = next(body for body in bodies if body.startswith(f"{rule}:"))
    assert "runtime=plan.config.cluster.runtime_minutes," in body
