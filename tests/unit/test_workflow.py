"""What the Snakemake rules are told about a configuration, without Snakemake."""

from pathlib import Path

import pytest
import yaml

from ffn.config import load_config
from ffn.errors import ClusterError, ConfigError
from ffn.workflow import ALL_CORES, Plan, default_config_file

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
    for path in (*made.targets, *made.results.values(), made.tile_marker):
        assert Path(path).name == "done.json"


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
    assert made.tile_count == count
    assert made.tile_markers(None) == [f"results/tiny/infer/tile-{i:04d}/done.json" for i in range(count)]


def test_passes_are_jobs_of_their_own_before_the_sub_volume_is_done():
    once, thrice = plan(), plan(inference={"passes": 3})
    assert (once.joins_passes, once.pass_marker) == (False, once.tile_marker)
    assert thrice.joins_passes
    assert thrice.pass_marker == "results/tiny/infer/tile-{tile}/pass-{number}/done.json"
    assert thrice.pass_markers == [f"results/tiny/infer/tile-{{tile}}/pass-{n}/done.json" for n in range(3)]
    assert "{number}" in thrice.pass_log


def test_number_of_sub_volumes_is_known_from_the_synthetic_shape():
    assert plan(data={"test": {"image": "synthetic"}}).tile_count == 6


def test_number_of_sub_volumes_may_need_the_data(tmp_path):
    made = plan(FETCHED, inference={**FETCHED["inference"], "subvolume_size": [64, 64, 64]})
    assert made.tile_count is None
    listing = tmp_path / "tiles.txt"
    listing.write_text("2 sub-volumes\n0\t0:64,0:64,0:64\n1\t32:96,0:64,0:64\n")
    assert made.tile_markers(Checkpoints(listing)) == [
        f"results/released/infer/tile-{i:04d}/done.json" for i in range(2)
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


def test_assembly_takes_the_cores_of_its_workers():
    assert plan().assembly_threads == ALL_CORES
    assert plan(assembly={"workers": 3}).assembly_threads == 3


def test_launch_lines():
    made = plan(training={"ranks": 2}, cluster={"nodes": 4, "ranks_per_node": 2})
    assert made.launch({}) == ""
    assert made.launch_training({}) == "horovodrun --gloo -np 2 -H localhost:2"
    theta = {"launcher": "aprun", "depth": 64}
    assert made.launch(theta).startswith("aprun -n 1 -N 1 -d 64 -j 1 ")

    class Resources(dict):
        nodes = 4
        tasks = made.tasks

    assert made.launch_training(Resources(theta)).startswith("aprun -n 8 -N 2 -d 64 -j 2 ")
    with pytest.raises(ClusterError):
        made.launch({"launcher": "prun"})


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
