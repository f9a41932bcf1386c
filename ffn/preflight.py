"""What reading headers can show before anything runs: every problem of a configuration's inputs at once."""

from collections.abc import Callable, Mapping
from fractions import Fraction
from itertools import combinations
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from ffn.config import Config, Region, overlap_problems
from ffn.config.load import examine, report_of
from ffn.config.masks import SHIFT_CHANNELS, Mask, ShiftMask
from ffn.config.reach import lom_radius, training_margin
from ffn.config.seeds import PolicyInvertOrigins
from ffn.errors import ConfigError, FFNError
from ffn.geometry import ZYX, Box
from ffn.runs import ORIGINS, SYNTHETIC, checkpoint_files, has_origins
from ffn.volumes import (
    Volume,
    VoxelSize,
    as_labels,
    as_uint8,
    check_fov,
    check_pair,
    coarse_shape,
    open_volume,
    require_scale,
    scale_of,
)

T = TypeVar("T")


def require_training_inputs(config: Config) -> None:
    """Raise one ConfigError with everything that `check_inputs` finds in what training reads."""
    problems = list(dict.fromkeys(_labelled_problems(config)))
    if problems:
        count = f"{len(problems)} problem" + ("s" if len(problems) > 1 else "")
        lines = "\n".join(f"  - {problem}" for problem in problems)
        raise ConfigError(f"The training data of run '{config.run}' have {count}:\n{lines}")


def checked(values: Mapping[str, Any], name: str, inputs: bool = True) -> Config:
    """The configuration in `values`. Raises ConfigError with all its problems: of keys and, if asked, of inputs."""
    found = examine(values)
    problems = found.also(check_inputs(found.config) if inputs and found.config is not None else [])
    if found.config is None or problems:
        raise ConfigError(report_of(problems, name))
    return found.config


def check_inputs(config: Config) -> list[str]:
    """Problems of the volumes and the checkpoint, each a sentence that begins with its key.

    Only headers are read. What a source of the configuration will bring is left out until it is there, what
    `ffn synth` will make is taken from the section `synthetic`.
    """
    test = _Inputs(config, "data.test", config.data.test)
    problems = [
        *_labelled_problems(config),
        *test.problems(),
        *_checkpoint_problems(config),
        *_pass_problems(config),
        *_seed_problems(config),
        *_given_problems(config),
        *_mask_problems(config, test.voxel_size),
        *_cutting_problems(config),
    ]
    return list(dict.fromkeys(problems))


def _labelled_problems(config: Config) -> list[str]:
    problems = []
    labelled = [_Inputs(config, key, region) for key, region in config.data.labelled.items()]
    for inputs in labelled:
        problems += inputs.problems()
        problems += _training_problems(config, inputs.key, inputs.region)
    return [*problems, *_disagreements(labelled), *_permuted_fov_problems(config)]


class _Inputs:
    """The image and labels of one region; `dtype` and `voxel_size` of the image are known after `problems`."""

    def __init__(self, config: Config, key: str, region: Region) -> None:
        self.key, self.region = key, region
        self.dtype: np.dtype[Any] | None = None
        self.voxel_size: VoxelSize | None = None
        self._config = config
        self._found: list[str] = []

    def problems(self) -> list[str]:
        region = self.region
        image = self._open("image", region.image, self._grey)
        labels = None if region.labels is None else self._open("labels", region.labels, as_labels)
        if image is not None and labels is not None:
            self._try("labels", lambda: check_pair(image, labels))
        shape = self._config.synthetic.shape if region.image == SYNTHETIC else None
        self.voxel_size = self._config.synthetic.voxel_size if region.image == SYNTHETIC else None
        if image is not None:
            shape, self.voxel_size = image.shape, image.voxel_size
        if shape is not None:
            self._check_extent(shape)
        self.voxel_size = self._config.data.voxel_size or self.voxel_size
        self._check_voxel_size(image)
        for volume in (image, labels):
            if volume is not None:
                volume.close()
        return self._found

    def _grey(self, image: Volume) -> Volume:
        converted, self.dtype = as_uint8(image), image.dtype
        return converted

    def _open(self, name: str, uri: str, convert: Callable[[Volume], Volume]) -> Volume | None:
        if uri == SYNTHETIC or _will_be_fetched(self._config, Path(uri)):
            return None
        return self._try(name, lambda: convert(open_volume(uri)))

    def _try(self, name: str, action: Callable[[], T]) -> T | None:
        try:
            return action()
        except FFNError as error:
            self._found.append(f"{self.key}.{name}: {error}")
            return None

    def _check_extent(self, shape: ZYX) -> None:
        box = self.region.bounds
        if box is not None and not Box.of_shape(shape).contains(box):
            z, y, x = shape
            self._found.append(f"{self.key}.box: {box} is outside the image, which has {z} x {y} x {x} voxels (z,y,x).")
            return
        extent = shape if box is None else box.shape
        self._try(
            "image" if box is None else "box", lambda: check_fov(extent, self._config.network.fov_in_image_voxels)
        )

    def _check_voxel_size(self, image: Volume | None) -> None:
        if self.voxel_size is not None:
            if self.key in self._config.data.volumes:
                self._found += _permuted_voxel_problems(self._config, self.voxel_size)
        elif image is not None:
            self._found.append(
                f"{self.key}.image: {image.uri} does not state its voxel size; give data.voxel_size in nanometres "
                "(z,y,x)."
            )


def _disagreements(inputs: list[_Inputs]) -> list[str]:
    """Volumes that one network cannot learn from together, each compared with the first that tells."""
    problems = []
    types = [(one.key, one.region.image, one.dtype) for one in inputs if one.dtype is not None]
    for key, uri, dtype in types[1:]:
        first_key, first_uri, first = types[0]
        if dtype != first:
            problems.append(
                f"{key}.image: {uri} holds {dtype}, but {first_uri} of {first_key} {first}; their grey values would be "
                "scaled differently. Convert one of them."
            )
    sizes = [(one.key, one.region.image, one.voxel_size) for one in inputs if one.voxel_size is not None]
    for key, uri, size in sizes[1:]:
        first_key, first_uri, first_size = sizes[0]
        if not np.allclose(size, first_size, rtol=0.01):
            problems.append(
                f"{key}.image: the voxels of {uri} are {_nanometres(size)}, but those of {first_uri} of {first_key} "
                f"{_nanometres(first_size)}; one network learns from one voxel size. Resample one of them."
            )
    return problems


def _nanometres(voxel_size: VoxelSize) -> str:
    return " x ".join(f"{edge:g}" for edge in voxel_size) + " nm (z,y,x)"


def _will_be_fetched(config: Config, path: Path) -> bool:
    """Whether the path lies in a source's folder that is not there yet."""
    folders = [Path(source.folder) for source in config.data.sources]
    return any(folder in (path, *path.parents) and not folder.exists() for folder in folders)


def _training_problems(config: Config, key: str, region: Region) -> list[str]:
    """A region that holds the field of view, but not a training example or the cube of the partitions."""
    known = _known_extent(config, region)
    if known is None:
        return []
    extent = coarse_shape(known, config.network.downsample)
    needs = {
        "training example (fov and its moves)": training_margin(config),
        "cube that partitions are counted in (prepare.lom_radius)": lom_radius(config),
    }
    return [
        f"{key}: the {what} takes {2 * radius + 1} network voxels along {axis}, the region has {size}; use a "
        "larger region, or a smaller network.fov or deltas."
        for what, radii in needs.items()
        for axis, size, radius in zip("zyx", extent, radii, strict=True)
        if size < 2 * radius + 1
    ]


def _known_extent(config: Config, region: Region) -> ZYX | None:
    return _image_shape(config, region) if region.bounds is None else region.bounds.shape


def _image_shape(config: Config, region: Region) -> ZYX | None:
    if region.image == SYNTHETIC:
        return config.synthetic.shape
    if _will_be_fetched(config, Path(region.image)):
        return None
    try:
        with open_volume(region.image) as image:
            return image.shape
    except FFNError:
        return None  # reported where the image itself is checked


def _chosen_axes(config: Config) -> list[str]:
    """Axes that the configuration itself says may be swapped."""
    axes = config.training.permutable_axes
    return [] if axes == "auto" else list(axes)


def _permuted_voxel_problems(config: Config, voxel_size: VoxelSize) -> list[str]:
    coarse = [edge * factor for edge, factor in zip(voxel_size, config.network.downsample, strict=True)]
    sizes = dict(zip("zyx", coarse, strict=True))
    return [
        f"training.permutable_axes: {a} and {b} differ in voxel size ({sizes[a]:g} and {sizes[b]:g} nm); only equal "
        "axes can be swapped."
        for a, b in combinations(_chosen_axes(config), 2)
        if sizes[a] != sizes[b]
    ]


def _permuted_fov_problems(config: Config) -> list[str]:
    if config.data.train is None:
        return []
    network = config.network
    sizes = {axis: (f, d) for axis, f, d in zip("zyx", network.fov, network.deltas, strict=True)}
    return [
        f"training.permutable_axes: {a} and {b} differ in network.fov or deltas ({sizes[a]} and {sizes[b]}); only "
        "equal axes can be swapped."
        for a, b in combinations(_chosen_axes(config), 2)
        if sizes[a] != sizes[b]
    ]


def _cutting_problems(config: Config) -> list[str]:
    extent = _known_extent(config, config.data.test)
    return [] if extent is None else overlap_problems(extent, config.inference, config.assembly)


def _checkpoint_problems(config: Config) -> list[str]:
    inference = config.inference
    named = {"inference.checkpoint": inference.checkpoint}
    if isinstance(inference.passes, list):
        listed = enumerate(inference.passes)
        named |= {f"inference.passes.{number}.checkpoint": chosen.checkpoint for number, chosen in listed}
        if all(chosen.checkpoint for chosen in inference.passes):
            del named["inference.checkpoint"]
    return [
        f"{key}: there is no checkpoint {name} ({_missing(name)})."
        for key, name in named.items()
        if name is not None and not checkpoint_files(Path(name)) and not _will_be_fetched(config, Path(name))
    ]


def _missing(checkpoint: str) -> str:
    archive = checkpoint.endswith(".npz")
    return f"no file {checkpoint}" if archive else f"no file {checkpoint}.index, or no {checkpoint}.data-..."


def _pass_problems(config: Config) -> list[str]:
    """Passes whose field of view is larger than the test region, where the one of the section is not."""
    extent = _known_extent(config, config.data.test)
    problems = []
    for number in range(len(config.inference.all_passes)):
        fov = config.of_pass(number).network.fov_in_image_voxels
        try:
            if extent is not None and fov != config.network.fov_in_image_voxels:
                check_fov(extent, fov, "the test region")
        except FFNError as error:
            problems.append(f"inference.passes.{number}.network: {error}")
    return problems


def _seed_problems(config: Config) -> list[str]:
    return [
        f"inference.seed_policy: there is no folder {policy.folder} with the {ORIGINS} of an earlier run."
        for policy in config.inference.seed_policy
        if isinstance(policy, PolicyInvertOrigins) and not has_origins(Path(policy.folder))
    ]


def _given_problems(config: Config) -> list[str]:
    """Segments to begin with that cannot be read, or do not cover the test image."""
    uri, shape = config.inference.init_segmentation, _image_shape(config, config.data.test)
    if uri is None or _will_be_fetched(config, Path(uri)):
        return []
    try:
        with as_labels(open_volume(uri)) as labels:
            there = labels.shape
    except FFNError as error:
        return [f"inference.init_segmentation: {error}"]
    if shape is None or there == shape:
        return []
    return [
        f"inference.init_segmentation: {uri} has {there} voxels (z,y,x), the image of data.test {shape}; each voxel of "
        "the image needs one label."
    ]


def _mask_problems(config: Config, voxel_size: VoxelSize | None) -> list[str]:
    """Masks that cannot be read, or that do not cover the test image."""
    shape, inference = _image_shape(config, config.data.test), config.inference
    listed = {"inference.masks": inference.masks, "inference.seed_masks": inference.seed_masks}
    problems = []
    for key, masks in listed.items():
        for number, mask in enumerate(masks):
            problems += _one_mask_problems(config, f"{key}.{number}", mask, shape, voxel_size)
    if inference.shift_mask is not None:
        problems += _shift_problems(config, inference.shift_mask, shape)
    return problems


def _one_mask_problems(
    config: Config, key: str, mask: Mask, shape: ZYX | None, voxel_size: VoxelSize | None
) -> list[str]:
    if mask.volume is None:
        return [
            f"{key}.boxes: {box} is outside the image, which has {' x '.join(map(str, shape))} voxels (z,y,x)."
            for box in mask.parsed_boxes
            if shape is not None and box.intersection(Box.of_shape(shape)) is None
        ]
    if _will_be_fetched(config, Path(mask.volume)):
        return []
    try:
        with open_volume(mask.volume, channel=mask.channel) as volume:
            if shape is not None:
                scale_of(volume, shape, voxel_size)
    except FFNError as error:
        return [f"{key}.volume: {error}"]
    return []


def _shift_problems(config: Config, mask: ShiftMask, shape: ZYX | None) -> list[str]:
    if _will_be_fetched(config, Path(mask.volume)):
        return []
    try:
        for channel in SHIFT_CHANNELS:
            with open_volume(mask.volume, channel=channel) as volume:
                if shape is not None:
                    require_scale(volume, shape, (Fraction(1), Fraction(mask.scale), Fraction(mask.scale)))
    except FFNError as error:
        return [f"inference.shift_mask.volume: {error}"]
    return []
