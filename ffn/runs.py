"""Where a run keeps its files: results/<run>/, one folder a stage."""

import re
from dataclasses import dataclass
from pathlib import Path

from ffn.batches import Batch
from ffn.config import Config, Region

SYNTHETIC = "synthetic"
SEGMENTATION = "segmentation.h5"
"""Labels of a sub-volume; and those of a whole run that a version before there were stores wrote; dataset `labels`."""
SEGMENTATION_STORE = "segmentation.zarr"
"""Labels of a whole run, see `ffn.volumes.store`."""
ORIGINS = "origins.json"


@dataclass(frozen=True)
class VolumeFiles:
    """What `ffn prepare` makes of one volume with labels, in `folder`."""

    folder: Path

    @property
    def seeds(self) -> Path:
        return self.folder / "seeds.csv"

    @property
    def partitions(self) -> Path:
        """HDF5 with `partitions`."""
        return self.folder / "partitions.h5"

    @property
    def partitions_store(self) -> Path:
        """The same of a very large volume, as a zarr store."""
        return self.folder / "partitions.zarr"

    @property
    def coordinates(self) -> Path:
        return self.folder / "coordinates.h5"


@dataclass(frozen=True)
class RunPaths:
    """Paths of one run, all below `root`."""

    root: Path
    agglomerates: bool = False

    @classmethod
    def of(cls, config: Config) -> "RunPaths":
        return cls(Path(config.results) / config.run, config.agglomeration.enabled)

    @property
    def synth(self) -> Path:
        return self.root / "synth"

    @property
    def synthetic_volume(self) -> Path:
        """HDF5 with `image` and `labels`."""
        return self.synth / "volume.h5"

    @property
    def prepare(self) -> Path:
        return self.root / "prepare"

    def training_volume(self, index: int, count: int) -> VolumeFiles:
        """Files of one of `count` training volumes: a single one needs no folder of its own."""
        return VolumeFiles(self.prepare if count == 1 else self.prepare / f"volume-{index:02d}")

    @property
    def validation_volume(self) -> VolumeFiles:
        return VolumeFiles(self.prepare / "validation")

    @property
    def train(self) -> Path:
        return self.root / "train"

    @property
    def trained_checkpoint(self) -> Path:
        """Prefix of the final weights."""
        return self.train / "model.ckpt"

    @property
    def best_checkpoint(self) -> Path:
        """Prefix of the weights that were best on data.validation."""
        return self.train / "best.ckpt"

    @property
    def infer(self) -> Path:
        return self.root / "infer"

    @property
    def infer_jobs(self) -> Path:
        """What the jobs of inference leave behind: a marker of each batch of sub-volumes, and how fast it went."""
        return self.infer / "jobs"

    @property
    def speed(self) -> Path:
        """What `ffn plan --measure` found."""
        return self.root / "plan" / "speed.json"

    def infer_pass(self, number: int = 0) -> Path:
        """Folder of one pass over all sub-volumes."""
        return self.infer / f"pass-{number}"

    @property
    def consensus(self) -> Path:
        """Folder of what several passes agree on."""
        return self.infer / "consensus"

    def filled(self, passes: int) -> Path:
        """Folder of the sub-volumes that are assembled, of a run of so many passes."""
        return self.consensus if passes > 1 else self.infer_pass()

    def tile(self, index: int) -> Path:
        """Folder of one sub-volume while it is being filled."""
        return self.infer / f"tile-{index:04d}"

    def tile_pass(self, index: int, number: int) -> Path:
        """The same of one of several passes."""
        return self.tile(index) / f"pass-{number}"

    @property
    def assemble(self) -> Path:
        return self.root / "assemble"

    @property
    def agglomerate(self) -> Path:
        return self.root / "agglomerate"

    @property
    def segmented(self) -> Path:
        """Folder of the stage whose segmentation is the run's result; the command that makes it has the same name."""
        return self.agglomerate if self.agglomerates else self.assemble

    @property
    def segmentation(self) -> str:
        """URI of the labels with global ids: the run's result."""
        return labels_in(self.segmented)

    @property
    def assembled(self) -> str:
        """URI of the labels with global ids, before agglomeration."""
        return labels_in(self.assemble)

    @property
    def evaluate(self) -> Path:
        return self.root / "evaluate"

    @property
    def scores(self) -> Path:
        return self.evaluate / "scores.json"

    @property
    def export(self) -> Path:
        return self.root / "export"

    @property
    def report(self) -> Path:
        return self.root / "report"


def labels_in(folder: Path) -> str:
    """URI of the labels that `assemble` or `agglomerate` made in its folder; of an older version, those in HDF5."""
    older = folder / SEGMENTATION
    return f"{older}:labels" if older.exists() else f"{folder / SEGMENTATION_STORE}/0"


def has_origins(folder: Path) -> bool:
    """Whether a folder holds lists of segments with their seeds: of one sub-volume, or of those of a run."""
    return (folder / ORIGINS).is_file() or next(folder.glob("pass-*/ledger/*/*.jsonl"), None) is not None


def image_uri(config: Config, region: Region) -> str:
    """The region's image, with `synthetic` resolved."""
    return f"{RunPaths.of(config).synthetic_volume}:image" if region.image == SYNTHETIC else region.image


def labels_uri(config: Config, region: Region) -> str | None:
    """The region's ground truth, with `synthetic` resolved; None where there is none."""
    return f"{RunPaths.of(config).synthetic_volume}:labels" if region.labels == SYNTHETIC else region.labels


def checkpoint_prefix(config: Config) -> Path:
    """Weights for inference: the configured checkpoint, else what this run trains."""
    ready_made, paths = config.inference.checkpoint, RunPaths.of(config)
    if ready_made is not None:
        return Path(ready_made)
    return paths.best_checkpoint if config.inference.weights == "best" else paths.trained_checkpoint


def checkpoint_files(checkpoint: Path) -> list[Path]:
    """Files of weights: an archive NAME.npz, or PREFIX.index and PREFIX.data-*; empty where they are not all there."""
    if checkpoint.suffix == ".npz" and checkpoint.is_file():
        return [checkpoint]
    prefix = checkpoint.with_name(re.sub(r"\.(index|data-\d+-of-\d+)$", "", checkpoint.name))
    index = prefix.with_name(f"{prefix.name}.index")
    data = sorted(prefix.parent.glob(f"{prefix.name}.data-*"))
    return [index, *data] if index.is_file() and data else []


@dataclass(frozen=True)
class MarkedBatch:
    """A batch that has a marker: of the sub-volumes, or of one pass over them."""

    path: Path
    batch: Batch
    number: int | None

    @classmethod
    def read(cls, path: Path) -> "MarkedBatch | None":
        """Of the name of a marker, or None if it is none."""
        name, _, number = path.stem.partition("-pass-")
        batch = Batch.parse(name)
        return None if batch is None else cls(path, batch, int(number) if number else None)
