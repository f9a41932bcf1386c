"""Random numbers of one augmentation for one example."""

from enum import IntEnum

import numpy as np


class Kind(IntEnum):
    """The augmentations, in the order in which they are applied; the values are part of every example."""

    ELASTIC = 0xA50
    MISALIGNMENT = 0xA51
    MISSING_SECTION = 0xA52
    OUT_OF_FOCUS = 0xA53
    GREY = 0xA54


def draw(seed: int, number: int, kind: Kind, probability: float) -> np.random.Generator | None:
    """The random numbers of example `number` for this augmentation; None where it does not happen."""
    if probability <= 0:
        return None
    random = np.random.default_rng([seed, kind, number])
    return random if random.random() < probability else None
