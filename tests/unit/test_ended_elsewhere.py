"""A process whose stage another one ends and clears stops, without doing everything again."""

import shutil
from pathlib import Path

from ffn.blockwise import BlockwiseStage, Ledger, Reduce, Result, Task, stage
from ffn.stages import Stage


class Counted(Task):
    """Notes its units in a file; another process ends the stage during the first one."""

    name = "counted"

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __len__(self) -> int:
        return 5

    def run(self, unit: int) -> Result:
        with (self.folder / "units").open("a") as file:
            file.write(f"{unit}\n")
        Stage(self.folder, {}).finish()
        shutil.rmtree(self.folder / "steps", ignore_errors=True)
        return Result()


class Last(Reduce):
    name = "last"

    def run(self, unit: int) -> Result:
        raise AssertionError("the stage is done")


def test_no_further_unit_is_begun(tmp_path, monkeypatch):
    monkeypatch.setattr(stage, "_REFRESH_S", -1.0)
    work = BlockwiseStage(Stage(tmp_path, {}), [Counted(tmp_path), Last()], "ffn count")
    assert work.run(1)
    assert (tmp_path / "units").read_text() == "0\n"
    assert not (tmp_path / "steps").exists()


def test_a_ledger_that_vanishes_while_it_is_read_is_none(tmp_path, monkeypatch):
    gone = tmp_path / "1-of-1" / "host.jsonl"
    monkeypatch.setattr(Path, "glob", lambda *_: [gone])
    assert len(Ledger(tmp_path, "settings", 3)) == 0
