"""The section `agglomeration` of config.yaml: which pieces are filled again, and what has to agree to join them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field, model_validator

from ffn.config.base import Offset, Positive, Probability, Section, Size


@dataclass(frozen=True)
class Radii:
    """How far things reach, zyx in network voxels.

    Attributes:
        filled: What is filled again, from where a pair meets.
        compared: What is compared, from there.
        excluded: The box around a failed seed in which there is no other one.
    """

    filled: Offset
    compared: Offset
    excluded: Offset


class Agglomeration(Section):
    """Joining pieces of one neuron (`ffn agglomerate`): pairs that meet are filled again from both sides."""

    enabled: bool = Field(
        False, description="Agglomerate after assembly; scores, export and report then show the result of that."
    )
    max_distance_nm: Annotated[float, Field(gt=0)] = Field(
        40.0, description="Segments are extended by this much; those that meet then are candidates."
    )
    min_segment_size: Positive = Field(1000, description="Smaller segments are never joined.")
    max_smaller_segment: Positive | None = Field(
        None,
        description="Two segments that are both larger are not joined, whatever their scores; those that would be come "
        "first in the list for a proofreader. Empty = no limit.",
    )
    max_pairs: Positive | None = Field(
        10_000, description="Candidates that are tried at most, those that are nearest first; empty = all."
    )
    radius: Offset | None = Field(
        None,
        description="What is filled again reaches this far from where a pair meets; empty = half a field of view and "
        "two steps. All radii are in network voxels.",
    )
    analysis_radius: Offset | None = Field(
        None, description="What is compared reaches this far; empty = two thirds of radius."
    )
    seed_distance: Offset = Field(
        (0, 0, 0), description="No seed inside the box that reaches this far from where a pair meets; 0 = anywhere."
    )
    exclusion_radius: Offset | None = Field(
        None, description="After a failed seed, none in the box this far around it; empty = the step."
    )
    max_retry_iters: Positive = Field(8, description="Seeds tried in a segment at most.")
    segment_recovery_fraction: Probability = Field(
        0.6,
        description="Part of a segment that a fill from inside it must cover at inference.segment_threshold to count.",
    )
    object_threshold: Probability = Field(0.5, description="Object map from which a voxel counts in the scores below.")
    deleted_from: Probability = Field(
        0.8, description="A voxel counts as deleted when the network takes it from this level or above ..."
    )
    deleted_to: Probability = Field(0.5, description="... to below this one.")
    min_iou: Probability = Field(0.8, description="Joined if the fills of a pair agree more than this, and:")
    min_consistency: Probability = Field(0.6, description="each fill covers more than this of each of the segments;")
    max_deleted: Probability = Field(
        0.02, description="one of the fills deleted less than this, as a fraction of the voxels it ended with."
    )

    @model_validator(mode="after")
    def _levels_agree(self) -> "Agglomeration":
        if self.deleted_to > self.deleted_from:
            raise ValueError(f"deleted_to {self.deleted_to} is above deleted_from {self.deleted_from}; swap them.")
        return self

    def radii(self, fov: Size, deltas: Offset) -> Radii:
        """All radii, those that are empty as they suit a network's `fov` and step.

        Half a field of view and two steps: a fill can take two steps each way from where the pair meets.
        """
        filled = self.radius or _each(lambda size, delta: size // 2 + 2 * delta, fov, deltas)
        compared = self.analysis_radius or _each(lambda radius, _: -(-2 * radius // 3), filled, filled)
        return Radii(filled, compared, self.exclusion_radius or deltas)


def _each(value: Callable[[int, int], int], first: Offset, second: Offset) -> Offset:
    z, y, x = (value(a, b) for a, b in zip(first, second, strict=True))
    return z, y, x
