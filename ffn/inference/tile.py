"""What is to be filled, and what decides the result."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ffn.config import Config
from ffn.config.inference import OF_CONSENSUS, WITHOUT_EFFECT
from ffn.errors import GeometryError, StageError
from ffn.geometry import ZYX, Box
from ffn.inference.fingerprint import checkpoint_fingerprint
from ffn.inference.results import ORIGINS_FILE, SEGMENTATION_FILE, STATE_FILE
from ffn.stages import Stage, done_digest
from ffn.volumes import open_image

_FREE = {
    *("checkpoint", "weights", "quality", "min_unseen", "join_share"),
    *("subvolume_size", "subvolume_overlap", "passes", *OF_CONSENSUS),
}
"""Settings that come in by another name, or only decide what happens to a finished sub-volume."""


@dataclass(frozen=True)
class Tile:
    """One sub-volume to be filled.

    Attributes:
        image: URI of the grey values.
        checkpoint: Prefix of the weights.
        box: zyx voxels of the image; None = all of it. It is segmented as if it were the whole volume.
        output: Folder of the results. Complete with the same settings: nothing is done. Unfinished: continued.
        turn: 0 sees the box as it is, each other number turned its own way.
        may_be_empty: Whether a box without seeds gives an empty result (one tile of many) or a DataError.
        seeds: Places in the image, zyx voxels, in which to begin, instead of those of `inference.seed_policy`.
        index: Its number among the sub-volumes of a run.
    """

    image: str
    checkpoint: Path
    box: Box | None
    output: Path
    turn: int = 0
    may_be_empty: bool = False
    seeds: tuple[ZYX, ...] = ()
    index: int = 0

    def place(self, config: Config) -> Box:
        """The voxels of the image. Raises GeometryError where they lie outside it or do not hold a field of view."""
        with open_image(self.image, voxel_size=config.data.voxel_size) as volume:
            box = Box.of_shape(volume.shape) if self.box is None else volume.view(self.box).bounds
        for axis, size, fov in zip("zyx", box.shape, config.network.fov_in_image_voxels, strict=True):
            if size < fov:
                raise GeometryError(
                    f"Box {box} has {size} voxels along {axis}, fewer than the network's fov {fov}. "
                    "Choose a larger box, or a network with a smaller fov."
                )
        return box

    def stage(self, config: Config, box: Box) -> Stage:
        """The folder, bound to all that decides the labels."""
        weights = {"checkpoint_sha256": checkpoint_fingerprint(self.checkpoint)}
        return Stage(self.output, {**self.settings(config, box), **weights, **_given(config)})

    def settings(self, config: Config, box: Box) -> dict[str, Any]:
        """All that decides the labels but the weights; not how often states are saved, or by how many threads."""
        inference, ignored = config.inference, _FREE | WITHOUT_EFFECT
        settings: dict[str, Any] = {
            "image": self.image,
            "box": str(box),
            "voxel_size": config.data.voxel_size,
            "network": config.network.model_dump(),
            "pass": self.turn,
            "inference": {
                **{key: value for key, value in inference.model_dump().items() if key not in ignored},
                "least_unseen": inference.least_unseen,
                "offers_compared": inference.offers_compared,
                "least_joined": inference.least_joined,
            },
        }
        return {**settings, "seeds": self.seeds} if self.seeds else settings


def _given(config: Config) -> dict[str, str]:
    """Which version of the segments to begin with, where they are the result of a stage."""
    uri = config.inference.init_segmentation
    above = [] if uri is None else list(Path(uri).parents)[:2]  # the array may be named inside its store
    made_in = next((folder for folder in above if (folder / "done.json").is_file()), None)
    if made_in is None:
        return {}
    return {"init_segmentation_done": done_digest(made_in, "ffn assemble")}


def refuse_foreign(stage: Stage) -> None:
    """Raise StageError where results lie in the folder and nothing says what made them."""
    found = [name for name in (SEGMENTATION_FILE, ORIGINS_FILE, STATE_FILE) if (stage.folder / name).exists()]
    if found and not stage.started_marker.exists():
        raise StageError(
            f"{stage.folder} already holds {', '.join(found)}, but no started.json that says what made it. "
            "Choose another output folder, or delete that one."
        )
