"""`ffn agglomerate` step by step, in parts, by several processes, and killed: the files are those of one process."""

import json
import shutil
import signal
import sys
from itertools import pairwise

import forks
import numpy as np
import pytest
import rods
import yaml
from flooding import Batches, ConnectedNetwork

from ffn.agglomeration import finding
from ffn.agglomeration.run import agglomerate
from ffn.blockwise import Share
from ffn.config import load_config, parse_config
from ffn.errors import StageError
from ffn.runs import RunPaths
from ffn.volumes import open_volume

MAPS = ("sizes", "contacts", "places", "resegment", "relabel")
STEPS = ("sizes", "segments", "contacts", "pairs", "places", "rank", "resegment", "join", "relabel", "summary")


@pytest.fixture
def network(monkeypatch):
    network = ConnectedNetwork()
    executor = type(sys)("ffn.inference.executor")
    executor.load_executor = lambda *_, batch_size, **__: Batches(network, max(batch_size, 1))
    monkeypatch.setitem(sys.modules, executor.__name__, executor)
    monkeypatch.setattr(finding, "GROUP", 1)
    return network


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """A folder with a run that is ready to be agglomerated, over six shards; nine pairs meet."""
    folder = tmp_path_factory.mktemp("field")
    image, labels = rods.field()
    rods.make_inputs(folder, image, labels)
    box = str(rods.Box.of_shape(image.shape).shifted(rods.OFFSET))
    test = {**rods.values(folder)["data"]["test"], "box": box}
    values = rods.values(folder, data={"test": test}, assembly={"fill_nm": 10, "workers": 1})
    (folder / "config.yaml").write_text(yaml.safe_dump(values))
    return folder


@pytest.fixture(scope="module")
def undisturbed(inputs):
    """The files of the run where nothing happened, and evaluations of the network."""
    ended(started(inputs))
    folder = inputs / "results" / "rods" / "agglomerate"
    facts = json.loads((folder / "done.json").read_text())["facts"]
    assert (facts["pairs"], facts["tried"], facts["joined"], facts["objects"]) == (9, 9, 3, 9)
    return contents(folder), facts["fovs"]


@pytest.fixture
def run(inputs, undisturbed):
    """The same folder, to be agglomerated again."""
    shutil.rmtree(inputs / "results" / "rods" / "agglomerate", ignore_errors=True)
    return inputs


def started(folder, *arguments, where="never", count=0, rank=None, size=None):
    """`ffn agglomerate` in a process of its own, maybe one of several that a launcher started."""
    words = (where, str(count), "agglomerate", "--config", folder / "config.yaml", *arguments)
    ranks = {} if rank is None else {"OMPI_COMM_WORLD_RANK": str(rank), "OMPI_COMM_WORLD_SIZE": str(size)}
    return forks.call("killed_agglomeration:main", *words, loaded=["ffn.agglomeration.run"], variables=ranks)


def ended(*processes):
    """All at once, to their good end."""
    done = forks.together(*processes)
    assert [one.returncode for one in done] == [0] * len(processes), "\n".join(one.stderr for one in done)


def agglomerated(folder):
    return folder / "results" / "rods" / "agglomerate"


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def noted(folder, step):
    """The units of a step that the ledger has, each as often as it was done."""
    lines = [
        line
        for path in (agglomerated(folder) / "steps" / step).glob("*/*.jsonl")
        for line in path.read_bytes().split(b"\n")[1:-1]
    ]
    return sorted(json.loads(line)["unit"] for line in lines)


def test_what_is_found_in_the_field(run, network):
    """Of each place the halves of the rod are joined, and the rest stays apart."""
    config = load_config(run / "config.yaml")
    agglomerate(config)
    _, pieces = rods.field()
    with open_volume(RunPaths.of(config).segmentation) as volume:
        labels = volume[...]
    expected = np.where(pieces % 10 == 5, pieces - np.uint64(4), pieces)
    np.testing.assert_array_equal(labels[pieces > 0], expected[pieces > 0])
    assert np.count_nonzero(labels) > np.count_nonzero(pieces)


@pytest.mark.slow
def test_three_jobs_of_two_processes(run, undisturbed):
    for step in STEPS:
        parts = (1, 2, 3) if step in MAPS else (1,)
        ended(
            *(
                started(run, "--step", step, "--part", f"{part}/{len(parts)}", rank=rank, size=2)
                for part in parts
                for rank in ((0, 1) if step in MAPS else (0,))
            )
        )
        if step in MAPS and step != "relabel":
            assert len(set(noted(run, step))) == (9 if step == "resegment" else 6)
    assert contents(agglomerated(run)) == undisturbed[0]


@pytest.mark.slow
def test_two_processes_of_one_job(run, undisturbed):
    ended(*(started(run, rank=rank, size=2) for rank in (0, 1)))
    assert contents(agglomerated(run)) == undisturbed[0]


@pytest.mark.slow
def test_two_that_do_not_know_of_each_other(run, undisturbed):
    ended(started(run), started(run))
    assert contents(agglomerated(run)) == undisturbed[0]


@pytest.mark.slow
def test_worker_processes(run, undisturbed, network):
    values = yaml.safe_load((run / "config.yaml").read_text())
    values["assembly"]["workers"] = 2
    agglomerate(parse_config(values))
    assert contents(agglomerated(run)) == undisturbed[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("step", "count"),
    [
        *(("sizes", 3), ("segments", 1), ("contacts", 2), ("pairs", 1), ("places", 6), ("rank", 1)),
        *(("resegment", 5), ("join", 1), ("relabel", 4), ("summary", 1)),
    ],
)
def test_a_kill_loses_one_unit(run, undisturbed, network, step, count):
    """The one that was done but not noted."""
    killed(run, step, count)
    assert len(noted(run, step)) == count - 1
    agglomerate(load_config(run / "config.yaml"))
    assert contents(agglomerated(run)) == undisturbed[0]
    assert (network.calls == 0) == (STEPS.index(step) > STEPS.index("resegment"))
    assert (network.calls < undisturbed[1]) == (STEPS.index(step) >= STEPS.index("resegment"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("where", "count"),
    [
        *(("in-line", 1), ("in-line", 10), ("in-line", 25), ("in-line", 33), ("fov", 1), ("fov", 1000)),
        *((f"{side}-rename", count) for count in (2, 8, 18) for side in ("before", "after")),
    ],
)
def test_killed_anywhere(run, undisturbed, network, where, count):
    killed(run, where, count)
    assert not (agglomerated(run) / "done.json").exists()
    agglomerate(load_config(run / "config.yaml"))
    assert contents(agglomerated(run)) == undisturbed[0]


@pytest.mark.slow
def test_killed_while_several_are_filled(run, undisturbed, network):
    values = yaml.safe_load((run / "config.yaml").read_text())
    values["inference"] |= {"batch_size": 4, "concurrent": 8}
    (run / "batches.yaml").write_text(yaml.safe_dump(values))
    killed(run, "fov", 700, "--config", run / "batches.yaml")
    agglomerate(load_config(run / "config.yaml"))
    assert contents(agglomerated(run)) == undisturbed[0]
    assert 0 < network.calls < undisturbed[1]


def killed(folder, where, count, *arguments):
    [done] = forks.together(started(folder, *arguments, where=where, count=count))
    assert done.returncode == -signal.SIGKILL, done.stderr


def test_steps_that_are_not_ready_say_so(run, network):
    config = load_config(run / "config.yaml")
    for step, earlier in pairwise(reversed(STEPS)):
        with pytest.raises(StageError, match="not done"):
            agglomerate(config, Share(step))
        assert not (agglomerated(run) / "steps" / step).exists(), earlier
    with pytest.raises(StageError, match="has no step nothing; there are sizes, segments, contacts"):
        agglomerate(config, Share("nothing"))


def test_a_file_that_is_gone_is_made_again(run, undisturbed, network):
    config = load_config(run / "config.yaml")
    for step in STEPS[:-1]:
        agglomerate(config, Share(step))
    calls = network.calls
    folder = agglomerated(run)
    (folder / "segmentation.zarr" / "0" / "c" / "0" / "0" / "1").unlink()
    (folder / "candidates.csv").write_text("torn")
    with pytest.raises(StageError, match="units of the step relabel are not done"):
        agglomerate(config, Share("summary"))
    agglomerate(config)
    assert contents(folder) == undisturbed[0]
    assert network.calls == calls
