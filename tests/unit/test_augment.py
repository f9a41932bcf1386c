"""Every augmentation does what its definition says, and nothing else."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from scipy import ndimage

from ffn.config import Augmentation
from ffn.geometry import Box
from ffn.training.augment import Augmenter
from ffn.training.augment.misalignment import Misalignment
from ffn.training.augment.sections import lose_sections
from ffn.training.region import TrainingRegion
from ffn.volumes import open_volume

SHAPE = (21, 40, 44)
BOX = Box.centred((10, 20, 22), (15, 17, 19))
NUMBERS = range(40)


@pytest.fixture(scope="module")
def regions(tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainingRegion, TrainingRegion]:
    """An image of smooth grey values, and labels that are all different."""
    path = tmp_path_factory.mktemp("augment") / "volume.h5"
    smooth = ndimage.gaussian_filter(np.random.default_rng(2).normal(0, 1, SHAPE), 1.5)
    with h5py.File(path, "w") as file:
        file["image"] = (128 + 60 * smooth / np.abs(smooth).max()).astype(np.uint8)
        file["labels"] = np.arange(1, np.prod(SHAPE) + 1, dtype=np.uint64).reshape(SHAPE)
    return TrainingRegion(open_volume(f"{path}:image")), TrainingRegion(open_volume(f"{path}:labels"))


Regions = tuple[TrainingRegion, TrainingRegion]


def cut(regions: Regions, number: int, box: Box = BOX, seed: int = 1, **settings: Any) -> tuple[np.ndarray, np.ndarray]:
    return Augmenter(Augmentation(**settings), seed).cut(*regions, box, number)


def of_image(regions: Regions, **settings: Any) -> list[np.ndarray]:
    """The images of many examples, all labels of which are those of the volume."""
    found = []
    for number in NUMBERS:
        image, labels = cut(regions, number, **settings)
        np.testing.assert_array_equal(labels, regions[1].read(BOX))
        found.append(image)
    return found


def changed_sections(regions: Regions, image: np.ndarray) -> list[int]:
    return np.flatnonzero((image != regions[0].read(BOX)).any(axis=(1, 2))).tolist()


def test_nothing_happens_by_default(regions: Regions) -> None:
    for image in of_image(regions):
        np.testing.assert_array_equal(image, regions[0].read(BOX))
        assert image.dtype == np.uint8


ALL = ["brightness", "contrast", "gamma", "missing_section", "out_of_focus", "misalignment", "elastic"]


@pytest.mark.parametrize("name", ALL)
def test_happens_to_the_given_part_of_the_examples(regions: Regions, name: str) -> None:
    original = regions[0].read(BOX)
    changed = [not np.array_equal(cut(regions, number, **{name: 0.3})[0], original) for number in range(250)]
    certain = [not np.array_equal(cut(regions, number, **{name: 1.0})[0], original) for number in range(250)]
    # A shift by nothing, quadrants of which none is hit: what happens does not always show.
    assert np.mean(changed) == pytest.approx(0.3 * np.mean(certain), abs=0.08)
    assert np.mean(certain) > 0.8


def test_is_a_pure_function_of_seed_and_number(regions: Regions) -> None:
    everything = dict.fromkeys(ALL, 0.7)
    forwards = [cut(regions, number, **everything) for number in NUMBERS]
    backwards = [cut(regions, number, **everything) for number in reversed(NUMBERS)][::-1]
    others = [cut(regions, number, seed=2, **everything) for number in NUMBERS]
    for one, same in zip(forwards, backwards, strict=True):
        np.testing.assert_array_equal(one[0], same[0])
        np.testing.assert_array_equal(one[1], same[1])
    assert sum(np.array_equal(one[0], other[0]) for one, other in zip(forwards, others, strict=True)) < 3


def test_one_does_not_change_the_draws_of_another(regions: Regions) -> None:
    for number in range(20):
        _, alone = cut(regions, number, misalignment=1.0)
        _, labels = cut(regions, number, **dict.fromkeys(ALL, 1.0))
        np.testing.assert_array_equal(alone, labels)
        lost = {"missing_section": 1.0, "whole_section": 1.0, "section_fraction": 0.3}
        still = cut(regions, number, misalignment=1.0, elastic=1.0, **lost)[0]
        assert all(np.ptp(still[z]) == 0 for z in changed_sections(regions, cut(regions, number, **lost)[0]))


class TestMisalignment:
    def test_image_and_labels_move_together_to_what_lies_there(self, regions: Regions) -> None:
        whole = regions[1].read(Box.of_shape(SHAPE))
        grey = regions[0].read(Box.of_shape(SHAPE))
        z, y, x = BOX.start
        moves, kinds = set(), set()
        for number in range(120):
            image, labels = cut(regions, number, misalignment=1.0, misalignment_shift=3)
            shifts = []
            for section in range(15):
                # All labels differ, so the first says how far its section has moved.
                at = np.argwhere(whole == labels[section, 0, 0])[0]
                assert at[0] == z + section
                dy, dx = at[1] - y, at[2] - x
                there = np.s_[z + section, y + dy : y + dy + 17, x + dx : x + dx + 19]
                np.testing.assert_array_equal(labels[section], whole[there])
                np.testing.assert_array_equal(image[section], grey[there])
                shifts.append((int(dy), int(dx)))
            assert shifts[7] == (0, 0)
            assert len(set(shifts)) <= 2
            moved = [shift != (0, 0) for shift in shifts]
            moves |= set(shifts)
            changes = sum(a != b for a, b in pairwise(moved))
            kinds.add((changes, sum(moved)))
        assert {dy for dy, _ in moves} == {dx for _, dx in moves} == {-3, -2, -1, 0, 1, 2, 3}
        assert {changes for changes, _ in kinds} == {0, 1, 2}
        # One section alone, or all but that of the centre.
        assert {count for changes, count in kinds if changes == 2} <= {1, 14}

    def test_slip_is_one_section_and_its_absence_all_from_there_on(self) -> None:
        random = np.random.default_rng(0)
        for _ in range(200):
            assert len(Misalignment.draw(random, 15, 3, slip=1.0).shifted) in (1, 14)
            shifted = Misalignment.draw(random, 15, 3, slip=0.0).shifted
            # From above the centre to the end, or from the start to below it.
            assert shifted in (
                *(tuple(range(first, 15)) for first in range(8, 15)),
                *(tuple(range(n)) for n in range(8)),
            )

    def test_the_border_of_the_volume_is_repeated(self, regions: Regions) -> None:
        padded = np.pad(regions[1].read(Box.of_shape(SHAPE)), ((0, 0), (6, 6), (6, 6)), mode="edge")
        box = Box((3, 0, 25), (18, 17, 44))
        for number in range(30):
            shift = Misalignment(-4, 5, (2, 3)) if number == 0 else Misalignment.draw(_random(number), 15, 6, 0.5)
            labels = shift.apply(regions[1].read_padded(shift.reach(box)))
            for section in range(15):
                dy, dx = (shift.dy, shift.dx) if section in shift.shifted else (0, 0)
                expected = padded[3 + section, 6 + dy : 23 + dy, 31 + dx : 50 + dx]
                np.testing.assert_array_equal(labels[section], expected)

    def test_equals_rolling_the_sections_of_a_larger_patch(self, regions: Regions) -> None:
        """The published definition: pad, roll all sections from one on, cut the middle out."""
        wide = regions[1].read(Box(tuple(a - (0, 3, 3)[i] for i, a in enumerate(BOX.start)), _wider(BOX.stop)))
        shift = Misalignment(2, -3, tuple(range(9, 15)))
        wide = wide.copy()
        wide[9:] = np.roll(wide[9:], (-2, 3), (1, 2))
        np.testing.assert_array_equal(shift.apply(regions[1].read(shift.reach(BOX))), wide[:, 3:-3, 3:-3])


def _wider(stop: tuple[int, int, int]) -> tuple[int, int, int]:
    return stop[0], stop[1] + 3, stop[2] + 3


def _random(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


class TestSections:
    def test_missing_ones_have_one_grey_value_each(self, regions: Regions) -> None:
        original, counts = regions[0].read(BOX), []
        for image in of_image(regions, missing_section=1.0, section_fraction=0.3):
            sections = changed_sections(regions, image)
            counts.append(len(sections))
            for z in sections:
                (value,) = np.unique(image[z][image[z] != original[z]])
                assert 0 <= value < 256
        assert set(counts) <= {0, 1, 2, 3, 4}
        assert max(counts) == 4

    def test_a_part_of_a_section_is_made_of_quadrants_around_a_point(self) -> None:
        kinds = set()
        for seed in range(60):
            image = np.full((1, 9, 8), -1, np.float32)
            lose_sections(image, np.random.default_rng(seed), fraction=1.0, whole=0.0)
            mask = image[0] != -1
            for lines in (mask, mask.T):
                assert sum(not np.array_equal(a, b) for a, b in pairwise(lines)) <= 1
            kinds.add("none" if not mask.any() else "all" if mask.all() else "some")
        assert kinds == {"none", "some", "all"}

    def test_at_least_one_section_is_hit_as_a_whole(self, regions: Regions) -> None:
        for image in of_image(regions, missing_section=1.0, section_fraction=0.0, whole_section=1.0):
            (section,) = changed_sections(regions, image)
            assert np.ptp(image[section]) == 0

    def test_blurred_ones_are_smoother_and_the_others_as_they_were(self, regions: Regions) -> None:
        original = regions[0].read(BOX).astype(np.float32)
        settings = {"out_of_focus": 1.0, "section_fraction": 0.0, "whole_section": 1.0, "out_of_focus_sigma": 3.0}
        sigmas = []
        for image in of_image(regions, **settings):
            for section in changed_sections(regions, image):
                candidates = np.linspace(0.05, 3.0, 40)
                errors = [
                    np.abs(ndimage.gaussian_filter(original[section], s) - image[section]).max() for s in candidates
                ]
                assert min(errors) < 2.0
                sigmas.append(candidates[int(np.argmin(errors))])
        assert min(sigmas) < 0.8
        assert max(sigmas) > 2.0

    def test_parts_of_a_blurred_section_stay_sharp(self, regions: Regions) -> None:
        original, kept = regions[0].read(BOX), 0
        for image in of_image(regions, out_of_focus=1.0, section_fraction=0.0, whole_section=0.0):
            for section in changed_sections(regions, image):
                same = image[section] == original[section]
                kept += any(same[y, x] and part.all() for y, x, part in _corners(same))
        assert kept > 5


def _corners(mask: np.ndarray) -> list[tuple[int, int, np.ndarray]]:
    """The four corner voxels, and a 2 x 2 neighbourhood of each."""
    return [(y, x, mask[y : y + 2 or None, x : x + 2 or None]) for y in (0, -2) for x in (0, -2)]


class TestElastic:
    def test_bends_within_sections_only(self, tmp_path: Path) -> None:
        with h5py.File(tmp_path / "v.h5", "w") as file:
            file["z"] = np.broadcast_to(np.arange(SHAPE[0], dtype=np.uint8)[:, None, None], SHAPE)
        layers = TrainingRegion(open_volume(f"{tmp_path}/v.h5:z"))
        image, _ = cut((layers, layers), 3, elastic=1.0, elastic_displacement=2.0)
        np.testing.assert_allclose(image, layers.read(BOX), atol=1e-4)

    def test_moves_by_a_smooth_field_of_the_given_size(self, tmp_path: Path) -> None:
        with h5py.File(tmp_path / "v.h5", "w") as file:
            file["x"] = np.broadcast_to(4 * np.arange(SHAPE[2], dtype=np.uint8), SHAPE)
        ramp = TrainingRegion(open_volume(f"{tmp_path}/v.h5:x"))
        original = ramp.read(BOX).astype(np.float32)
        inner = np.s_[:, :, 5:-5]
        moved = []
        for number in range(60):
            image, labels = cut((ramp, ramp), number, elastic=1.0, elastic_displacement=1.0, elastic_spacing=6.0)
            np.testing.assert_array_equal(labels, ramp.read(BOX))
            move = (image - original)[inner] / 4
            moved.append(move)
        assert all(np.std(np.diff(moved, axis=axis)) < 0.5 * np.std(moved) for axis in (1, 2, 3))
        # Between the control points a spline of independent moves is smaller than at them.
        assert 0.5 < np.std(moved) < 1.1
        assert abs(np.mean(moved)) < 0.1

    def test_no_displacement_changes_nothing(self, regions: Regions) -> None:
        for image in of_image(regions, elastic=1.0, elastic_displacement=0.0):
            np.testing.assert_allclose(image, regions[0].read(BOX), atol=1e-3)


class TestGrey:
    @pytest.mark.parametrize("per_section", [0.0, 1.0])
    def test_each_changes_as_its_formula_says(self, regions: Regions, per_section: float) -> None:
        original = regions[0].read(BOX).astype(np.float64)
        measures = {
            "contrast": lambda image: image / original,
            "brightness": lambda image: (image - original) / 255,
            "gamma": lambda image: np.log2(np.log(image / 255) / np.log(original / 255)),
        }
        limits = {"contrast": (0.85, 1.15), "brightness": (-0.15, 0.15), "gamma": (-1, 1)}
        for name, measure in measures.items():
            lowest, highest = limits[name]
            drawn = []
            for image in of_image(regions, **{name: 1.0}, per_section=per_section):
                values = measure(image.astype(np.float64)).reshape(15, -1)
                np.testing.assert_allclose(values, values[:, :1] + np.zeros_like(values), atol=1e-4)
                assert np.ptp(values[:, 0]) > 0.1 * (highest - lowest) if per_section else np.ptp(values) < 2e-4
                drawn.append(values[0, 0])
            assert lowest - 1e-4 <= min(drawn) < lowest + 0.2 * (highest - lowest)
            assert highest - 0.2 * (highest - lowest) < max(drawn) <= highest + 1e-4

    def test_grey_values_stay_in_their_range(self, regions: Regions) -> None:
        strong = {"brightness": 1.0, "brightness_change": 1.0, "contrast": 1.0, "contrast_change": 1.0, "gamma": 1.0}
        images = of_image(regions, **strong)
        assert min(image.min() for image in images) == 0
        assert max(image.max() for image in images) == pytest.approx(255, abs=1e-3)
        assert all(np.isfinite(image).all() for image in images)

    def test_half_of_the_examples_change_section_by_section(self, regions: Regions) -> None:
        original = regions[0].read(BOX).astype(np.float32)
        several = [np.ptp((image - original)[:, 0, 0]) > 0.01 for image in of_image(regions, brightness=1.0)]
        assert 8 < sum(several) < 32
