import pytest

from ffn.config import Config, Training, parse_config
from ffn.training.layout import History, Layout


def config_of(allreduce: dict | None = None, **training) -> Config:
    region = {"image": "synthetic", "labels": "synthetic"}
    return parse_config(
        {"run": "a", "data": {"train": region, "test": region}, "training": training, "allreduce": allreduce or {}}
    )


LINEAR = config_of(steps=100, learning_rate=0.1, rate_scaling="linear", accumulate=2)


def test_lanes_and_workers() -> None:
    layout = Layout.of(Training(virtual_workers=3, batch=4), 2)
    assert (layout.workers, layout.lanes_per_rank, layout.lanes) == (6, 12, 24)


def test_a_change_is_told_with_workers_batch_and_rate() -> None:
    text = Layout(2, 1, 4).change_to(Layout(1, 1, 4), LINEAR, 50)
    assert text.startswith("The run changes after step 50: 2 -> 1 ranks x 1 virtual workers x batch 4, workers 2 -> 1,")
    assert "fields of view per update 16 -> 8, rate 0.2 -> 0.1" in text
    assert "4 lanes go on with their examples, 4 leave their examples unfinished" in text
    assert "4 begin with examples not seen yet" in Layout(1, 1, 4).change_to(Layout(2, 1, 4), LINEAR, 50)


def test_the_same_workers_on_other_ranks_are_the_same_training() -> None:
    assert Layout(2, 1, 4).same_training(Layout(1, 2, 4), LINEAR)
    assert "goes on as before" in Layout(2, 1, 4).change_to(Layout(1, 2, 4), LINEAR, 50)
    assert not Layout(2, 1, 4).same_training(Layout(1, 1, 8), LINEAR)  # half the rate
    assert "at another rate" in Layout(2, 1, 4).change_to(Layout(1, 1, 8), LINEAR, 50)
    assert Layout(2, 1, 4).same_training(Layout(1, 1, 8), config_of())


def test_adasum_does_not_treat_ranks_as_parts_of_a_batch() -> None:
    adasum = config_of({"operation": "adasum"})
    assert not Layout(2, 1, 4).same_training(Layout(1, 1, 8), adasum)
    assert "Adasum combines other ranks" in Layout(2, 1, 4).change_to(Layout(1, 1, 8), adasum, 50)


def test_history_counts_what_the_lanes_have_seen() -> None:
    history = History.begin(Layout(2, 1, 1)).then(10, Layout(2, 1, 1)).then(10, Layout(4, 1, 1))
    assert [step for step, _ in history.parts] == [0, 10]
    assert history.lane_steps(10) == 20
    assert history.lane_steps(15) == 20 + 20
    again = history.then(10, Layout(1, 1, 3))  # the checkpoint of step 10 is taken up a second time
    assert [step for step, _ in again.parts] == [0, 10]
    assert again.lane_steps(11) == 23
    assert History.read(again.as_json()) == again


@pytest.mark.parametrize("records", [[{"step": 0}], [{}], ["?"]])
def test_a_history_of_something_else_is_noticed(records: list) -> None:
    with pytest.raises((KeyError, TypeError)):
        History.read(records)
