from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny_training import config_of, settings, split

from ffn.config import parse_config
from ffn.model.logits import logit
from ffn.prepare.run import prepare_training
from ffn.training.examples import Example, ExampleSource, LaneStream
from ffn.training.lanes import Lane, Lanes
from ffn.training.metrics import Tally


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    prepare_training(parse_config(settings(folder)))
    return folder


@pytest.fixture
def reader() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


def imagined_network(image: np.ndarray, object_map: np.ndarray) -> np.ndarray:
    """Something that moves: bright voxels join the object."""
    return np.clip(object_map + np.float32(3) * image + np.float32(3), -6, 6).astype(np.float32)


def feed(lanes: list[Lanes], turns: int, tally: Tally) -> list[np.ndarray]:
    """What the lanes of all ranks, in order, see at each turn."""
    seen = []
    for _ in range(turns):
        turn = []
        for rank in lanes:
            for batch in rank.batches(tally):
                turn.append(np.concatenate([batch.image, batch.object_map, batch.labels], axis=-1))
                rank.update(imagined_network(batch.image, batch.object_map))
        seen.append(np.concatenate(turn))
    return seen


@pytest.mark.parametrize("moves", ["fixed", "max_pred_moves", "no_step"])
def test_two_ranks_see_the_examples_of_one_rank_with_twice_the_batch(
    folder: Path, reader: ThreadPoolExecutor, moves: str
) -> None:
    wide, narrow = config_of(folder, batch=2, moves=moves), config_of(folder, batch=1, moves=moves)
    one, two = Tally(), Tally()
    single = feed([Lanes.of(wide, ExampleSource(wide), 0, 1, reader)], 60, one)
    pair = [Lanes.of(narrow, ExampleSource(narrow), rank, 2, reader) for rank in (0, 1)]
    for a, b in zip(single, feed(pair, 60, two), strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(one.values, two.values)
    assert one["true_positive"] > 0


def test_an_example_without_numbers_is_left_at_once_whatever_the_answer(
    folder: Path, reader: ThreadPoolExecutor
) -> None:
    """Fused kernels may answer it with numbers."""

    class Broken(ExampleSource):
        def load(self, lane: LaneStream, index: int) -> Example:
            example = super().load(lane, index)
            return replace(example, image=np.full_like(example.image, np.nan)) if index == 0 else example

    config, tally = config_of(folder), Tally()
    lane = Lane(config, Broken(config), LaneStream(0, 1), reader)
    assert np.isnan(lane.crops(tally)[0]).all()
    lane.update(np.full(config.network.fov, 6, np.float32))
    assert int(lane.state()["number"]) > 0
    assert np.isfinite(lane.crops(tally)[0]).all()


def test_lanes_advance_independently_and_start_from_the_seed(folder: Path, reader: ThreadPoolExecutor) -> None:
    config = config_of(folder, batch=3)
    seen = feed([Lanes.of(config, ExampleSource(config), 0, 1, reader)], 80, Tally())
    fresh = np.full((9, 9, 9), logit(0.05), np.float32)
    fresh[4, 4, 4] = logit(0.95)
    starts = [
        [turn for turn, batch in enumerate(seen) if np.array_equal(batch[lane, ..., 1], fresh)] for lane in range(3)
    ]
    assert all(turns[0] == 0 and len(turns) > 1 for turns in starts)
    assert starts[0] != starts[1] != starts[2]


def test_the_answer_is_what_the_next_crop_shows(folder: Path, reader: ThreadPoolExecutor) -> None:
    config = config_of(folder, batch=1)
    lanes, tally = Lanes.of(config, ExampleSource(config), 0, 1, reader), Tally()
    list(lanes.batches(tally))
    answer = np.full((1, 9, 9, 9, 1), logit(0.95), np.float32)
    lanes.update(answer)
    (batch,) = lanes.batches(tally)  # offset (-2, -2, -2): its upper corner overlaps the first field of view
    np.testing.assert_array_equal(batch.object_map[0, 2:, 2:, 2:, 0], answer[0, :7, :7, :7, 0])
    assert np.all(batch.object_map[0, :2, ..., 0] == logit(0.05))


@pytest.mark.parametrize("microbatch", [1, 2, 4, 5])
def test_virtual_workers_see_the_examples_of_real_ones_in_parts_of_any_size(
    folder: Path, reader: ThreadPoolExecutor, microbatch: int
) -> None:
    virtual = config_of(folder, virtual_workers=3, batch=2, microbatch=microbatch)
    real = config_of(folder, batch=2)
    one, three = Tally(), Tally()
    single = feed([Lanes.of(virtual, ExampleSource(virtual), 0, 1, reader)], 40, one)
    ranks = [Lanes.of(real, ExampleSource(real), rank, 3, reader) for rank in range(3)]
    for a, b in zip(single, feed(ranks, 40, three), strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(one.values, three.values)


@pytest.mark.parametrize("moves", ["fixed", "max_pred_moves"])
def test_restored_lanes_go_on_as_the_originals(folder: Path, reader: ThreadPoolExecutor, moves: str) -> None:
    config = config_of(folder, batch=2, moves=moves)
    original, restored = (Lanes.of(config, ExampleSource(config), 0, 1, reader) for _ in range(2))
    feed([original], 17, Tally())
    restored.restore(original.state())
    for a, b in zip(feed([original], 40, Tally()), feed([restored], 40, Tally()), strict=True):
        np.testing.assert_array_equal(a, b)


def test_lanes_work_through_validation_examples(folder: Path, reader: ThreadPoolExecutor) -> None:
    config = split(folder)
    prepare_training(config)
    source = ExampleSource.for_validation(config)
    streams = [LaneStream(lane, 2) for lane in range(2)]
    lanes = Lanes([Lane(config, source, stream, reader) for stream in streams], config.network.fov, microbatch=2)
    tally = Tally()
    feed([lanes], 30, tally)
    assert tally["true_positive"] > 0
