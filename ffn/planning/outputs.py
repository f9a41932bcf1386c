"""Files and bytes that a run leaves on disk, by stage."""

from dataclasses import dataclass
from math import ceil, prod

from ffn.blockwise import Grid
from ffn.bundles import UNITS as UNITS_OF_ARCHIVE
from ffn.config import Config
from ffn.geometry import ZYX, Box
from ffn.planning.extent import Extent, region_shape
from ffn.planning.records import tile_records
from ffn.planning.steps import layer_specs
from ffn.prepare.volume import Limits
from ffn.runs import SYNTHETIC
from ffn.volumes import shard_of

LABELS, LAYER_LABELS, LAYER_IMAGE = 0.14, 0.05, 1.0
"""Bytes a voxel as they are written: compressed labels in HDF5, in a layer, grey values in a layer. Measured on the
FIB-25 sample of 250^3 voxels and its ground truth."""
_STATE, _STATE_FILES = 8, 3
"""Bytes a voxel of a saved state, at most; state, settings and lock of a sub-volume that is being filled."""
_PREPARED = 10
"""Bytes a voxel of the volumes with labels: the class of each, and at most its place among the centres."""
_ASSEMBLY_FILES, _AGGLOMERATION_FILES, _EXPORT_FILES = 6, 10, 3
"""Beside the shards: markers, metadata of the store, and lists."""
_SYNTH_FILES, _EVALUATION_FILES, _MARKERS, _VOLUME_FILES = 3, 4, 2, 3
_TRAINING_FILES, _CHECKPOINT_FILES, _BEST_FILES = 8, 3, 3
"""Of a training, of one of its checkpoints beside one file a rank, and of the weights that were best."""
_JOB_FILES = 2
"""Of a job: its marker and its log."""
_TILE_FILES, _SMALL_FILE = 6, 4096
"""In an archive, for each sub-volume beside its labels; and bytes of a small file."""


@dataclass(frozen=True)
class Output:
    """Files of one kind, and their bytes."""

    name: str
    files: int
    bytes: int


@dataclass(frozen=True)
class Cut:
    """How a run is cut into jobs, as far as files follow from it.

    Attributes:
        tiles_per_job: Sub-volumes of a batch.
        ranks: Processes that share a batch.
        at_once: Sub-volumes that are being filled at one time.
        training_ranks: Each leaves a file with every checkpoint.
        step_jobs: Jobs of steps of blockwise stages.
    """

    tiles_per_job: int = 1
    ranks: int = 1
    at_once: int = 1
    training_ranks: int = 1
    step_jobs: int = 0


def outputs(config: Config, extent: Extent, cut: Cut) -> list[Output]:
    """What is written, by kind."""
    records, passes = tile_records(config), len(config.inference.all_passes)
    density = sum(r.label_bytes for r in records) / sum(r.voxels for r in records) if records else LABELS
    at_once = min(cut.at_once, extent.count * passes)
    labels = int(extent.filled * density)
    sub_volumes = _pass_files(extent.count, cut) * passes + (_consensus_files(extent.count, cut) if passes > 1 else 0)
    written = passes + (1 if passes > 1 else 0)
    return [
        *_before(config, cut),
        Output("sub-volumes", sub_volumes, written * (labels + extent.count * _TILE_FILES * _SMALL_FILE)),
        Output("saved states, while running", at_once * _STATE_FILES, at_once * extent.tile_voxels * _STATE),
        Output("assembled volume", _shards(config, extent) + _ASSEMBLY_FILES, int(extent.voxels * density)),
        *_agglomerated(config, extent, density),
        _layers(config, extent),
        _around(config, cut),
    ]


def _pass_files(count: int, cut: Cut) -> int:
    """Of a pass: its marker, and of each batch that of its job, and of each process archives, a ledger and a record."""
    full, rest = divmod(count, cut.tiles_per_job)
    batches = [cut.tiles_per_job] * full + ([rest] if rest else [])
    of_processes = sum(_archives(tiles, min(cut.ranks, tiles)) + 2 * min(cut.ranks, tiles) for tiles in batches)
    return 1 + _JOB_FILES * len(batches) + of_processes


def _consensus_files(count: int, cut: Cut) -> int:
    """Of the consensus, if each sub-volume of a batch is joined by a process of its own: no more than that."""
    batches = ceil(count / cut.tiles_per_job)
    return 1 + (_JOB_FILES + 1) * batches + count


def _archives(tiles: int, ranks: int) -> int:
    return sum(ceil(len(range(rank, tiles, ranks)) / UNITS_OF_ARCHIVE) for rank in range(ranks))


def _before(config: Config, cut: Cut) -> list[Output]:
    """What is there before inference: the embedded volume, and what a training takes and leaves."""
    regions, trains = list(config.data.labelled.values()), config.inference.checkpoint is None
    found = []
    if any(SYNTHETIC in (region.image, region.labels) for region in [*regions, config.data.test]):
        found.append(Output("embedded volume", _SYNTH_FILES + 1, 9 * prod(config.synthetic.shape)))
    if not trains or config.data.train is None:
        return found
    shapes = [shape for region in regions if (shape := region_shape(config, region)) is not None]
    files = _MARKERS + 1 + sum(_VOLUME_FILES + _partition_shards(shape) for shape in shapes)
    found.append(Output("prepared volumes", files, _PREPARED * sum(prod(shape) for shape in shapes)))
    training = config.training
    # The end of the last step is no checkpoint: there are the weights themselves.
    kept = min(training.keep_checkpoints, (training.steps - 1) // training.checkpoint_every)
    files = kept * (_CHECKPOINT_FILES + cut.training_ranks) + _TRAINING_FILES + 1
    best = 0 if config.data.validation is None else _BEST_FILES
    return [*found, Output("training", files + best, (files + best) * _SMALL_FILE)]


def _partition_shards(shape: ZYX) -> int:
    """Files of the partitions of a volume so large that they are in a store."""
    if prod(shape) <= Limits().listed:
        return 0
    return len(Grid(Box.of_shape(shape), shard_of(shape, Limits().block)))


def _shards(config: Config, extent: Extent) -> int:
    """Files of a segmentation of the region, if none of them holds only zeros."""
    shard = config.assembly.shard or shard_of(extent.region, config.assembly.block)
    return len(Grid(Box.of_shape(extent.region), shard))


def _agglomerated(config: Config, extent: Extent, density: float) -> list[Output]:
    if not config.agglomeration.enabled:
        return []
    files = _shards(config, extent) + _AGGLOMERATION_FILES
    return [Output("agglomerated volume", files, int(extent.voxels * density))]


def _layers(config: Config, extent: Extent) -> Output:
    layers = layer_specs(config, extent)
    size = 0.0
    for layer in layers:
        voxels = sum(level.box.voxels for level in layer.pyramid)
        size += voxels * (LAYER_IMAGE if layer.kind == "image" else LAYER_LABELS)
    return Output("layers for Neuroglancer", sum(layer.files for layer in layers) + _EXPORT_FILES, int(size))


def _around(config: Config, cut: Cut) -> Output:
    """Scores, report, the configuration, the logs of the stages behind inference and what their jobs leave."""
    scores, trains = config.data.test.labels is not None, config.inference.checkpoint is None
    stages = 3 + scores + config.agglomeration.enabled  # assembly, export, report
    report = _MARKERS + 1 + 2 * scores + trains
    files = 1 + stages + report + _EVALUATION_FILES * scores + _JOB_FILES * cut.step_jobs
    return Output("scores, report, logs", files, files * _SMALL_FILE)
