"""Every bad configuration gets one report with all its problems, and nothing runs."""

import re
from copy import deepcopy
from pathlib import Path

import pytest
import yaml

from ffn.cli import main
from ffn.config import Config, load_config, parse_config
from ffn.config.docs import schema_text, table_text
from ffn.config.inference import JOIN_SHARE, LEAST_UNSEEN, OFFERS_COMPARED
from ffn.config.seeds import SEED_POLICIES, PolicyGrid3d, PolicyPeaks
from ffn.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = [ROOT / "config.yaml", *sorted((ROOT / "config").glob("*.yaml"))]
GOOD_REGION = {"image": "a.h5:raw", "labels": "a.h5:labels", "box": "0:60,0:80,0:80"}
GOOD = {
    "run": "mine",
    "data": {
        "train": GOOD_REGION,
        "test": {"image": "b.h5:raw"},
    },
    "network": {"fov": [33, 33, 33], "deltas": [8, 8, 8]},
}


def changed(**replacements: object) -> dict:
    """GOOD with values at dotted keys replaced (`network__fov` stands for network.fov)."""
    values = deepcopy(GOOD)
    for key, value in replacements.items():
        *path, last = key.split("__")
        section = values
        for part in path:
            section = section.setdefault(part, {})
        section[last] = value
    return values


def report(values: dict) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_config(values, "mine.yaml")
    return str(caught.value)


def test_good_configuration_has_its_defaults():
    config = parse_config(GOOD)
    assert config.network.depth == 9
    assert config.results == "results"
    assert config.data.train.bounds.shape == (60, 80, 80)


def test_one_volume_or_several():
    one, several = parse_config(GOOD), parse_config(changed(data__train=[GOOD_REGION, {**GOOD_REGION, "weight": 3}]))
    assert list(one.data.volumes) == ["data.train"]
    assert [volume.weight for volume in several.data.volumes.values()] == [1, 3]
    assert parse_config(several.model_dump(mode="json")) == several
    apart = changed(data__validation={**GOOD_REGION, "box": "60:99,0:80,0:80"})
    assert list(parse_config(apart).data.labelled) == ["data.train", "data.validation"]


def test_seed_policies_by_name_as_a_section_or_in_a_list():
    assert parse_config(GOOD).inference.seed_policy == [PolicyPeaks()]
    grid = {"name": "PolicyGrid3d", "step": 8, "reverse": True}
    for given, expected in (
        ("peaks", [PolicyPeaks()]),
        (grid, [PolicyGrid3d(step=8, reverse=True)]),
        ([grid, "PolicyPeaks"], [PolicyGrid3d(step=8, reverse=True), PolicyPeaks()]),
    ):
        config = parse_config(changed(inference__seed_policy=given))
        assert config.inference.seed_policy == expected
        assert parse_config(config.model_dump(mode="json")) == config


def test_every_seed_policy_is_in_the_schema_and_has_a_table():
    inference = Config.model_json_schema()["$defs"]["Inference"]["properties"]
    choices = inference["seed_policy"]["anyOf"]
    assert {choice["$ref"].split("/")[-1] for choice in choices if "$ref" in choice} == set(SEED_POLICIES)
    names = next(choice["enum"] for choice in choices if "enum" in choice)
    assert set(SEED_POLICIES) - set(names) == {"PolicyInvertOrigins"}  # which cannot stand without its folder
    table = table_text()
    assert all(f"## inference.seed_policy: {name}\n" in table for name in SEED_POLICIES)


def test_a_wrong_seed_policy_hides_no_other_mistake():
    text = report(changed(inference__seed_policy=["PolicyPeeks"], inference__deltas=[8, 17, 8], network__depth=1))
    for words in ("mean 'PolicyPeaks'", "inference.deltas 17 along y", "network.depth is 1"):
        assert words in text


def test_a_mistake_in_one_volume_of_several_hides_no_other():
    text = report(
        changed(
            data__train=[{**GOOD_REGION, "labls": "x", "box": "0:9,0:80,0:80"}, {**GOOD_REGION, "label_zero": "x"}],
            inference__subvolume_size=[32, 64, 64],
        )
    )
    for words in (
        "data.train.0.labls",
        "data.train.0.box has 9",
        "data.train.1.label_zero is 'x'",
        "overlap 32 along z",
    ):
        assert words in text


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_shipped_configuration_is_valid(path):
    load_config(path)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_shipped_regions_to_learn_from_and_to_score_are_apart(path):
    data = load_config(path).data
    for region in data.labelled.values():
        if region.image == data.test.image:
            assert region.bounds.intersection(data.test.bounds) is None


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (changed(network__dept=9), "network.dept is not a known key; did you mean 'depth'?"),
        (changed(trainig={}), "trainig is not a known key; did you mean 'training'?"),
        (changed(data__test__labls="x"), "data.test.labls is not a known key; did you mean 'labels'?"),
        (changed(zzz=1), "zzz is not a known key; known here: run, results"),
        (changed(network__depth="deep"), "network.depth is 'deep': input should be a valid integer"),
        (changed(network__fov=[33, 33]), "network.fov"),
        (changed(training__batch=0), "training.batch is 0: input should be greater than or equal to 1"),
        (changed(training__optimizer="adams"), "training.optimizer is 'adams': input should be 'sgd', 'momentum'"),
        (changed(network__fov=[32, 33, 33]), "fov 32 along z is even; use an odd number such as 33"),
        (changed(network__deltas=[8, 8, 17]), "deltas 17 along x leaves the fov 33; use at most 16"),
        (changed(data__train__box="0:20,0:80,0:80"), "data.train.box has 20 voxels along z, fewer than the network's"),
        (changed(data__train__box="0:60,0:80"), "'0:60,0:80' is not a box Z0:Z1,Y0:Y1,X0:X1 such as"),
        (changed(data__train__box="60:60,0:80,0:80"), "is empty: each stop must be greater than its start"),
        (changed(data__train=None), "data.train is empty and inference.checkpoint too: give one of them"),
        (changed(data__train__labels=None), "data.train.labels is empty: training needs ground truth"),
        (changed(data__train=[GOOD_REGION, {"image": "c.h5:raw"}]), "data.train.1.labels is empty: training needs"),
        (changed(data__train=[GOOD_REGION, {**GOOD_REGION, "weight": 0}]), "data.train.1.weight is 0: "),
        (changed(data__train=[{**GOOD_REGION, "labls": "x"}]), "data.train.0.labls is not a known key; did you mean"),
        (changed(data__train=[{**GOOD_REGION, "box": "0:9,0:80,0:80"}]), "data.train.0.box has 9 voxels along z"),
        (changed(data__train=[]), "data.train is empty and inference.checkpoint too"),
        (changed(data__train=7), "data.train is 7: "),
        (changed(data__validation={"image": "c.h5:raw"}), "data.validation.labels is empty: training needs"),
        (changed(data__validation={**GOOD_REGION, "box": "50:99,0:80,0:80"}), "data.validation overlaps data.train:"),
        (changed(data__validation={**GOOD_REGION, "box": None}), "data.validation overlaps data.train:"),
        (
            changed(data__train=None, data__validation=GOOD_REGION, inference__checkpoint="model"),
            "data.validation has no effect without data.train",
        ),
        (changed(augmentation__elastic=1.5), "augmentation.elastic is 1.5: "),
        (changed(augmentation__missing=1), "did you mean 'missing_section'?"),
        (changed(inference__subvolume_size=[32, 64, 64]), "inference.subvolume_overlap 32 along z must be smaller"),
        (
            changed(inference__subvolume_size=[32, 64, 64]),
            "inference.subvolume_size 32 along z is smaller than the fov",
        ),
        (changed(inference__deltas=[8, 17, 8]), "inference.deltas 17 along y leaves the fov 33; use at most 16"),
        (
            changed(inference__move_threshold=0.97),
            "network.init_activation 0.95 is below inference.move_threshold 0.97: no object would ever grow",
        ),
        (
            changed(inference__seed_policy="PolicyPeeks"),
            "inference.seed_policy: 'PolicyPeeks' is not a seed policy; did you mean 'PolicyPeaks'?",
        ),
        (changed(inference__seed_policy=["peaks", "zz"]), "inference.seed_policy.1: 'zz' is not a seed policy; known"),
        (
            changed(inference__seed_policy={"name": "PolicyGrid3d", "steps": 8}),
            "inference.seed_policy: PolicyGrid3d has no argument 'steps'; did you mean 'step'?",
        ),
        (
            changed(inference__seed_policy=[{"name": "PolicyPeaks", "zz": 8}]),
            "inference.seed_policy.0: PolicyPeaks has no argument 'zz'; known here: reverse, name.",
        ),
        (
            changed(inference__seed_policy=["PolicyMax", {"name": "PolicyGrid3d", "step": 0}]),
            "inference.seed_policy.1.step is 0: input should be greater than or equal to 1",
        ),
        (changed(inference__seed_policy="PolicyInvertOrigins"), "inference.seed_policy.folder is missing"),
        (changed(inference__seed_policy=[]), "inference.seed_policy is []: "),
        (changed(inference__seed_policy={"step": 8}), "inference.seed_policy: {'step': 8} is not a seed policy: write"),
        (changed(inference__masks=[{}]), "inference.masks.0: a mask is of a volume, of the image"),
        (changed(inference__masks=[{"volume": "a.h5", "image": True}]), "(`image: true`), or of boxes: give exactly"),
        (
            changed(inference__masks=[{"volum": "a.h5"}]),
            "inference.masks.0.volum is not a known key; did you mean 'vol",
        ),
        (
            changed(inference__seed_masks=[{"image": True}]),
            "inference.seed_masks.0: a mask of the image needs min, max",
        ),
        (changed(inference__masks=[{"boxes": ["1:2"]}]), "inference.masks.0.boxes: '1:2' is not a box Z0:Z1"),
        (changed(inference__masks=[{"boxes": ["0:1,0:1,0:1"], "min": 1}]), "min, max and values have no effect on box"),
        (changed(inference__masks=[{"boxes": ["0:1,0:1,0:1"], "channel": 1}]), "only a volume has a channel"),
        (changed(inference__masks=[{"image": True, "min": 1, "values": [2]}]), "give min and max, or values, not both"),
        (changed(inference__masks=[{"image": True, "min": 3, "max": 2}]), "min 3 is above max 2: no value lies betw"),
        (changed(inference__shift_mask={"volume": "a.h5", "threshold": 0}), "inference.shift_mask.threshold is 0: "),
        (changed(inference__shift_mask={}), "inference.shift_mask.volume is missing"),
        (changed(prepare__thresholds=[0.5, 0.2]), "thresholds must be ascending"),
        (changed(training__steps=5, training__warmup_steps=5), "warmup_steps 5 must be fewer than steps 5"),
        (changed(run="a/b"), "run is 'a/b'"),
        ({"run": "mine"}, "data is missing"),
    ],
)
def test_bad_value_is_named(values, words):
    assert words in report(values)


def test_all_problems_are_in_one_report():
    text = report(
        changed(
            network__dept=9,
            network__fov=[32, 33, 33],
            training__batch=0,
            inference__subvolume_size=[32, 64, 64],
            sed=3,
        )
    )
    assert text.startswith("mine.yaml has 5 problems:")
    for words in (
        "did you mean 'depth'",
        "fov 32 along z is even",
        "training.batch",
        "overlap 32 along z",
        "mean 'seed'",
    ):
        assert words in text


def test_a_guess_is_not_reported_as_a_problem():
    """With `fov` misread as its default 33, the box of 20 voxels would look too small; it is not for the fov meant."""
    text = report(changed(network__fov=["17", "17", "seventeen"], network__deltas=[4, 4, 4]))
    assert text.startswith("mine.yaml has 1 problem:")
    small = changed(data__train__box="0:20,0:80,0:80", network={"fvo": [17, 17, 17], "deltas": [4, 4, 4]})
    assert report(small) == "mine.yaml has 1 problem:\n  - network.fvo is not a known key; did you mean 'fov'?"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("run: [1", "is not valid YAML"),
        ("- a\n- b\n", "must hold keys and values such as 'run: demo'; it holds list"),
        ("", "must hold keys and values"),
    ],
)
def test_file_that_holds_no_configuration(tmp_path, text, words):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=words):
        load_config(path)


def test_missing_file():
    with pytest.raises(ConfigError, match=r"There is no configuration file nowhere\.yaml"):
        load_config(Path("nowhere.yaml"))


def test_check_reports_keys_and_missing_files_together(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text(yaml.safe_dump(changed(network__dept=9, data__test__image="nowhere.h5:raw")))
    assert main(["config", "check", "mine.yaml"]) == 2
    text = capsys.readouterr().err
    assert "did you mean 'depth'" in text
    assert "data.test.image: " in text
    assert "nowhere.h5" in text
    assert "Traceback" not in text


@pytest.mark.parametrize(
    ("command", "text", "file"),
    [("schema", schema_text, "config/schema.json"), ("table", table_text, "docs/reference/config.md")],
)
def test_committed_documentation_agrees_with_the_model(command, text, file, capsys):
    assert (ROOT / file).read_text(encoding="utf-8") == text(), f"run `make docs` and commit {file}"
    assert main(["config", command]) == 0
    assert capsys.readouterr().out == text()


def test_every_key_is_documented():
    assert "|  |" not in table_text()
    assert "\n    " not in table_text()  # would be shown as code


def test_default_configuration_of_the_catalog_is_the_default():
    assert (ROOT / "config" / "config.yaml").read_text() == (ROOT / "config.yaml").read_text()


def test_passes_are_a_number_or_a_list_of_differences():
    values = {**GOOD, "inference": {"checkpoint": "here", "quality": "balanced"}}

    def parsed(passes):
        return parse_config({**values, "inference": {**values["inference"], "passes": passes}})

    config = parsed(3)
    assert [one.turn for one in config.inference.all_passes] == [0, 1, 2]
    assert config.of_pass(2).inference == config.inference
    config = parsed([{}, {"checkpoint": "other", "quality": "fast"}, {"network": {"downsample": [1, 2, 2]}}])
    assert config.of_pass(0).inference.quality == "balanced"
    assert config.of_pass(1).inference.checkpoint == "other"
    assert (
        config.of_pass(1).inference.least_unseen
        == parse_config({**values, "inference": {"checkpoint": "here", "quality": "fast"}}).inference.least_unseen
    )
    assert config.of_pass(2).network.downsample == (1, 2, 2)
    assert config.network.downsample == (1, 1, 1)
    values["inference"].update(min_unseen=0.5, join_share=0.9)
    config = parsed([{}, {"quality": "fast"}, {"quality": "exact", "join_share": 0.7}])
    of_passes = [config.of_pass(number).inference for number in range(3)]
    assert [one.least_unseen for one in of_passes] == [0.5, LEAST_UNSEEN["fast"], 0]
    assert [one.offers_compared for one in of_passes] == [OFFERS_COMPARED["balanced"], OFFERS_COMPARED["fast"], 1]
    assert [one.least_joined for one in of_passes] == [0.9, JOIN_SHARE["fast"], 0.7]


@pytest.mark.parametrize(
    ("passes", "message"),
    [
        (0, "inference.passes"),
        (9, "inference.passes"),
        ([], "inference.passes"),
        ([{"turns": 1}], "turns"),
        ([{}, {"network": {"dept": 3}}], r"inference\.passes\.1\.network: dept"),
        ([{"network": {"fov": [8, 9, 9]}}], r"inference\.passes\.0\.network.*fov 8 along z is even"),
        ([{"deltas": [40, 8, 8]}], r"inference\.passes\.0: inference\.deltas 40 along z leaves the fov"),
        ([{"move_threshold": 0.99}], r"inference\.passes\.0: .*no object would ever grow"),
        ([{}, {"network": {"depth": 5}}], r"inference\.passes\.1\.network: .* give inference\.passes\.1\.checkpoint"),
        ([{"network": {"downsample": [1, 2, 2]}}], r"passes\.0: inference\.subvolume_size 64 along x is .* fov 66"),
        ([{"network": {"downsample": [2, 1, 1]}}], r"passes\.0: data\.test\.box has 60 voxels along z, .* fov 66"),
    ],
)
def test_passes_that_cannot_be(passes, message):
    with pytest.raises(ConfigError, match=message):
        parse_config(
            {
                **GOOD,
                "data": {"test": GOOD_REGION},
                "inference": {"checkpoint": "here", "passes": passes, "subvolume_size": [60, 80, 64]},
            }
        )


def test_the_guide_says_what_quality_means():
    guide = (ROOT / "docs" / "guides" / "inference.md").read_text(encoding="utf-8")
    for name in ("balanced", "fast"):
        row = next(line for line in guide.splitlines() if line.startswith(f"| `{name}` |"))
        assert re.findall(r"(\d+) %", row) == [f"{100 * LEAST_UNSEEN[name]:.0f}"]
        assert (OFFERS_COMPARED[name] > 1) == (f"of the next {OFFERS_COMPARED[name]} offers" in row)
        assert f"in which {JOIN_SHARE[name]:.0%} of it lie".replace("%", " %") in guide
    assert JOIN_SHARE["exact"] == 1
