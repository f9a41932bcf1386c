"""Defects of single sections of the image: missing ones, and ones out of focus. Images are float32 zyx, 0 to 255."""

from collections.abc import Iterator
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Part = tuple[slice, slice]


def lose_sections(image: NDArray[np.float32], random: np.random.Generator, fraction: float, whole: float) -> None:
    """Give some sections one grey value each, over all of it (probability `whole`) or over some quadrants; in place."""
    for section in _chosen(image, random, fraction):
        value = random.uniform(0, 256)
        for part in _parts(section, random, whole):
            section[part] = value


def blur_sections(
    image: NDArray[np.float32], random: np.random.Generator, fraction: float, whole: float, sigma: float
) -> None:
    """Put some sections out of focus, by a Gaussian of up to `sigma` voxels, as `lose_sections` loses them."""
    for section in _chosen(image, random, fraction):
        blurred = ndimage.gaussian_filter(section, random.uniform(0, sigma))
        for part in _parts(section, random, whole):
            section[part] = blurred[part]


def _chosen(image: NDArray[np.float32], random: np.random.Generator, fraction: float) -> Iterator[NDArray[np.float32]]:
    """One to `fraction` of the sections, each as a view."""
    depth = len(image)
    count = random.integers(1, max(1, int(fraction * depth)), endpoint=True)
    for z in random.choice(depth, count, replace=False).tolist():
        yield image[z]


def _parts(section: NDArray[np.float32], random: np.random.Generator, whole: float) -> list[Part]:
    """Everything, or each of the quadrants around a random point with probability 1/2."""
    if random.random() < whole:
        return [(slice(None), slice(None))]
    y, x = (int(random.integers(size)) for size in section.shape)
    quadrants = product((slice(0, y), slice(y, None)), (slice(0, x), slice(x, None)))
    return [part for part in quadrants if random.random() < 0.5]
