"""All augmentations of one example, in their order."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ffn.config import Augmentation
from ffn.geometry import Box
from ffn.training.augment.draws import Kind, draw
from ffn.training.augment.elastic import warp
from ffn.training.augment.grey import change_grey
from ffn.training.augment.misalignment import Misalignment
from ffn.training.augment.sections import blur_sections, lose_sections
from ffn.training.region import TrainingRegion

Patch = np.ndarray[Any, Any]


class Augmenter:
    """Cuts examples out of a volume and changes them, as a pure function of the seed and the example's number."""

    def __init__(self, settings: Augmentation, seed: int) -> None:
        self._settings, self._seed = settings, seed

    def cut(self, image: TrainingRegion, labels: TrainingRegion, box: Box, number: int) -> tuple[Patch, Patch]:
        """Grey values (0 to 255; as they are stored, or float32 where they were changed) and labels in `box`.

        Elastic, then misalignment, missing sections, sections out of focus, grey values. Labels change only where a
        misalignment moves them: it reads what really lies there, or beyond the volume its border voxels again.
        """
        chosen = self._settings
        random = self._draw(number, Kind.MISALIGNMENT, chosen.misalignment)
        shift = None
        if random is not None:
            shift = Misalignment.draw(random, box.shape[0], chosen.misalignment_shift, chosen.misalignment_slip)
        wide = box if shift is None else shift.reach(box)
        grey, truth = image.read_padded(wide), labels.read_padded(wide)
        random = self._draw(number, Kind.ELASTIC, chosen.elastic)
        if random is not None:
            grey = warp(grey.astype(np.float32), random, chosen.elastic_spacing, chosen.elastic_displacement)
        if shift is not None:
            grey, truth = shift.apply(grey), shift.apply(truth)
        return self._change(grey, number), truth

    def _change(self, grey: Patch, number: int) -> Patch:
        """What happens to grey values alone, once they are in their place."""
        chosen = self._settings
        missing = self._draw(number, Kind.MISSING_SECTION, chosen.missing_section)
        blurred = self._draw(number, Kind.OUT_OF_FOCUS, chosen.out_of_focus)
        some_grey = max(chosen.brightness, chosen.contrast, chosen.gamma)
        changed = self._draw(number, Kind.GREY, 1.0 if some_grey > 0 else 0.0)
        if missing is blurred is changed is None:
            return grey
        values: NDArray[np.float32] = grey.astype(np.float32)
        if missing is not None:
            lose_sections(values, missing, chosen.section_fraction, chosen.whole_section)
        if blurred is not None:
            blur_sections(values, blurred, chosen.section_fraction, chosen.whole_section, chosen.out_of_focus_sigma)
        if changed is not None:
            change_grey(values, changed, chosen)
        return values

    def _draw(self, number: int, kind: Kind, probability: float) -> np.random.Generator | None:
        return draw(self._seed, number, kind, probability)
