"""A sheet of training examples: as they are in the volume, and as they are learned from."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ffn.config import Augmentation, Config
from ffn.files import atomic_path
from ffn.prepare.labels import INSIDE, UNKNOWN
from ffn.prepare.run import prepare_inputs
from ffn.training.examples import Example, ExampleSource, LaneStream

OBJECT, NOT_KNOWN, OPACITY = (0.1, 0.8, 0.3), (0.9, 0.2, 0.2), 0.3
_COLUMNS, _INCHES = 8, 1.5


@dataclass(frozen=True)
class Picture:
    """One section through the centre of an example: at a right angle to axis `across` (0 = z)."""

    name: str
    example: Example
    across: int


def draw_examples(config: Config, path: Path, count: int = 16, held_out: bool = False) -> None:
    """Write a PNG with the first `count` examples of a run, preparing what is missing.

    Of each, three pictures: the section through its centre as it is stored, the same with its augmentations (axis
    swaps and mirrors are in both), and a section at a right angle to it, in which shifted sections show. What belongs
    to the object is green, what is unknown red. The `held_out` examples of data.validation are only as they are
    stored. Raises ConfigError where there are no such examples.
    """
    prepare_inputs(config)
    learned = ExampleSource(config, held_out)
    stored = ExampleSource(config.model_copy(update={"augmentation": Augmentation()}), held_out)
    columns = min(count, _COLUMNS)
    sheets = []
    for number in range(count):
        example = learned.load(LaneStream(0, 1), number)
        plain = stored.load(LaneStream(0, 1), example.index)
        augmented = [] if held_out else [Picture("augmented", example, 0)]
        pictures = [Picture("as stored", plain, 0), *augmented, Picture("from the side", example, 1)]
        sheets.append(pictures)
    rows = len(sheets[0])
    lines = rows * -(-count // columns)
    figure = Figure(figsize=(_INCHES * columns + 0.3, _INCHES * lines + 0.3), layout="constrained")
    figure.suptitle(f"{config.run}: {'held-out' if held_out else 'training'} examples", fontsize=11)
    grid = figure.subplots(lines, columns, squeeze=False)
    for axes in grid.flat:
        axes.set(xticks=[], yticks=[], frame_on=False)
    for number, pictures in enumerate(sheets):
        block, column = divmod(number, columns)
        for row, picture in enumerate(pictures):
            _show(grid[block * rows + row, column], config, picture, named=column == 0)
    with atomic_path(path) as partial:
        figure.savefig(partial, format="png", dpi=110, metadata={"Software": None})


def _show(axes: Axes, config: Config, picture: Picture, named: bool) -> None:
    axes.imshow(coloured_section(config, picture), interpolation="nearest", aspect="auto")
    axes.set_box_aspect(1)
    if named:
        axes.set_ylabel(picture.name, fontsize=8)


def coloured_section(config: Config, picture: Picture) -> NDArray[np.float64]:
    """Red, green and blue in 0..1, [y, x, 3] (or [z, x, 3] from the side)."""
    example, network = picture.example, config.network
    middle = example.image.shape[picture.across] // 2
    grey = example.image.take(middle, picture.across) * network.image_stddev + network.image_mean
    labels = example.labels.take(middle, picture.across)
    colours = np.repeat(np.clip(grey / 255.0, 0, 1)[..., None].astype(np.float64), 3, axis=-1)
    for value, colour in ((INSIDE, OBJECT), (UNKNOWN, NOT_KNOWN)):
        where = labels == np.float32(value)
        colours[where] = (1 - OPACITY) * colours[where] + OPACITY * np.array(colour)
    return colours
