"""One prepared volume as training reads it: image, labels, and the stream of centres."""

from ffn.config import Config, Region
from ffn.errors import ConfigError, GeometryError, VolumeError
from ffn.geometry import ZYX
from ffn.prepare.coordinates import CoordinateStream
from ffn.runs import VolumeFiles, image_uri, labels_uri
from ffn.training.region import CACHE_BYTES, TrainingRegion
from ffn.volumes import coarsen, open_image, open_labels


class ExampleVolume:
    """A region of the configuration with the files that `ffn prepare` made of it.

    Attributes:
        key: What the configuration calls the region.
        image: uint8 grey values, in network voxels.
        labels: Of the same shape.
        centres: The stream of example centres, of all lanes together.
        zero_is_unknown: Whether nothing is known of voxels with label 0.
    """

    def __init__(
        self, config: Config, key: str, region: Region, files: VolumeFiles, seed: int, cache_bytes: int = CACHE_BYTES
    ) -> None:
        """Open a region; `seed` decides the order of its centres, `cache_bytes` is for image and labels each.

        Raises ConfigError without labels, VolumeError where image and labels differ in shape, DataError where the
        region is not prepared.
        """
        uri = labels_uri(config, region)
        if uri is None:
            raise ConfigError(f"{key}.labels is empty: training needs ground truth.")
        factors = config.network.downsample
        image = open_image(image_uri(config, region), box=region.bounds, voxel_size=config.data.voxel_size)
        truth = open_labels(uri, box=region.bounds)
        self.key = key
        self.image = TrainingRegion(coarsen(image, factors, labels=False), cache_bytes)
        self.labels = TrainingRegion(coarsen(truth, factors, labels=True), cache_bytes)
        if self.image.shape != self.labels.shape:
            raise VolumeError(
                f"The image of {key} has {self.image.shape} voxels (zyx) and its labels {self.labels.shape}: "
                "give volumes of the same shape."
            )
        self.centres = CoordinateStream(files.coordinates, seed)
        self.zero_is_unknown = region.label_zero == "unknown"

    @property
    def held_bytes(self) -> int:
        """Memory that the larger of image and labels takes."""
        return max(self.image.held_bytes, self.labels.held_bytes)

    def require_room(self, size: ZYX) -> None:
        """Raise GeometryError unless a patch of `size` fits into the region."""
        if any(p > n for p, n in zip(size, self.image.shape, strict=True)):
            raise GeometryError(
                f"A training example takes {size} voxels (zyx: fov and moves), more than the {self.image.shape} of "
                f"{self.key}: use a smaller fov or deltas, or a larger region."
            )
