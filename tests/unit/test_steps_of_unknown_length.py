"""Steps whose units are known when an earlier step is done, and units that have the machine to themselves."""

import json
import os

import numpy as np
import pytest

from ffn.blockwise import BlockwiseStage, JobPart, Reduce, Result, Share, Task
from ffn.errors import StageError
from ffn.stages import Stage

COUNT = 5


class Plan(Reduce):
    """Says how many units the next step has."""

    name = "plan"

    def __init__(self, count):
        self.count = count

    def run(self, unit):
        return Result(facts={"count": self.count})


class Work(Task):
    """As many units as the plan says."""

    name = "work"
    takes_machine = True

    def __init__(self, plan):
        self.plan = plan

    def __len__(self):
        return self.plan.facts()["count"]

    def run(self, unit):
        return Result({"unit": np.array([unit])}, {"process": os.getpid()})


class End(Reduce):
    """Adds up the units."""

    name = "end"

    def __init__(self, stage, work):
        self.stage, self.work = stage, work

    def run(self, unit):
        ledger = BlockwiseStage.step_of(self.stage, self.work).ledger()
        units = [int(columns["unit"][0]) for columns in ledger.columns()]
        return Result(
            facts={"units": units, "processes": sorted({entry.facts["process"] for entry in ledger.entries()})}
        )


def made(folder, count=COUNT):
    stage = Stage(folder / "stage", {"count": count})
    plan = Plan(count)
    work = Work(BlockwiseStage.step_of(stage, plan))
    return BlockwiseStage(stage, [plan, work, End(stage, work)], "ffn plan")


def facts(stage):
    return json.loads(stage.stage.done_marker.read_text())["facts"]


@pytest.mark.parametrize("count", [COUNT, 1, 0])
def test_units_are_those_of_the_plan(tmp_path, count):
    stage = made(tmp_path, count)
    assert stage.run(1)
    assert facts(stage)["units"] == list(range(count))


def test_units_that_take_the_machine_stay_in_this_process(tmp_path):
    stage = made(tmp_path)
    stage.run(2)
    assert facts(stage) == {"units": list(range(COUNT)), "processes": [os.getpid()]}


def test_parts_of_it(tmp_path):
    with pytest.raises(
        StageError, match=r"1 of the 1 units of the step plan are not done\. Run `ffn plan --config FILE --step plan`"
    ):
        made(tmp_path).run(1, Share("work", JobPart(0, 3)))
    with pytest.raises(StageError, match="plan: 1 of its 1 units are not done"):
        made(tmp_path).run(1, Share("end"))
    made(tmp_path).run(1, Share("plan"))
    for part in (2, 0):
        made(tmp_path).run(1, Share("work", JobPart(part, 3)))
    with pytest.raises(StageError, match=r"2 of the 5 units of the step work are not done"):
        made(tmp_path).run(1, Share("end"))
    made(tmp_path).run(1, Share("work", JobPart(1, 3)))
    stage = made(tmp_path)
    stage.run(1, Share("end"))
    assert facts(stage)["units"] == list(range(COUNT))
    # More parts than units, of a stage that is complete.
    assert not made(tmp_path).run(1, Share("work", JobPart(8, 9)))
