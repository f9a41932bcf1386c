"""Many flood fills on one network."""

import numpy as np
import pytest
from flooding import Batches, SmallNetwork, blobs, flooded, options

from ffn.inference.canvas import Canvas
from ffn.inference.drive import drive
from ffn.inference.state import restore_state, save_state


def seeds_of(number, shape):
    return np.random.default_rng(number).integers(0, shape, (60, 3))


@pytest.mark.parametrize(("batch_size", "concurrent"), [(1, 1), (1, 4), (3, 2), (3, 5), (8, 16)])
def test_labels_do_not_depend_on_batches(batch_size, concurrent):
    images = [blobs(number) for number in range(5)]
    canvases = [Canvas(image, options()) for image in images]
    floods = [canvas.segment_all(seeds_of(n, canvas.image.shape)) for n, canvas in enumerate(canvases)]
    network = Batches(SmallNetwork(2), batch_size)
    drive(floods, network, concurrent)
    total = 0
    for number, (image, canvas) in enumerate(zip(images, canvases, strict=True)):
        alone = flooded(image, options(), seeds_of(number, image.shape), SmallNetwork(2))
        total += alone.counters["segments"]
        np.testing.assert_array_equal(canvas.finished_labels(), alone.finished_labels())
        assert canvas.counters == alone.counters
    assert total > 5
    assert max(network.sizes) == min(batch_size, concurrent, len(floods))


def counted(count, log, number):
    """A flood of `count` looks that notes when it begins and ends."""
    log.append(("began", number))
    for _ in range(count):
        yield np.zeros((1, 1, 1)), np.zeros((1, 1, 1))
    log.append(("ended", number))


class Doubled:
    """Counts how many batches are under way."""

    def __init__(self, batch_size):
        self.batch_size, self.sizes, self.flying, self.most = batch_size, [], 0, 0

    def start(self, looks):
        self.sizes.append(len(looks))
        self.flying += 1
        self.most = max(self.most, self.flying)

        def answers():
            self.flying -= 1
            return [image for image, _ in looks]

        return answers


def test_batches_are_full_and_two_are_under_way_while_there_is_work():
    network = Doubled(4)
    drive((counted(10, [], number) for number in range(8)), network, concurrent=8)
    assert network.sizes == [4] * 20
    assert network.most == 2


def test_floods_begin_when_there_is_room():
    log = []
    drive((counted(2, log, number) for number in range(6)), Doubled(2), concurrent=2)
    running = most = 0
    for event, _ in log:
        running += 1 if event == "began" else -1
        most = max(most, running)
    assert most == 2
    assert [number for event, number in log if event == "began"] == list(range(6))


def test_floods_without_any_look():
    log = []
    drive((counted(0, log, number) for number in range(3)), Doubled(2), concurrent=2)
    assert [event for event, _ in log] == ["began", "ended"] * 3


@pytest.mark.parametrize(("min_unseen", "compared"), [(0.0, 1), (0.05, 1), (0.3, 4)])
def test_a_state_saved_at_any_look_continues_to_the_same_labels(tmp_path, min_unseen, compared):
    image, network = blobs(3), SmallNetwork(3)
    chosen = options(min_unseen=min_unseen, min_unseen_at_faces=min_unseen / 3, offers_compared=compared)
    seeds = seeds_of(3, image.shape)
    whole = flooded(image, chosen, seeds, network)
    canvas, places = Canvas(image, chosen), np.random.default_rng(0).choice(whole.counters["fovs"], 12)
    flood = canvas.segment_all(seeds)
    look, number = next(flood), 0
    while look is not None:
        if number in places:
            save_state(tmp_path / f"{number}.npz", canvas, seeds)
        number += 1
        try:
            look = flood.send(network(look.image.copy(), look.object_map.copy()))
        except StopIteration:
            look = None
    for place in set(places.tolist()):
        resumed = Canvas(image, chosen)
        _, again = restore_state(tmp_path / f"{place}.npz", resumed)
        drive([resumed.segment_all(again)], Batches(network))
        np.testing.assert_array_equal(resumed.finished_labels(), whole.finished_labels())
        assert resumed.segments == whole.segments
        assert resumed.counters == whole.counters
