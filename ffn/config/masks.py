"""Masks in config.yaml: where flood filling may not go, or may not begin."""

from pydantic import Field, field_validator, model_validator

from ffn.config.base import NotNegative, Offset, Positive, Section
from ffn.errors import GeometryError
from ffn.geometry import Box

SHIFT_CHANNELS = (0, 1)
"""Channels of a shift mask's volume: shifts along x and along y; which is which does not matter."""


class Mask(Section):
    """Forbidden voxels: of a volume, of the image, or in boxes; exactly one of these three."""

    volume: str | None = Field(
        None,
        description="URI of a volume that covers the same region as the image of data.test, at its resolution or a "
        "whole multiple or fraction of it.",
    )
    channel: NotNegative | None = Field(None, description="Which channel of a volume that has several (c,z,y,x).")
    image: bool = Field(False, description="The image of data.test itself, in grey values from 0 to 255.")
    boxes: list[str] | None = Field(
        None, min_length=1, description="Boxes `Z0:Z1,Y0:Y1,X0:X1` in voxels of the image of data.test."
    )
    min: int | float | None = Field(None, description="Values from this on are forbidden.")
    max: int | float | None = Field(None, description="Values up to this one are forbidden.")
    values: list[int | float] | None = Field(
        None, min_length=1, description="These values are forbidden. Of a volume without min, max, values: all but 0."
    )
    invert: bool = Field(False, description="Forbid the other voxels instead.")

    @field_validator("boxes")
    @classmethod
    def _boxes_are_readable(cls, texts: list[str] | None) -> list[str] | None:
        try:
            for text in texts or []:
                Box.parse(text)
        except GeometryError as error:
            raise ValueError(str(error)) from error
        return texts

    @model_validator(mode="after")
    def _one_source(self) -> "Mask":
        sources = [self.volume is not None, self.image, self.boxes is not None]
        if sum(sources) != 1:
            raise ValueError("a mask is of a volume, of the image (`image: true`), or of boxes: give exactly one.")
        has_range, has_values = self.min is not None or self.max is not None, self.values is not None
        if self.boxes is not None and (has_range or has_values):
            raise ValueError("min, max and values have no effect on boxes.")
        if self.volume is None and self.channel is not None:
            raise ValueError("only a volume has a channel.")
        if has_range and has_values:
            raise ValueError("give min and max, or values, not both.")
        if self.image and not (has_range or has_values):
            raise ValueError("a mask of the image needs min, max or values.")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min} is above max {self.max}: no value lies between them.")
        return self

    @property
    def parsed_boxes(self) -> list[Box]:
        return [Box.parse(text) for text in self.boxes or []]


class ShiftMask(Section):
    """Places near which sections are shifted against each other."""

    volume: str = Field(
        description="URI of the shifts along x and y: two channels (2,z,y,x), HDF5 or zarr, over the region of the "
        "image of data.test."
    )
    scale: Positive = Field(1, description="Voxels of the image, along y and x, in one of it.")
    threshold: float = Field(4.0, gt=0, description="A shift of at least this, along x or y, forbids.")
    reach: Offset | None = Field(
        None,
        description="Voxels of the image to each side of a position in which shifts count; empty = half the field of "
        "view.",
    )
