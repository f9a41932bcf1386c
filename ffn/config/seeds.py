"""Seed policies in config.yaml: `inference.seed_policy` is a name, a section with a name and arguments, or a list.

    seed_policy: PolicyPeaks
    seed_policy: {name: PolicyGrid3d, step: 32}
    seed_policy: [PolicyPeaks, {name: PolicyFillEmptySpace, reverse: true}]

Each policy is a section of its own with the name and the defaults that google/ffn gives it, so that an argument of
another policy is refused like any unknown key.
"""

import difflib
from typing import Annotated, Any, Literal

from pydantic import Field, PlainValidator, TypeAdapter, WrapValidator

from ffn.config.base import Fraction, NotNegative, Positive, Section


class SeedSettings(Section):
    """What all policies share."""

    reverse: bool = Field(False, description="Try the seeds in the opposite order.")


class PolicyPeaks(SeedSettings):
    """Places farthest from any edge of the image, in ascending order."""

    name: Literal["PolicyPeaks"] = Field("PolicyPeaks", description="Of the policy.")


class PolicyPeaks2d(SeedSettings):
    """The same in each section by itself: for thick sections."""

    name: Literal["PolicyPeaks2d"] = Field("PolicyPeaks2d", description="Of the policy.")
    min_distance: Positive = Field(7, description="Voxels, along y and x, in which a seed is the farthest from edges.")
    threshold_abs: float = Field(2.5, description="Voxels that a seed is farther than this from any edge.")
    sort_cmp: Literal["ascending", "descending"] = Field("ascending", description="Order of z, y, x.")


class PolicyFillEmptySpace(SeedSettings):
    """Middles of what no segment has taken: after other policies, for what they left."""

    name: Literal["PolicyFillEmptySpace"] = Field("PolicyFillEmptySpace", description="Of the policy.")


class PolicyMax(SeedSettings):
    """Every voxel, the brightest first."""

    name: Literal["PolicyMax"] = Field("PolicyMax", description="Of the policy.")


class PolicyMaxPeaks(SeedSettings):
    """Local maxima of the image, in ascending order."""

    name: Literal["PolicyMaxPeaks"] = Field("PolicyMaxPeaks", description="Of the policy.")
    min_distance: Positive = Field(3, description="Voxels in which a seed is the brightest.")
    threshold_abs: float = Field(
        0.0, description="A seed is brighter than this, in units of (grey - image_mean) / image_stddev."
    )
    threshold_rel: Fraction = Field(0.0, description="And than this part of the brightest voxel.")


class PolicyImagePeaks3D2D(SeedSettings):
    """Local maxima of the image, the brightest first, and then those of each section."""

    name: Literal["PolicyImagePeaks3D2D"] = Field("PolicyImagePeaks3D2D", description="Of the policy.")
    min_distance_3d: Positive | None = Field(4, description="Voxels between the first ones; empty = leave these out.")
    min_distance_2d: Positive | None = Field(
        2, description="Voxels between those of a section; empty = leave these out."
    )


class PolicyImagePeaks2DDisk(SeedSettings):
    """Local maxima of each section within a disk, the brightest of a section first."""

    name: Literal["PolicyImagePeaks2DDisk"] = Field("PolicyImagePeaks2DDisk", description="Of the policy.")
    min_distance_2d: Positive = Field(3, description="Voxels between two seeds of a section, in a straight line.")
    threshold_rel: Fraction = Field(0.5, description="A seed is brighter than this part of its section's brightest.")
    disk_radius: Positive = Field(1, description="Voxels in which a seed is the brightest.")


class PolicyGrid3d(SeedSettings):
    """A grid, and then the same grid begun elsewhere."""

    name: Literal["PolicyGrid3d"] = Field("PolicyGrid3d", description="Of the policy.")
    step: Positive = Field(16, description="Voxels between two seeds along each axis.")
    offsets: list[NotNegative] = Field(
        [0, 8, 4, 12, 2, 10, 14], min_length=1, description="Where the grids begin, along all axes alike."
    )


class PolicyGrid2d(SeedSettings):
    """A grid in every section, and then the same grid begun elsewhere."""

    name: Literal["PolicyGrid2d"] = Field("PolicyGrid2d", description="Of the policy.")
    step: Positive = Field(16, description="Voxels between two seeds along y and x.")
    offsets: list[NotNegative] = Field(
        [0, 8, 4, 12, 2, 6, 10, 14], min_length=1, description="Where the grids begin, along y and x alike."
    )


class PolicyInvertOrigins(SeedSettings):
    """Where the segments of an earlier run began, the last one first."""

    name: Literal["PolicyInvertOrigins"] = Field("PolicyInvertOrigins", description="Of the policy.")
    folder: str = Field(
        description="The earlier run's `results/<run>/infer`, with the same sub-volumes, or the folder of one that was "
        "filled alone."
    )
    pass_number: NotNegative = Field(0, description="Of the earlier run, where it made several passes.")


class PolicyDenseSeeds(SeedSettings):
    """Every voxel brighter than a threshold, in ascending order."""

    name: Literal["PolicyDenseSeeds"] = Field("PolicyDenseSeeds", description="Of the policy.")
    threshold: float = Field(
        0.5, description="A seed is brighter than this, in units of (grey - image_mean) / image_stddev."
    )
    invert: bool = Field(False, description="Take the other voxels instead.")
    num_erosions: NotNegative = Field(0, description="How often the outermost voxels of these are left out.")


AnySeedPolicy = (
    PolicyPeaks
    | PolicyPeaks2d
    | PolicyFillEmptySpace
    | PolicyMax
    | PolicyMaxPeaks
    | PolicyImagePeaks3D2D
    | PolicyImagePeaks2DDisk
    | PolicyGrid3d
    | PolicyGrid2d
    | PolicyInvertOrigins
    | PolicyDenseSeeds
)
SeedPolicyName = Literal[
    "PolicyPeaks",
    "PolicyPeaks2d",
    "PolicyFillEmptySpace",
    "PolicyMax",
    "PolicyMaxPeaks",
    "PolicyImagePeaks3D2D",
    "PolicyImagePeaks2DDisk",
    "PolicyGrid3d",
    "PolicyGrid2d",
    "PolicyDenseSeeds",
    "peaks",
]
"""What may stand alone; `peaks` is another word for PolicyPeaks."""

SEED_POLICIES: dict[str, type[SeedSettings]] = {policy.__name__: policy for policy in AnySeedPolicy.__args__}
_ALIASES = {"peaks": "PolicyPeaks"}


def _one_policy(value: Any) -> Any:
    if isinstance(value, SeedSettings):
        return value
    given = {"name": value} if isinstance(value, str) else value
    name = given.get("name") if isinstance(given, dict) else None
    if not isinstance(name, str):
        raise ValueError(  # noqa: TRY004 - pydantic reports no TypeError
            f"{value!r} is not a seed policy: write a name such as PolicyPeaks, or {{name: ..., ...}}."
        )
    name = _ALIASES.get(name, name)
    if name not in SEED_POLICIES:
        raise ValueError(f"'{name}' is not a seed policy; {_advice(name, SEED_POLICIES)}")
    policy = SEED_POLICIES[name]
    if unknown := [key for key in given if key not in policy.model_fields]:
        known = policy.model_fields
        raise ValueError("\n".join(f"{name} has no argument '{key}'; {_advice(str(key), known)}" for key in unknown))
    return policy.model_validate({**given, "name": name})


def _advice(word: str, known: dict[str, Any]) -> str:
    nearest = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"did you mean '{nearest[0]}'?" if nearest else f"known here: {', '.join(known)}."


_SEVERAL = TypeAdapter(Annotated[list[Annotated[Any, PlainValidator(_one_policy)]], Field(min_length=1)])


def _policies(value: Any, _: Any) -> Any:
    """As the union would, but a problem is reported once, for the policy that was named."""
    return _SEVERAL.validate_python(value) if isinstance(value, list) else [_one_policy(value)]


SeedPolicies = Annotated[
    list[AnySeedPolicy],
    WrapValidator(
        _policies, json_schema_input_type=SeedPolicyName | AnySeedPolicy | list[SeedPolicyName | AnySeedPolicy]
    ),
]
"""Always a list once it is loaded."""
