"""Files and folders that appear as a whole, whoever else writes them or is killed doing so."""

import os
import re
import time
from pathlib import Path

import pytest
from stopping import killed, stopped, went_on

from ffn.files import ABANDONED_S, atomic_path, partial_path, remove_leftovers, temporary_path, write_text
from ffn.processes import ProcessId
from ffn.stages import Stage

HALF_A_FILE = """
from pathlib import Path
from ffn.files import atomic_path
with atomic_path(Path(sys.argv[1])) as partial, partial.open("w") as file:
    file.write("theirs" * 10000)
    file.flush()
    pause()
    file.write("end")
"""
HALF_A_FOLDER = """
from pathlib import Path
from ffn.files import atomic_path
with atomic_path(Path(sys.argv[1])) as partial:
    partial.mkdir()
    (partial / "a").write_text("theirs")
    pause()
    (partial / "b").write_text("theirs")
"""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def foreign(path: Path) -> Path:
    """A name that a process of another machine would use."""
    return path.with_name(f"{path.name}.node7-00000000-17-1234-{'0' * 8}.partial")


def test_two_writers_of_a_file_do_not_meet(tmp_path):
    path = tmp_path / "file"
    with stopped(HALF_A_FILE, str(path)) as other:
        assert not path.exists()
        write_text(path, "mine")
        assert path.read_text() == "mine"
        assert went_on(other)[0] == 0
    assert path.read_text() == "theirs" * 10000 + "end"
    assert names(tmp_path) == ["file"]


def test_the_other_writer_may_be_killed(tmp_path):
    path = tmp_path / "file"
    with stopped(HALF_A_FILE, str(path)) as other:
        write_text(path, "mine")
        killed(other)
    assert path.read_text() == "mine"


def test_of_two_writers_of_a_folder_the_first_stays_and_both_end_well(tmp_path):
    path = tmp_path / "folder"
    with stopped(HALF_A_FOLDER, str(path)) as other:
        with atomic_path(path) as partial:
            partial.mkdir()
            (partial / "mine").write_text("mine")
        assert went_on(other)[0] == 0
    assert names(path) == ["mine"]
    assert names(tmp_path) == ["folder"]


def test_a_folder_does_not_replace_a_file_nor_a_file_a_folder(tmp_path):
    write_text(tmp_path / "file", "precious")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/a").touch()
    with pytest.raises(NotADirectoryError), atomic_path(tmp_path / "file") as partial:
        partial.mkdir()
    with pytest.raises(IsADirectoryError):
        write_text(tmp_path / "folder", "text")
    assert (tmp_path / "file").read_text() == "precious"
    assert names(tmp_path) == ["file", "folder"]


def test_nothing_is_left_after_an_exception(tmp_path):
    def fail(partial: Path) -> None:
        (partial / "b").mkdir(parents=True)
        (partial / "b").write_text("a folder")

    with pytest.raises(IsADirectoryError), atomic_path(tmp_path / "a") as partial:
        fail(partial)
    assert names(tmp_path) == []


def test_each_call_has_a_name_of_its_own(tmp_path):
    with temporary_path(tmp_path / "a") as one, temporary_path(tmp_path / "a") as two:
        assert one != two
        assert ProcessId.parse(one.name.split(".")[1].rpartition("-")[0]) == ProcessId.current()


@pytest.mark.parametrize("reaped", [True, False])
@pytest.mark.parametrize("half", [HALF_A_FILE, HALF_A_FOLDER])
def test_the_next_writer_removes_what_a_killed_one_left_of_the_same_path(tmp_path, half, reaped):
    path = tmp_path / "a.h5"
    with stopped(half, str(path)) as other:
        (left,) = names(tmp_path)
        write_text(path, "mine")
        assert names(tmp_path) == ["a.h5", left], "a living process still writes it"
        killed(other, reaped)
        write_text(tmp_path / "a", "another path")
        assert names(tmp_path) == ["a", "a.h5", left]
        write_text(path, "mine")
        assert names(tmp_path) == ["a", "a.h5"]


def test_a_finished_stage_holds_nothing_of_killed_processes(tmp_path):
    stage = Stage(tmp_path / "stage", {})
    stage.begin()
    (stage.folder / "part").mkdir()
    with (
        stopped(HALF_A_FILE, str(stage.folder / "a")) as one,
        stopped(HALF_A_FOLDER, str(stage.folder / "part/b")) as two,
        stopped(HALF_A_FILE, str(stage.folder / "c")) as living,
    ):
        killed(one)
        killed(two)
        stage.finish()
        (left,) = (name for name in names(stage.folder) if name.endswith(".partial"))
        assert left.startswith("c.")
        assert names(stage.folder / "part") == []
        assert went_on(living)[0] == 0
    assert names(stage.folder) == ["c", "done.json", "part", "started.json"]


def test_what_another_machine_left_is_removed_after_a_day_by_the_file_systems_clock(tmp_path, monkeypatch):
    monkeypatch.setattr(time, "time", lambda: 1e12)
    file, folder = foreign(tmp_path / "a"), foreign(tmp_path / "b")
    file.touch()
    (folder / "inside").mkdir(parents=True)
    now = file.stat().st_mtime
    for path in (file, folder):
        os.utime(path, (0, now - ABANDONED_S + 60))
    remove_leftovers(tmp_path)
    assert names(tmp_path) == [file.name, folder.name]
    for path in (file, folder):
        os.utime(path, (0, now - ABANDONED_S - 60))
    remove_leftovers(tmp_path)
    assert names(tmp_path) == [folder.name], "something in the folder was touched today"
    os.utime(folder / "inside", (0, now - ABANDONED_S - 60))
    remove_leftovers(tmp_path)
    assert names(tmp_path) == []


def test_a_process_number_that_is_used_again_is_another_process(tmp_path):
    me = ProcessId.current()
    earlier = ProcessId(me.host, me.machine, me.pid, me.start - 1)
    unknown = ProcessId(me.host, me.machine, me.pid, 0)
    assert (me.is_gone(), earlier.is_gone(), unknown.is_gone()) == (False, True, False)
    mine = partial_path(tmp_path / "a")
    mine.touch()
    mine.with_name(mine.name.replace(me.name, earlier.name)).touch()
    remove_leftovers(tmp_path)
    assert names(tmp_path) == [mine.name]


def test_a_users_own_file_stays(tmp_path):
    for name in ("a.partial", "a.notes.partial", "a.b-c-d-e-00000000.partial"):
        (tmp_path / name).touch()
    write_text(tmp_path / "a", "text")
    remove_leftovers(tmp_path)
    assert len(names(tmp_path)) == 4


def test_temporary_names_are_made_in_one_module_and_no_stage_needs_flock():
    root = Path(__file__).resolve().parents[2]
    sources = {path: path.read_text() for path in [*root.glob("ffn/**/*.py"), *root.glob("envs/*.py")]}
    own_names = re.compile(r"\.partial[\"'{]|\.tmp[\"']|mkstemp|NamedTemporaryFile")
    assert [path.name for path, text in sources.items() if own_names.search(text)] == ["files.py"]
    # Training ranks lock the sign of life of each: how a rank ended is all that is lost without flock.
    assert [path.name for path, text in sources.items() if "fcntl" in text] == ["rollcall.py"]
