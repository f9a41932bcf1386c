"""Seed policies against their definitions, on volumes small enough to reason about."""

import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import ndimage
from skimage.feature import peak_local_max
from skimage.morphology import disk
from tiled import finished_tiles

from ffn.config import Inference
from ffn.config.seeds import SEED_POLICIES
from ffn.errors import DataError
from ffn.files import write_json
from ffn.geometry import Box
from ffn.inference.seeds import FineImage, SeedView, seed_policy
from ffn.prepare.seeds import coarse_seeds, peak_seeds

ONE = (1, 1, 1)


def tissue(shape: tuple[int, int, int], seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).standard_normal(shape)
    return np.tanh(40 * ndimage.gaussian_filter(noise, 3)).astype(np.float32)


def blobs(shape: tuple[int, int, int], seed: int) -> np.ndarray:
    return ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal(shape), 1.5) > 0.05


def view(image: Any, *, labels: Any = None, exclusion: Any = None, fov: tuple[int, int, int] = ONE, **more: Any):
    image = np.asarray(image, np.float32)
    labels = np.zeros(image.shape, np.uint32) if labels is None else np.asarray(labels, np.uint32)
    return SeedView(image, labels, exclusion, (1.0, 1.0, 1.0), fov, **more)


def seeds_of(policy: Any, seen: SeedView, **settings: Any) -> list[tuple[int, ...]]:
    (stage,) = seed_policy(Inference(seed_policy=policy, **settings)).stages
    found = stage(seen)
    assert found.dtype == np.int64
    assert found.shape == (len(found), 3)
    return [tuple(seed) for seed in found.tolist()]


def noisy(values: np.ndarray) -> np.ndarray:
    return values + np.random.RandomState(42).rand(*values.shape) * 1e-4


def as_tuples(found: Any) -> list[tuple[int, ...]]:
    return [tuple(int(n) for n in seed) for seed in found]


def dots(shape: tuple[int, int, int], **values: float) -> np.ndarray:
    """A dark volume with single bright voxels: `z1y2x3=5.0`."""
    image = np.zeros(shape, np.float32)
    for place, value in values.items():
        z, yx = place[1:].split("y")
        y, x = yx.split("x")
        image[int(z), int(y), int(x)] = value
    return image


def any_policy(name: str, folder: Path) -> dict[str, Any]:
    if name == "PolicyInvertOrigins":
        write_origins(folder, {1: (9, 10, 11), 2: (9, 14, 15), 3: (1, 1, 1)})
        return {"name": name, "folder": str(folder)}
    return {"name": name}


def write_origins(folder: Path, seeds: dict[int, tuple[int, int, int]], **settings: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    records = [{"id": number, "seed_zyx": seed, "fovs": 1, "voxels": 9} for number, seed in seeds.items()]
    (folder / "origins.json").write_text(json.dumps(records))
    if settings:
        (folder / "started.json").write_text(json.dumps({"hash": "", "settings": settings}))


# --- what holds for every policy -----------------------------------------------------------------------------------


@pytest.fixture
def busy() -> SeedView:
    """Something for each policy to find: tissue, of which some blobs are taken and a slab is excluded."""
    image = tissue((22, 30, 34))
    labels = blobs(image.shape, seed=8).astype(np.uint32) * 7
    exclusion = np.zeros(image.shape, bool)
    exclusion[:, 20:24] = True
    return view(image, labels=labels, exclusion=exclusion, fov=(3, 9, 5))


@pytest.mark.parametrize("name", SEED_POLICIES)
def test_seeds_have_room_and_are_neither_taken_nor_excluded(name, busy, tmp_path):
    found = np.array(seeds_of(any_policy(name, tmp_path), busy))
    assert len(found)
    margin = np.array([1, 4, 2])
    assert (found >= margin).all()
    assert (found + margin < np.array(busy.image.shape)).all()
    assert not busy.labels[tuple(found.T)].any()
    assert not busy.exclusion[tuple(found.T)].any()


@pytest.mark.parametrize("name", SEED_POLICIES)
def test_reversed_is_reversed(name, busy, tmp_path):
    policy = any_policy(name, tmp_path)
    forward = seeds_of(policy, busy)
    assert len(forward) > 1
    assert seeds_of({**policy, "reverse": True}, busy) == forward[::-1]
    assert seeds_of(policy, busy, reverse_seeds=True) == forward[::-1]
    assert seeds_of({**policy, "reverse": True}, busy, reverse_seeds=True) == forward


@pytest.mark.parametrize("name", SEED_POLICIES)
def test_a_volume_smaller_than_the_field_of_view_has_no_seeds(name, tmp_path):
    assert seeds_of(any_policy(name, tmp_path), view(tissue((6, 7, 8)), fov=(9, 9, 9))) == []


@pytest.mark.parametrize("name", SEED_POLICIES)
def test_policies_leave_what_they_see_as_it_is(name, busy, tmp_path):
    before = busy.image.copy(), busy.labels.copy(), busy.exclusion.copy()
    policy = any_policy(name, tmp_path)
    assert seeds_of(policy, busy) == seeds_of(policy, busy)
    for array, copy in zip((busy.image, busy.labels, busy.exclusion), before, strict=True):
        np.testing.assert_array_equal(array, copy)


@pytest.mark.parametrize("name", ["PolicyPeaks", "PolicyPeaks2d", "PolicyImagePeaks3D2D", "PolicyImagePeaks2DDisk"])
def test_a_flat_image_has_no_seeds(name):
    assert seeds_of(name, view(np.full((12, 20, 20), 0.5))) == []


def test_a_later_policy_sees_what_earlier_ones_left():
    policy = seed_policy(Inference(seed_policy=["PolicyGrid3d", "PolicyFillEmptySpace"]))
    grid, empty = policy.stages
    seen = view(np.zeros((20, 20, 20)))
    assert as_tuples(grid(seen))[:2] == [(0, 0, 0), (0, 0, 16)]
    # Two slabs are taken; of what is left between them the middle is farthest from both.
    labels = np.zeros(seen.labels.shape, np.uint32)
    labels[:8], labels[15:] = 1, 2
    found = empty(replace(seen, labels=labels))
    assert len(found)
    assert set(found[:, 0]) == {11}


# --- one by one ----------------------------------------------------------------------------------------------------


def test_peaks_are_those_of_the_preparation():
    image = tissue((30, 34, 38), seed=1)
    exclusion = np.zeros(image.shape, bool)
    exclusion[:, :, 20:] = True
    expected = as_tuples(peak_seeds(image, (5, 7, 9), (3.0, 1.0, 1.0), exclusion))
    seen = replace(view(image, exclusion=exclusion, fov=(5, 7, 9)), voxel_size=(30.0, 10.0, 10.0))
    assert len(expected) > 3
    assert seeds_of("PolicyPeaks", seen) == seeds_of("peaks", seen) == expected


def test_segments_are_no_edges_for_peaks():
    """A segment next to a seed takes voxels away, but does not push the seed away from itself as an edge would."""
    image = tissue((30, 34, 38), seed=1)
    without = seeds_of("PolicyPeaks", view(image))
    z, y, x = without[len(without) // 2]
    labels = np.zeros(image.shape, np.uint32)
    labels[z, y, x + 1 : x + 3] = 1
    assert (z, y, x) in seeds_of("PolicyPeaks", view(image, labels=labels))
    assert (z, y, x) not in seeds_of("PolicyPeaks", view(image, exclusion=labels > 0))


def peaks_by_definition(image: np.ndarray, taken: np.ndarray, excluded: np.ndarray) -> list[tuple[int, ...]]:
    gradient = np.sqrt(sum(ndimage.sobel(image, axis=axis) ** 2 for axis in range(3)))
    is_edge = (gradient > ndimage.gaussian_filter(gradient, 49 / 6)) | excluded
    distance = ndimage.distance_transform_edt(~is_edge).astype(np.float32)
    distance[taken | excluded] = -1
    return sorted(as_tuples(peak_local_max(noisy(distance), min_distance=3, threshold_abs=0, threshold_rel=0)))


def test_peaks_beside_segments_and_exclusions():
    image = tissue((30, 34, 38), seed=1)
    labels, exclusion = blobs(image.shape, seed=9), np.zeros(image.shape, bool)
    exclusion[10:14] = True
    expected = peaks_by_definition(image, labels, exclusion)
    assert set(expected) - set(peaks_by_definition(image, np.zeros_like(labels), exclusion))
    assert seeds_of("PolicyPeaks", view(image, labels=labels, exclusion=exclusion)) == expected


def test_peaks_of_the_stored_image_where_voxels_are_pooled():
    image = tissue((40, 44, 46), seed=2)
    factors, phase = (2, 2, 2), (1, 0, 1)
    coarse = np.zeros((21, 22, 24), np.float32)
    expected = as_tuples(coarse_seeds(image, factors, (3, 3, 3), (1.0, 1.0, 1.0), phase))
    seen = view(coarse, fov=(3, 3, 3), fine=FineImage(image, factors, phase))
    assert seeds_of("PolicyPeaks", seen) == expected
    labels, exclusion = blobs(coarse.shape, seed=9).astype(np.uint32), np.zeros(coarse.shape, bool)
    exclusion[:, :, 7:13] = True
    voxels = [(np.arange(n) + p) // f for n, p, f in zip(image.shape, phase, factors, strict=True)]
    taken, excluded = (mask[np.ix_(*voxels)] for mask in (labels > 0, exclusion))
    pooled = {tuple((np.array(seed) + phase) // factors) for seed in peaks_by_definition(image, taken, excluded)}
    expected = sorted(p for p in as_tuples(pooled) if all(1 <= a < n - 1 for a, n in zip(p, coarse.shape, strict=True)))
    assert len(expected) > 5
    assert seeds_of("PolicyPeaks", replace(seen, labels=labels, exclusion=exclusion)) == [
        p for p in expected if not labels[p] and not exclusion[p]
    ]


def test_peaks_of_pooled_voxels_follow_their_size():
    image = tissue((40, 44, 46), seed=2)
    pooled = np.zeros((40, 22, 23), np.float32)
    seen = replace(view(pooled, fine=FineImage(image, (1, 2, 2))), voxel_size=(3.0, 2.0, 2.0))
    assert seeds_of("PolicyPeaks", seen) == as_tuples(coarse_seeds(image, (1, 2, 2), ONE, (3.0, 1.0, 1.0)))


@pytest.mark.parametrize("order", ["ascending", "descending"])
def test_peaks_of_each_section(order):
    image = tissue((4, 60, 70), seed=3)
    exclusion = np.zeros(image.shape, bool)
    exclusion[:, :, 30:36] = True
    expected = []
    for z, section in enumerate(image):
        gradient = np.hypot(ndimage.sobel(section, 0), ndimage.sobel(section, 1))
        is_edge = (gradient > ndimage.gaussian_filter(gradient, 49 / 6)) | exclusion[z]
        distance = ndimage.distance_transform_edt(~is_edge).astype(np.float32)
        found = peak_local_max(noisy(distance), min_distance=3, threshold_abs=1.5, threshold_rel=0)
        expected += [(z, int(y), int(x)) for y, x in found]
    assert len(expected) > 10
    policy = {"name": "PolicyPeaks2d", "min_distance": 3, "threshold_abs": 1.5, "sort_cmp": order}
    assert seeds_of(policy, view(image, exclusion=exclusion)) == sorted(expected, reverse=order == "descending")


def test_empty_space_is_searched_for_its_middles():
    labels = blobs((20, 24, 28), seed=4).astype(np.uint32)
    distance = ndimage.distance_transform_edt(labels == 0).astype(np.float32)
    expected = sorted(as_tuples(peak_local_max(noisy(distance), min_distance=2, threshold_abs=0.5)))
    assert len(expected) > 5
    assert seeds_of("PolicyFillEmptySpace", view(np.zeros(labels.shape), labels=labels)) == expected


def test_there_is_no_middle_of_a_volume_without_segments():
    assert seeds_of("PolicyFillEmptySpace", view(tissue((12, 12, 12)))) == []


def test_brightest_voxel_first():
    image = np.array([[[1, 5, 3], [2, 5, 0]]])
    expected = [(0, 0, 1), (0, 1, 1), (0, 0, 2), (0, 1, 0), (0, 0, 0), (0, 1, 2)]
    assert seeds_of("PolicyMax", view(image)) == expected
    alike = (np.arange(1000) % 2).reshape(10, 10, 10)
    expected = as_tuples([*np.argwhere(alike == 1), *np.argwhere(alike == 0)])
    assert seeds_of("PolicyMax", view(alike)) == expected
    inner = tissue((8, 9, 10))
    found = seeds_of("PolicyMax", view(inner, fov=(5, 3, 1)))
    assert sorted(found) == [(z, y, x) for z in range(2, 6) for y in range(1, 8) for x in range(10)]
    values = [inner[seed] for seed in found]
    assert values == sorted(values, reverse=True)


def test_peaks_of_the_image():
    image = ndimage.gaussian_filter(np.random.default_rng(5).standard_normal((20, 22, 24)), 1).astype(np.float32)
    labels, exclusion = np.zeros(image.shape, np.uint32), np.zeros(image.shape, bool)
    labels[:10, :8], exclusion[:, :, 18:] = 3, True
    shown = np.where((labels > 0) | exclusion, 0, image).astype(np.float32)
    for threshold, relative in ((0, 0), (0.2, 0), (0, 0.4)):
        expected = peak_local_max(noisy(shown), min_distance=2, threshold_abs=threshold, threshold_rel=relative)
        expected = sorted(seed for seed in as_tuples(expected) if not labels[seed] and not exclusion[seed])
        policy = {
            "name": "PolicyMaxPeaks",
            "min_distance": 2,
            "threshold_abs": threshold,
            "threshold_rel": relative,
        }
        assert seeds_of(policy, view(image, labels=labels, exclusion=exclusion)) == expected
        assert len(expected) > 2


def test_bright_dots_are_peaks_from_three_voxels_on():
    image = dots((13, 9, 20), z4y4x5=2.0, z4y4x8=3.0, z4y4x13=1.0, z9y1x13=9.0)
    # The nearer of two dots is too near, the last one too near to a face.
    assert seeds_of("PolicyMaxPeaks", view(image - 0.5)) == [(4, 4, 8), (4, 4, 13)]


def test_image_peaks_in_the_volume_then_in_sections():
    image = dots((9, 11, 11), z4y5x5=3.0, z4y5x8=2.0, z5y2x2=1.0)
    sections = [(4, 5, 5), (4, 5, 8), (5, 2, 2)]
    assert seeds_of("PolicyImagePeaks3D2D", view(image)) == [(4, 5, 5), *sections]
    only = {"name": "PolicyImagePeaks3D2D", "min_distance_3d": None}
    assert seeds_of(only, view(image)) == sections
    only = {"name": "PolicyImagePeaks3D2D", "min_distance_2d": None}
    assert seeds_of(only, view(image)) == [(4, 5, 5)]
    assert seeds_of({**only, "min_distance_3d": None}, view(image)) == []


def test_image_peaks_in_a_disk():
    image = dots((2, 12, 12), z0y5x5=2.0, z0y6x6=1.5, z0y5x8=1.9, z0y8x4=0.9, z1y4x4=1.0)
    # Next to the brightest across the diagonal a dot is a peak of the disk, but nearer than three voxels.
    assert seeds_of("PolicyImagePeaks2DDisk", view(image)) == [(0, 5, 5), (0, 5, 8), (1, 4, 4)]
    # In a straight line these are more than four voxels apart.
    across = dots((1, 20, 20), z0y5x5=2.0, z0y8x8=1.5)
    policy = {"name": "PolicyImagePeaks2DDisk", "min_distance_2d": 4}
    assert seeds_of(policy, view(across)) == [(0, 5, 5), (0, 8, 8)]
    wide = tissue((5, 30, 30), seed=6)
    expected = [
        (z, int(y), int(x))
        for z, section in enumerate(wide)
        for y, x in peak_local_max(section, min_distance=4, p_norm=2, threshold_rel=0.3, footprint=disk(2))
    ]
    policy = {"name": "PolicyImagePeaks2DDisk", "min_distance_2d": 4, "threshold_rel": 0.3, "disk_radius": 2}
    assert seeds_of(policy, view(wide)) == expected
    assert len(expected) > 5


def test_grids():
    seen = view(np.zeros((5, 6, 9)))
    policy = {"name": "PolicyGrid3d", "step": 4, "offsets": [0, 3]}
    assert seeds_of(policy, seen) == [
        *[(z, y, x) for z in (0, 4) for y in (0, 4) for x in (0, 4, 8)],
        (3, 3, 3),
        (3, 3, 7),
    ]
    flat = view(np.zeros((2, 6, 9)))
    assert seeds_of({**policy, "name": "PolicyGrid2d"}, flat) == [
        *[(z, y, x) for z in (0, 1) for y in (0, 4) for x in (0, 4, 8)],
        *[(z, 3, x) for z in (0, 1) for x in (3, 7)],
    ]


@pytest.mark.parametrize(("name", "offsets"), [
    ("PolicyGrid3d", (0, 8, 4, 12, 2, 10, 14)),
    ("PolicyGrid2d", (0, 8, 4, 12, 2, 6, 10, 14)),
])  # fmt: skip
def test_grids_of_the_reference(name, offsets):
    shape = (20, 35, 19)
    expected = [
        (z, y, x)
        for start in offsets
        for z in (range(start, 20, 16) if name == "PolicyGrid3d" else range(20))
        for y in range(start, 35, 16)
        for x in range(start, 19, 16)
    ]
    assert seeds_of(name, view(np.zeros(shape))) == expected


def test_dense_seeds():
    image = tissue((9, 10, 11), seed=7)
    for threshold, invert, erosions in ((0.5, False, 0), (0.1, True, 0), (-0.5, False, 2)):
        expected = (image > threshold) != invert
        for _ in range(erosions):
            around = np.pad(expected, 1, constant_values=True)
            for axis, step in itertools.product(range(3), (-1, 1)):
                expected = expected & np.roll(around, step, axis)[1:-1, 1:-1, 1:-1]
        policy = {"name": "PolicyDenseSeeds", "threshold": threshold, "invert": invert, "num_erosions": erosions}
        assert seeds_of(policy, view(image)) == as_tuples(np.argwhere(expected))
        assert 0 < expected.sum() < image.size
    cube = np.zeros((5, 5, 5))
    cube[1:4, 1:4, 1:4] = 1
    assert seeds_of({"name": "PolicyDenseSeeds", "num_erosions": 1}, view(cube)) == [(2, 2, 2)]


# --- seeds of an earlier run ---------------------------------------------------------------------------------------


def test_origins_in_descending_order_of_ids(tmp_path):
    write_origins(tmp_path, {2: (5, 6, 7), 10: (1, 2, 3), 1: (4, 4, 4)})
    policy = {"name": "PolicyInvertOrigins", "folder": str(tmp_path)}
    assert seeds_of(policy, view(np.zeros((9, 9, 9)))) == [(1, 2, 3), (5, 6, 7), (4, 4, 4)]
    write_origins(tmp_path, {})
    assert seeds_of(policy, view(np.zeros((9, 9, 9)))) == []


def test_segments_that_were_given_have_no_origin(tmp_path):
    write_origins(tmp_path, {2: (4, 4, 4), 3: (5, 6, 7)})
    grown = json.loads((tmp_path / "origins.json").read_text())
    (tmp_path / "origins.json").write_text(json.dumps([{"id": 1, "given": 90, "voxels": 8}, *grown]))
    policy = {"name": "PolicyInvertOrigins", "folder": str(tmp_path)}
    assert seeds_of(policy, view(np.zeros((9, 9, 9)))) == [(5, 6, 7), (4, 4, 4)]


def test_origins_in_pooled_voxels_keep_their_order(tmp_path):
    write_origins(tmp_path, {1: (1, 1, 1), 2: (5, 6, 7), 3: (2, 3, 2)})
    policy = {"name": "PolicyInvertOrigins", "folder": str(tmp_path)}
    fine = FineImage(np.zeros((9, 9, 9), np.float32), (2, 2, 2), (1, 0, 0))
    assert seeds_of(policy, view(np.zeros((5, 5, 5)), fine=fine)) == [(1, 1, 1), (3, 3, 3), (1, 0, 0)]


def test_origins_of_the_same_sub_volume_and_pass(tmp_path):
    boxes = [Box((0, 0, 0), (9, 9, 9)), Box((5, 0, 0), (14, 9, 9))]
    pieces = [np.ones(box.shape, np.uint64) for box in boxes]
    for number in (0, 1):

        def begun(index, folder, number=number):
            write_json(folder / "origins.json", [{"id": 1, "seed_zyx": (index, 2, number)}])

        finished_tiles(tmp_path, boxes, pieces, before=begun, number=number, leaves_out=[0] if number else [])
    policy = {"name": "PolicyInvertOrigins", "folder": str(tmp_path)}
    seen = [view(np.zeros((9, 9, 9)), box=box) for box in boxes]
    assert seeds_of(policy, seen[0]) == [(0, 2, 0)]
    assert seeds_of(policy, seen[1]) == [(1, 2, 0)]
    assert seeds_of({**policy, "pass_number": 1}, seen[1]) == [(1, 2, 1)]
    with pytest.raises(DataError, match=r"pass 1 in .* has 1 sub-volumes, none of them with the box 0:9,0:9,0:9"):
        seeds_of({**policy, "pass_number": 1}, seen[0])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "there is no folder"),
        ("[", "does not list segments"),
        ('{"id": 1}', "does not list segments"),
        ('[{"id": 1, "voxels": 4}]', "not of a consensus"),
        ('[{"id": 1, "seed_zyx": [1, 2]}, {"id": 2, "seed_zyx": [1, 2, 3]}]', "does not list segments"),
        ('[{"id": 1, "seed_zyx": [1, 2]}]', "does not list segments"),
    ],
)
def test_origins_that_are_none(tmp_path, content, words):
    folder = tmp_path / "earlier"
    if content is not None:
        folder.mkdir()
        (folder / "origins.json").write_text(content)
    with pytest.raises(DataError, match=words):
        seeds_of({"name": "PolicyInvertOrigins", "folder": str(folder)}, view(np.zeros((9, 9, 9))))
