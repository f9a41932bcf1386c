"""Changes of brightness, contrast and gamma."""

import numpy as np
from numpy.typing import NDArray

from ffn.config import Augmentation


def change_grey(image: NDArray[np.float32], random: np.random.Generator, settings: Augmentation) -> None:
    """Replace grey values v (float32 zyx, 0 to 255) by 255 clip(contrast v / 255 + brightness, 0, 1)^gamma, in place.

    Each of the three changes with its own probability, either alike in all sections or anew in each.
    """
    sections = len(image) if random.random() < settings.per_section else 1
    brightness, contrast, gamma = (random.uniform(-1, 1, (sections, 1, 1)).astype(np.float32) for _ in range(3))
    changes_brightness, changes_contrast, changes_gamma = random.random(3) < (
        settings.brightness,
        settings.contrast,
        settings.gamma,
    )
    if changes_contrast:
        image *= 1 + np.float32(settings.contrast_change) * contrast
    if changes_brightness:
        image += np.float32(255 * settings.brightness_change) * brightness
    if changes_contrast or changes_brightness:
        np.clip(image, 0, 255, out=image)
    if changes_gamma:
        exponent = np.exp2(np.float32(settings.gamma_octaves) * gamma)
        image *= np.float32(1 / 255)
        np.power(image, exponent, out=image)
        image *= np.float32(255)
