"""The section `agglomeration` of config.yaml: which pieces are filled again, and what has to agree to join them."""

from typing import Annotated

from pydantic import Field, model_validator

from ffn.config.base import Offset, Positive, Probability, Section, Size


class Agglomeration(Section):
    """Joining pieces of one neuron (`ffn agglomerate`): pairs that meet are filled again from both sides."""

    enabled: bool = Field(
        False, description="Agglomerate after assembly; scores, export and report then show the result of that."
    )
    max_distance_nm: Annotated[float, Field(gt=0)] = Field(
        40.0, description="Segments are extended by this much; those that meet then are candidates."
    )
    min_segment_size: Positive = Field(1000, description="Smaller segments are never joined.")
    max_pairs: Positive | None = Field(
        10_000, description="Candidates that are tried at most, those that are nearest first; empty = all."
    )
    radius: Size = Field(
        (25, 50, 50),
        description="What is filled again reaches this far from where a pair meets. All radii are in network voxels.",
    )
    analysis_radius: Size = Field((17, 34, 34), description="What is compared reaches this far.")
    seed_distance: Offset = Field(
        (0, 0, 0), description="No seed inside the box that reaches this far from where a pair meets; 0 = anywhere."
    )
    exclusion_radius: Offset = Field((4, 8, 8), description="After a failed seed, none in the box this far around it.")
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
    def _levels_and_radii_agree(self) -> "Agglomeration":
        problems = [
            f"analysis_radius {inner} along {axis} reaches beyond radius {outer}: only what is filled can be compared."
            for axis, inner, outer in zip("zyx", self.analysis_radius, self.radius, strict=True)
            if inner > outer
        ]
        if self.deleted_to > self.deleted_from:
            problems.append(f"deleted_to {self.deleted_to} is above deleted_from {self.deleted_from}; swap them.")
        if problems:
            raise ValueError("\n".join(problems))
        return self
