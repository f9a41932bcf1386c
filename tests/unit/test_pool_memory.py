"""How many units a machine does at once where each takes much memory, and how many threads each of them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from ffn.blockwise import Pool, Result, Task, library_threads
from ffn.blockwise.pool import usable_memory


class Heavy(Task):
    name = "heavy"

    def __init__(self, unit_bytes: int) -> None:
        self.unit_bytes = unit_bytes

    def __len__(self) -> int:
        return 4

    def run(self, unit: int) -> Result:
        return Result(facts={"threads": library_threads()})


@pytest.mark.parametrize(("share", "at_once"), [(2.0, 1), (0.7, 1), (0.3, 2), (0.0, 2)])
def test_as_many_units_at_once_as_fit_into_memory(share, at_once):
    begun: list[int] = []

    def units() -> Iterator[int]:
        for unit in range(4):
            begun.append(unit)
            yield unit

    under_way = []
    with Pool(2) as pool:
        for ended, (_, result) in enumerate(pool.results(Heavy(int(usable_memory() * share)), units())):
            under_way.append(len(begun) - ended)
            assert result.facts == {"threads": 1}
    assert max(under_way) == at_once
    assert begun == [0, 1, 2, 3]


def test_a_process_that_is_no_worker_has_all_cores():
    assert library_threads() == 0


def test_memory_is_that_of_the_machine_at_most():
    there = int(Path("/proc/meminfo").read_text().split()[1]) * 1024
    assert 0 < usable_memory() <= there * 1.1
