"""The sections of config.yaml as typed models. The schema and the docs table are generated from these.

Vectors are z,y,x in voxels unless a name says otherwise. A field's description is its documentation.
"""

from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError, ValidatorFunctionWrapHandler, field_validator, model_validator

from ffn.config.agglomeration import Agglomeration, Radii
from ffn.config.assembly import Assembly
from ffn.config.base import NotNegative, Offset, Positive, Probability, Section, Size, VoxelSize
from ffn.config.cluster import Cluster
from ffn.config.inference import Inference
from ffn.config.study import Study
from ffn.config.training import Allreduce, Augmentation, Threads, Training
from ffn.errors import GeometryError
from ffn.geometry import Box


class Region(Section):
    """An image with its labels, and the box of it that is used."""

    image: str = Field(description="URI of the EM image, or `synthetic` for the volume that `ffn synth` makes.")
    labels: str | None = Field(
        None, description="URI of the ground truth, or `synthetic`. Not needed where nothing is learned or scored."
    )
    label_zero: Literal["unknown", "background"] = Field(
        "unknown",
        description="What label 0 means in training: unknown = nothing is learned there; background = no object "
        "(membranes and the space between cells, as in SNEMI3D).",
    )
    box: str | None = Field(None, description="`Z0:Z1,Y0:Y1,X0:X1`: use only these voxels; empty = the whole volume.")

    @field_validator("box")
    @classmethod
    def _box_is_readable(cls, text: str | None) -> str | None:
        if text is not None:
            try:
                Box.parse(text)
            except GeometryError as error:
                raise ValueError(str(error)) from error
        return text

    @property
    def bounds(self) -> Box | None:
        return None if self.box is None else Box.parse(self.box)


class TrainingVolume(Region):
    """A region to learn from."""

    weight: float = Field(1.0, gt=0, description="Share of the training examples, against the weights of the others.")


class Source(Section):
    """Public data that the workflow fetches before anything reads it."""

    dataset: Literal["fib25_train", "fib25_test", "fib25_checkpoint"] = Field(
        description="Which public data: the 520^3 or the 250^3 FIB-25 sample, or the released FFN checkpoint."
    )
    folder: str = Field(description="Where it appears, relative to the working directory.")
    mirror: str | None = Field(
        None, description="A local copy; where this folder exists it is linked instead of downloading."
    )


class Data(Section):
    """What is trained on and what is segmented."""

    train: TrainingVolume | list[TrainingVolume] | None = Field(
        None, description="Volume to learn from, or a list of them; empty with a ready-made checkpoint."
    )
    validation: Region | None = Field(
        None,
        description="Labelled volume, apart from those learned from, on which training judges itself; empty = not.",
    )
    test: Region = Field(description="Volume to segment, and to score where it has labels.")
    voxel_size: VoxelSize | None = Field(
        None, description="Nanometres z,y,x; empty = read from the volume, which must then know it."
    )
    sources: list[Source] = Field(default_factory=list, description="Public data to fetch first.")

    @field_validator("train", mode="wrap")
    @classmethod
    def _one_or_several(cls, value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
        """As the union would, but a problem is reported once, for the form that was given."""
        if isinstance(value, list):
            return TypeAdapter(list[TrainingVolume]).validate_python(value) or None
        return value if value is None else TrainingVolume.model_validate(value)

    @property
    def volumes(self) -> dict[str, TrainingVolume]:
        """The volumes to learn from, by the key that a message calls them."""
        if isinstance(self.train, list):
            return {f"data.train.{index}": volume for index, volume in enumerate(self.train)}
        return {} if self.train is None else {"data.train": self.train}

    @property
    def labelled(self) -> dict[str, Region]:
        """`volumes`, then the region to judge on where there is one."""
        return {**self.volumes, **({} if self.validation is None else {"data.validation": self.validation})}


class Synthetic(Section):
    """The embedded EM-like volume (`ffn synth`)."""

    shape: Size = Field((160, 160, 160), description="Voxels.")
    voxel_size: VoxelSize = Field((10.0, 10.0, 10.0), description="Nanometres.")
    neurites: Positive = Field(60, description="Tubular cells that are tried; those that find no room are left out.")
    sheets: NotNegative = Field(6, description="Sheet-like cells (glia) between them.")
    calibre_nm: float = Field(150.0, gt=0, description="Median diameter of a tubular cell before it fills the gaps.")
    membrane_nm: float = Field(30.0, gt=0, description="Thickness of the dark line between two cells.")
    noise: float = Field(0.06, ge=0, description="Standard deviation of the noise, as a fraction of the grey range.")
    unevenness: float = Field(
        0.15, ge=0, le=1, description="Standard deviation of the contrast over the volume, as a fraction of it."
    )


class Network(Section):
    """What the trained weights depend on: training and inference share it."""

    depth: Annotated[int, Field(ge=2)] = Field(9, description="One input module + depth-1 residual modules.")
    features: Positive = Field(32, description="Feature maps of each 3x3x3 convolution.")
    downsample: Size = Field(
        (1, 1, 1),
        description="Image voxels averaged into one network voxel. fov, deltas, prepare.lom_radius, all sizes of "
        "objects and min_boundary_dist count network voxels; boxes, sub-volumes and results count image voxels.",
    )
    fov: Size = Field((33, 33, 33), description="Field of view; odd.")
    deltas: Offset = Field((8, 8, 8), description="Step of the field of view; 0 = never move along that axis.")
    image_mean: float = Field(128.0, description="Subtracted from the image.")
    image_stddev: float = Field(33.0, gt=0, description="The image is divided by it.")
    init_activation: Probability = Field(0.95, description="Object map at the seed voxel.")
    pad_value: Probability = Field(0.05, description="Object map where nothing has been predicted yet.")
    move_threshold: Probability = Field(0.9, description="Object map needed at a face centre to move there.")

    @property
    def fov_in_image_voxels(self) -> Size:
        z, y, x = (size * factor for size, factor in zip(self.fov, self.downsample, strict=True))
        return z, y, x

    @model_validator(mode="after")
    def _fov_is_movable(self) -> "Network":
        for axis, size in zip("zyx", self.fov, strict=True):
            if size % 2 == 0:
                raise ValueError(f"fov {size} along {axis} is even; use an odd number such as {size + 1}.")
        if problems := _beyond_fov("deltas", self.deltas, self.fov):
            raise ValueError("\n".join(problems))
        return self


class Prepare(Section):
    """Partitions and balanced coordinates (`ffn prepare`)."""

    thresholds: list[Annotated[float, Field(gt=0, le=1)]] = Field(
        [0.025, 0.05, 0.075, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9],
        min_length=1,
        max_length=253,
        description="Upper bounds of the partition classes: fraction of the cube filled by the centre's object.",
    )
    lom_radius: Offset | None = Field(None, description="Half size of that cube; empty = fov//2 + deltas.")
    min_size: NotNegative = Field(10_000, description="Objects with fewer voxels count as background.")
    min_boundary_nm: float = Field(
        0.0,
        ge=0,
        description="Training centres within this distance of another object are left out (the published FIB-25 "
        "network: 16).",
    )

    @field_validator("thresholds")
    @classmethod
    def _ascending(cls, values: list[float]) -> list[float]:
        if sorted(set(values)) != values:
            raise ValueError("thresholds must be ascending and without repetition.")
        return values


class Export(Section):
    """Neuroglancer precomputed layers (`ffn export`)."""

    chunk: Size = Field((64, 64, 64), description="Chunk of the layers, z,y,x.")
    mips: NotNegative = Field(3, description="Downsampled levels, each half the resolution.")
    workers: NotNegative = Field(
        0, description="Processes that write side by side; 0 = one for each core. The layers are the same."
    )


class Config(Section):
    """One run of the workflow."""

    run: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="Name; everything goes to results/<run>/.")
    results: str = Field("results", description="Folder of all runs, relative to the working directory.")
    seed: NotNegative = Field(1, description="Decides everything random.")
    data: Data
    synthetic: Synthetic = Field(default_factory=Synthetic)
    network: Network = Field(default_factory=Network)
    prepare: Prepare = Field(default_factory=Prepare)
    training: Training = Field(default_factory=Training)
    augmentation: Augmentation = Field(default_factory=Augmentation)
    allreduce: Allreduce = Field(default_factory=Allreduce)
    threads: Threads = Field(default_factory=Threads)
    inference: Inference = Field(default_factory=Inference)
    assembly: Assembly = Field(default_factory=Assembly)
    agglomeration: Agglomeration = Field(default_factory=Agglomeration)
    export: Export = Field(default_factory=Export)
    cluster: Cluster = Field(default_factory=Cluster)
    study: Study = Field(default_factory=Study)

    @model_validator(mode="after")
    def _parts_agree(self) -> "Config":
        problems = []
        if self.data.train is None and self.inference.checkpoint is None:
            problems.append("data.train is empty and inference.checkpoint too: give one of them.")
        if self.data.train is None and self.data.validation is not None:
            problems.append("data.validation has no effect without data.train: nothing is trained that it could judge.")
        for key, region in self.data.labelled.items():
            if region.labels is None:
                problems.append(f"{key}.labels is empty: training needs ground truth.")
        problems += _not_held_out(self.data)
        for key, region in {**self.data.labelled, "data.test": self.data.test}.items():
            if region.bounds is not None:
                problems += _too_small(key, region.bounds, self.network.fov_in_image_voxels)
        problems += _small_subvolumes(self.inference, self.network)
        if self.allreduce.operation == "adasum" and self.training.virtual_workers > 1:
            problems.append(
                "allreduce.operation adasum combines the gradients of ranks, but those of "
                f"{self.training.virtual_workers} training.virtual_workers are averaged, which is not the same: use "
                "ranks for all workers, or average."
            )
        if self.inference.weights == "best" and self.data.validation is None:
            problems.append("inference.weights is `best`, but data.validation is empty: nothing says which are best.")
        if self.study.lr_study.judged_on == "validation" and self.data.validation is None:
            problems.append("study.lr_study.judged_on is validation, but data.validation is empty.")
        problems += _cannot_grow(self.network, self.inference)
        if isinstance(self.inference.passes, list):
            problems += _pass_problems(self)
        if not problems:
            problems += _cannot_refill(self)
        size, overlap = self.inference.subvolume_size, self.inference.subvolume_overlap
        if size is not None:
            for axis, s, o in zip("zyx", size, overlap, strict=True):
                if o >= s:
                    problems.append(f"inference.subvolume_overlap {o} along {axis} must be smaller than the size {s}.")
        if problems:
            raise ValueError("\n".join(problems))
        return self

    def of_pass(self, number: int) -> "Config":
        """The configuration of one of `inference.passes`: its own settings in place of the section's.

        Raises pydantic's ValidationError where its network is none, which loading has ruled out.
        """
        chosen = self.inference.all_passes[number]
        changes = chosen.model_dump(exclude={"turn", "network"}, exclude_none=True)
        if chosen.quality is not None:
            changes = {**dict.fromkeys(("min_unseen", "join_share")), **changes}
        network = Network.model_validate({**self.network.model_dump(), **chosen.network})
        inference = self.inference.model_copy(update=changes)
        return self.model_copy(update={"inference": inference, "network": network})

    @property
    def deltas(self) -> Offset:
        """Step of the field of view in inference."""
        return self.network.deltas if self.inference.deltas is None else self.inference.deltas

    @property
    def radii(self) -> Radii:
        """How far agglomeration reaches with this network and this step."""
        return self.agglomeration.radii(self.network.fov, self.deltas)


def _pass_problems(config: Config) -> list[str]:
    """What is wrong with passes that are listed, apart from the section itself."""
    problems = []
    for number in range(len(config.inference.all_passes)):
        key = f"inference.passes.{number}"
        try:
            chosen = config.of_pass(number)
        except ValidationError as error:
            for found in error.errors():
                name = ".".join(str(part) for part in found["loc"]) or "network"
                problems.append(f"{key}.network: {name}: {found['msg'].removeprefix('Value error, ')}")
            continue
        problems += [f"{key}: {problem}" for problem in _unfit(chosen) if problem not in _unfit(config)]
        shapes = [(network.depth, network.features) for network in (config.network, chosen.network)]
        if shapes[0] != shapes[1] and config.inference.all_passes[number].checkpoint is None:
            problems.append(
                f"{key}.network: another depth or number of features than the section network needs other weights; "
                f"give {key}.checkpoint."
            )
    return problems


def _unfit(config: Config) -> list[str]:
    """Why a flood fill with these settings would fail or get nowhere."""
    network, box = config.network, config.data.test.bounds
    return [
        *_cannot_grow(network, config.inference),
        *([] if box is None else _too_small("data.test", box, network.fov_in_image_voxels)),
        *_small_subvolumes(config.inference, network),
    ]


def _small_subvolumes(inference: Inference, network: Network) -> list[str]:
    if inference.subvolume_size is None:
        return []
    return [
        f"inference.subvolume_size {size} along {axis} is smaller than the fov {fov}."
        for axis, size, fov in zip("zyx", inference.subvolume_size, network.fov_in_image_voxels, strict=True)
        if size < fov
    ]


def _cannot_grow(network: Network, inference: Inference) -> list[str]:
    """Why no flood fill would get anywhere with what inference sets differently."""
    problems = [] if inference.deltas is None else _beyond_fov("inference.deltas", inference.deltas, network.fov)
    if inference.move_threshold is not None and network.init_activation < inference.move_threshold:
        problems.append(
            f"network.init_activation {network.init_activation} is below inference.move_threshold "
            f"{inference.move_threshold}: no object would ever grow. Lower the threshold."
        )
    return problems


def _cannot_refill(config: Config) -> list[str]:
    """Why no pair could be filled again with the network of the first pass, which must be possible."""
    if not config.agglomeration.enabled:
        return []
    chosen = config.of_pass(0)
    radii = chosen.radii
    problems = [
        f"agglomeration.radius {radius} along {axis} holds no fov {size} that moves; use at least "
        f"{size // 2 + delta} (half the fov and a step)."
        for axis, radius, size, delta in zip("zyx", radii.filled, chosen.network.fov, chosen.deltas, strict=True)
        if radius < size // 2 + delta
    ]
    return problems + [
        f"agglomeration.analysis_radius {inner} along {axis} reaches beyond radius {outer}: only what is filled can be "
        "compared."
        for axis, inner, outer in zip("zyx", radii.compared, radii.filled, strict=True)
        if inner > outer
    ]


def _beyond_fov(key: str, deltas: Offset, fov: Size) -> list[str]:
    return [
        f"{key} {delta} along {axis} leaves the fov {size}; use at most {size // 2}."
        for axis, size, delta in zip("zyx", fov, deltas, strict=True)
        if delta > size // 2
    ]


def _not_held_out(data: Data) -> list[str]:
    held_out = data.validation
    if held_out is None:
        return []
    return [
        f"data.validation overlaps {key}: what is judged on must not be learned from. Give each its own box."
        for key, volume in data.volumes.items()
        if volume.image == held_out.image
        and (
            volume.bounds is None or held_out.bounds is None or volume.bounds.intersection(held_out.bounds) is not None
        )
    ]


def _too_small(key: str, box: Box, fov: Size) -> list[str]:
    return [
        f"{key}.box has {n} voxels along {axis}, fewer than the network's fov {f}."
        for axis, n, f in zip("zyx", box.shape, fov, strict=True)
        if n < f
    ]
