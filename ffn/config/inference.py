"""The section `inference` of config.yaml: how sub-volumes are flood-filled."""

from typing import Annotated, Literal

from pydantic import Field

from ffn.config.base import Fraction, NotNegative, Offset, Positive, Probability, Section, Size


class Inference(Section):
    """Flood filling (`ffn infer`)."""

    checkpoint: str | None = Field(
        None, description="A checkpoint (prefix) to use instead of training: ours or google/ffn's."
    )
    weights: Literal["final", "best"] = Field(
        "final", description="Weights of the own training: those it ended with, or the best on data.validation."
    )
    segment_threshold: Probability = Field(0.6, description="Object map from which a voxel belongs to the object.")
    move_threshold: Probability | None = Field(
        None,
        description="Object map needed to move to a place; empty = network.move_threshold. A higher one "
        "leaks less into neighbours.",
    )
    deltas: Offset | None = Field(
        None,
        description="Step of the field of view; empty = network.deltas. Larger steps take fewer fields of view.",
    )
    min_segment_size: Positive = Field(1000, description="Smaller objects are dropped.")
    min_boundary_dist: Offset = Field((1, 1, 1), description="No seed with a segment this near.")
    disco_seed_threshold: float = Field(
        0.0, ge=-1, le=1, description="Keeps voxels once judged outside from coming back; negative = off."
    )
    seed_policy: Literal["peaks"] = Field("peaks", description="Where seeds come from: PolicyPeaks.")
    mirror: bool = Field(
        False,
        description="Continue the image beyond the faces of a sub-volume as in a mirror, so that objects are followed "
        "up to the faces.",
    )
    passes: Annotated[int, Field(ge=1, le=8)] = Field(
        1,
        description="Flood fills of every sub-volume, each of which sees it turned another way; of more than one, what "
        "they agree on is kept.",
    )
    agreement: Fraction = Field(
        0.5, description="With several passes: part of them that has to give a voxel to an object."
    )
    subvolume_size: Size | None = Field(None, description="Sub-volume of one job; empty = the whole box at once.")
    subvolume_overlap: Offset = Field((32, 32, 32), description="Voxels shared with a neighbouring sub-volume.")
    tiles_per_job: Positive | None = Field(
        None,
        description="Sub-volumes of one job; empty = on a cluster what should take half of cluster.runtime_minutes "
        "once `ffn plan` knows the speed, else one a rank, and up to 64 a rank on a machine with a GPU.",
    )
    ranks: Positive = Field(
        1, description="Processes of an inference job on one machine: they share its sub-volumes, and the GPUs."
    )
    batch_size: NotNegative = Field(
        0, description="Fields of view evaluated at once, of sub-volumes side by side; 0 = 16 on a GPU, else 1."
    )
    concurrent: NotNegative = Field(
        0, description="Sub-volumes of a job that are filled side by side; 0 = twice the batch, 1 where that is 1."
    )
    precision: Literal["float32", "bfloat16", "float16"] = Field(
        "float32",
        description="Arithmetic of the convolutions; the short ones are faster on GPUs and give slightly other labels.",
    )
    intra_op_threads: NotNegative = Field(0, description="Threads inside one operation; 0 = TensorFlow decides.")
    checkpoint_every_s: Annotated[float, Field(gt=0)] = Field(
        60.0, description="Seconds between saved states of an unfinished sub-volume."
    )
