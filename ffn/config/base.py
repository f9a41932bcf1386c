"""What all sections of the configuration share: the strict base model and the types of numbers and vectors."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[int, Field(ge=1)]
NotNegative = Annotated[int, Field(ge=0)]
Probability = Annotated[float, Field(gt=0, lt=1)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Size = tuple[Positive, Positive, Positive]
Offset = tuple[NotNegative, NotNegative, NotNegative]
VoxelSize = tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]]


class Section(BaseModel):
    """A part of the configuration: unknown keys and numbers that are none are refused, values do not change after
    loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
