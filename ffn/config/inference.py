"""The section `inference` of config.yaml: how sub-volumes are flood-filled."""

from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidatorFunctionWrapHandler, WrapValidator

from ffn.config.base import Fraction, NotNegative, Offset, Positive, Probability, Section, Size
from ffn.config.masks import Mask, ShiftMask
from ffn.config.seeds import SeedPolicies

Quality = Literal["exact", "balanced", "fast"]
LEAST_UNSEEN: dict[Quality, float] = {"exact": 0.0, "balanced": 0.2, "fast": 0.31}
"""What `quality` means for `min_unseen`; measured in docs/quality.md."""
OFFERS_COMPARED: dict[Quality, int] = {"exact": 1, "balanced": 1, "fast": 4}
"""How many offers are compared: the one that would show most goes first."""
JOIN_SHARE: dict[Quality, float] = {"exact": 1.0, "balanced": 0.6, "fast": 0.6}
"""What it means for `join_share`."""
FEWER_FOVS: dict[Quality, float] = {"exact": 1.0, "balanced": 3.6, "fast": 6.0}
"""How many times fewer fields of view that takes than exact with steps of a quarter of one; measured there too."""

WITHOUT_EFFECT = frozenset(
    {"tiles_per_job", "ranks", "batch_size", "concurrent", "intra_op_threads", "checkpoint_every_s"}
)
"""Settings that change how fast or how safely sub-volumes are filled, but not what is found."""

OF_CONSENSUS = frozenset({"consensus", "agreement", "majority", "split_min_size"})
"""Settings of what becomes of several passes: their flood fills do not depend on them."""


JoinShare = Annotated[float, Field(ge=0.5, le=1)]
Majority = Annotated[float, Field(ge=0.5, lt=1)]


class Pass(Section):
    """One of several flood fills of every sub-volume: what it does differently. Empty = as the section says."""

    turn: Annotated[int, Field(ge=0, le=47)] = Field(
        0, description="Which way the sub-volume is turned, of those in which its voxels allow it; 0 = not at all."
    )
    reverse_seeds: bool | None = Field(None, description="As in the section.")
    checkpoint: str | None = Field(None, description="Other weights.")
    quality: Quality | None = Field(None, description="As in the section.")
    min_unseen: Fraction | None = Field(None, description="As in the section.")
    join_share: JoinShare | None = Field(None, description="As in the section.")
    deltas: Offset | None = Field(None, description="As in the section.")
    move_threshold: Probability | None = Field(None, description="As in the section.")
    segment_threshold: Probability | None = Field(None, description="As in the section.")
    min_segment_size: Positive | None = Field(None, description="As in the section.")
    mirror: bool | None = Field(None, description="As in the section.")
    network: dict[str, Any] = Field(
        default_factory=dict,
        description="Keys of the section `network` with other values, such as {downsample: [1, 2, 2]} for a network "
        "(and checkpoint) of another resolution.",
    )


def _number_or_list(value: Any, _: ValidatorFunctionWrapHandler) -> "int | list[Pass]":
    """As the union would, but a problem is reported once, for the form that was given."""
    if isinstance(value, list):
        return TypeAdapter(Annotated[list[Pass], Field(min_length=1)]).validate_python(value)
    return TypeAdapter(Annotated[int, Field(ge=1, le=8)]).validate_python(value)


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
    quality: Quality = Field(
        "exact",
        description="exact = as the published FFN, voxel for voxel; the others take less than a third, and a sixth, of "
        "the fields of view: they leave out what would show little that is new, and give objects that mostly lie in an "
        "earlier one to that.",
    )
    min_unseen: Fraction | None = Field(
        None,
        description="Part of a field of view that nothing has seen yet, below which it is left out (at the faces of a "
        "sub-volume a third of it, unless `mirror` continues them); 0 = all are visited, as in the published "
        "algorithm; empty = by quality.",
    )
    join_share: JoinShare | None = Field(
        None,
        description="Part of an object that has to lie in one earlier object for what it adds to be given to that; 1 = "
        "they stay apart, as in the published algorithm; empty = by quality.",
    )
    min_segment_size: Positive = Field(1000, description="Smaller objects are dropped.")
    min_boundary_dist: Offset = Field((1, 1, 1), description="No seed with a segment this near.")
    disco_seed_threshold: float = Field(
        0.0, ge=-1, le=1, description="Keeps voxels once judged outside from coming back; negative = off."
    )
    seed_policy: SeedPolicies = Field(
        "PolicyPeaks",
        validate_default=True,
        description="Where seeds come from. Of a list, each policy sees what the ones before it left.",
    )
    reverse_seeds: bool = Field(
        False, description="Try the seeds of each policy in the opposite order: for a consensus of both orders."
    )
    masks: list[Mask] = Field(default_factory=list, description="Where the field of view may not go.")
    seed_masks: list[Mask] = Field(default_factory=list, description="Where only seeds are forbidden.")
    shift_mask: ShiftMask | None = Field(
        None, description="Where shifts of sections forbid the field of view; empty = nowhere."
    )
    init_segmentation: str | None = Field(
        None,
        description="URI of segments that are there from the beginning, with the shape of the image: objects only take "
        "what these leave; empty = none.",
    )
    save_probability: bool = Field(
        False, description="Also keep the object map of every segmented voxel, in one byte (`probability.h5`)."
    )
    mirror: bool = Field(
        False,
        description="Continue the image beyond the faces of a sub-volume as in a mirror, so that objects are followed "
        "up to the faces.",
    )
    passes: Annotated[int | list[Pass], WrapValidator(_number_or_list)] = Field(
        1,
        description="Flood fills of every sub-volume: how many, 8 at most, each of which sees it turned another way; "
        "or a list that says what each does differently.",
    )
    consensus: Literal["vote", "split"] = Field(
        "vote",
        description="What becomes of several passes: vote = what enough of them agree on; split = as google/ffn, "
        "whatever any of them separates is separated.",
    )
    agreement: Fraction = Field(
        0.5, description="With `vote`: part of the passes that has to give a voxel to an object."
    )
    majority: Majority = Field(
        0.625,
        description="With `vote`: two pieces attract each other if more than this part of the passes that see both put "
        "them into one object. A higher one leaks less.",
    )
    split_min_size: Positive = Field(1000, description="With `split`: image voxels below which a part is dropped.")
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
        0,
        description="Fields of view evaluated at once, of sub-volumes (in agglomeration: fills of pairs) side by side; "
        "0 = 16 on a GPU, else 1.",
    )
    concurrent: NotNegative = Field(
        0,
        description="Sub-volumes of a job (in agglomeration: fills of pairs) side by side; 0 = twice the batch, 1 "
        "where that is 1.",
    )
    precision: Literal["float32", "bfloat16", "float16"] = Field(
        "float32",
        description="Arithmetic of the convolutions; the short ones give slightly other labels and are faster on GPUs, "
        "bfloat16 also on CPUs with AMX.",
    )
    intra_op_threads: NotNegative = Field(0, description="Threads inside one operation; 0 = TensorFlow decides.")
    checkpoint_every_s: Annotated[float, Field(gt=0)] = Field(
        60.0, description="Seconds between saved states of an unfinished sub-volume."
    )

    @property
    def all_passes(self) -> list[Pass]:
        """The passes, each with what it does differently."""
        return [Pass(turn=turn) for turn in range(self.passes)] if isinstance(self.passes, int) else self.passes

    @property
    def least_unseen(self) -> float:
        """`min_unseen`, given or by quality."""
        return LEAST_UNSEEN[self.quality] if self.min_unseen is None else self.min_unseen

    @property
    def offers_compared(self) -> int:
        """How many offers are compared: the one that would show most goes first."""
        return OFFERS_COMPARED[self.quality]

    @property
    def least_joined(self) -> float:
        """`join_share`, given or by quality."""
        return JOIN_SHARE[self.quality] if self.join_share is None else self.join_share
