"""The steps of a run's blockwise stages: their units, their work and what a worker holds.

The work of a step is a number of core-nanoseconds a voxel, measured (see each) on servers of two cores (AMD EPYC, Intel
Xeon), and scaled by the voxels of the region.
"""

from dataclasses import dataclass
from math import ceil, prod
from typing import TYPE_CHECKING

from ffn.assembly.evidence import groups
from ffn.assembly.spec import looks_twice, worker_bytes
from ffn.blockwise import Grid
from ffn.config import Config
from ffn.evaluation.tables import Tables, blocks_of
from ffn.geometry import Box
from ffn.planning.extent import Extent, region_shape
from ffn.planning.memory import PROCESS_BYTES
from ffn.planning.rates import known_speed
from ffn.prepare.volume import Limits
from ffn.volumes import shard_of

if TYPE_CHECKING:
    from ffn.export.layer import LayerSpec


@dataclass(frozen=True)
class StepWork:
    """A step of a stage.

    Attributes:
        units: How many there are; 1 = a reduce, which one process does.
        core_seconds: Of all units; of a step on devices those of a process.
        worker_bytes: Held by each process.
        on_devices: Whether a node has as many processes as inference, not one for each core.
    """

    stage: str
    step: str
    units: int
    core_seconds: float
    worker_bytes: int
    on_devices: bool = False


def steps_of(config: Config, extent: Extent, fovs_per_s: float | None = None) -> list[StepWork]:
    """All steps that may be jobs of their own, by stage and in their order.

    Args:
        config: Of the run.
        extent: Its test region.
        fovs_per_s: Fields of view a second of a process; None = as the run has measured.
    """
    joining = _agglomeration(config, extent, fovs_per_s) if config.agglomeration.enabled else []
    scores = [] if config.data.test.labels is None else _evaluation(extent)
    training = [] if config.data.train is None or config.inference.checkpoint is not None else _preparation(config)
    return [*training, *_assembly(config, extent), *joining, *scores, *_export(config, extent)]


_OVERLAPS, _LABELS, _PIECES, _TOUCHING, _RENUMBERED = 60, 190, 330, 10, 60
"""Core-nanoseconds: a voxel that sub-volumes share, and a voxel of the region in each of these steps of the assembly
(`python benchmarks/long/assembly_throughput.py --sizes 500`): 203 were measured in all, 219 with pieces; the steps are
rather given too much."""
_ID, _PIECE = 1200, 1000
"""Core-nanoseconds a segment and a piece (`union_find.py`, `split_reduce.py` in benchmarks/long)."""
_SEGMENTS, _PIECES_OF = 1 / 20_000, 1 / 10_000
"""A voxel: segments, and pieces of objects."""


def _assembly(config: Config, extent: Extent) -> list[StepWork]:
    rule, voxels = config.assembly, extent.voxels
    shard = rule.shard or shard_of(extent.region, rule.block)
    units, held = len(Grid(Box.of_shape(extent.region), shard)), worker_bytes(rule, shard)
    shared = max(extent.filled - voxels, 0)

    def step(name: str, count: int, nanoseconds: float) -> StepWork:
        return StepWork("assemble", name, count, nanoseconds * 1e-9, held)

    first = [
        step("overlaps", len(groups(extent.count)), _OVERLAPS * shared),
        step("ids", 1, _ID * _SEGMENTS * extent.filled),
    ]
    if not looks_twice(rule):
        return [*first, step("labels", units, _LABELS * voxels)]
    touching = [step("touching", units, _TOUCHING * voxels)] if rule.disconnected == "split" else []
    return [
        *first,
        step("pieces", units, _PIECES * voxels),
        *touching,
        step("objects", 1, _PIECE * _PIECES_OF * voxels),
        step("labels", units, _RENUMBERED * voxels),
    ]


_SIZES, _CONTACTS, _PLACES, _RELABELLED = 6, 309, 265, 15
"""Core-nanoseconds a voxel of the region in these steps of agglomeration (`benchmarks/long/agglomerate_blocks.py`)."""
_RIM = 130
"""Bytes a voxel of a block where segments meet."""
_MEETING = 1e-4
"""Pairs that meet, a voxel: 72 to 139 million for 10^12 of them."""
_PAIRS_S, _RANK_S, _JOIN_S = 0.8e-6, 4e-6, 32e-6
"""Core-seconds a pair in each of its reduces (`benchmarks/long/agglomerate_pairs.py`)."""
_FOVS_A_PAIR = 6.0
"""Fields of view: 13,154 for 2,177 pairs of the FIB-25 sample (docs/guides/agglomeration.md)."""
_SLOW = 7.5
"""Fields of view a second of a process where nothing was measured: two cores with the published network."""


def _agglomeration(config: Config, extent: Extent, fovs_per_s: float | None) -> list[StepWork]:
    from ffn.agglomeration.finding import group_size  # loads SciPy's filters

    settings, rule, voxels = config.agglomeration, config.assembly, extent.voxels
    shard = rule.shard or shard_of(extent.region, rule.block)
    units, held = len(Grid(Box.of_shape(extent.region), shard)), worker_bytes(rule, shard) + _RIM * prod(rule.block)
    meeting = max(round(_MEETING * voxels), 1)
    tried = meeting if settings.max_pairs is None else min(settings.max_pairs, meeting)
    speed = known_speed(config)
    fill_s = _FOVS_A_PAIR / (fovs_per_s or (_SLOW if speed is None else speed.fovs_per_s))

    def step(name: str, count: int, seconds: float, on_devices: bool = False) -> StepWork:
        return StepWork("agglomerate", name, count, seconds, PROCESS_BYTES if on_devices else held, on_devices)

    return [
        step("sizes", units, _SIZES * 1e-9 * voxels),
        step("segments", 1, _ID * 1e-9 * _SEGMENTS * voxels),
        step("contacts", units, _CONTACTS * 1e-9 * voxels),
        step("pairs", 1, _PAIRS_S * meeting),
        step("places", units, _PLACES * 1e-9 * voxels),
        step("rank", 1, _RANK_S * meeting),
        step("resegment", ceil(tried / group_size(tried)), fill_s * tried, on_devices=True),
        step("join", 1, _JOIN_S * tried),
        step("relabel", units, _RELABELLED * 1e-9 * voxels),
    ]


_COUNTED = 16
"""Core-nanoseconds a voxel of the evaluation (`benchmarks/long/evaluate_throughput.py`)."""


def _evaluation(extent: Extent) -> list[StepWork]:
    units = len(blocks_of(extent.region))
    return [StepWork("evaluate", "tables", units, _COUNTED * 1e-9 * extent.voxels, Tables.unit_bytes)]


_LABEL_SIZES, _CLASSES, _SAMPLE, _COORDINATES, _SEEDS, _REDUCED = 26, 320, 320, 170, 250, 0.1
"""Core-nanoseconds a voxel of the volumes with labels in these steps of the preparation
(`benchmarks/long/prepare_throughput.py`)."""
_SEED, _LISTED = 24, 16
"""Bytes a voxel of a tile whose seeds are found, and of the largest class of a volume whose centres are listed."""
_UNIT = (256, 256, 256)
"""Voxels that one unit looks at, at least."""


def _preparation(config: Config) -> list[StepWork]:
    shapes = [region_shape(config, region) for region in config.data.labelled.values()]
    if None in shapes:
        return []
    voxels = sum(prod(shape) for shape in shapes if shape is not None)
    limits, sampled = Limits(), [shape for shape in shapes if shape is not None and prod(shape) > Limits().listed]
    units, tile = max(ceil(voxels / prod(_UNIT)), 1), min(prod(limits.tile), voxels)
    listed = max((prod(shape) for shape in shapes if shape is not None and shape not in sampled), default=0)

    def step(name: str, count: int, nanoseconds: float, held: int = 1 << 29) -> StepWork:
        return StepWork("prepare", name, count, nanoseconds * 1e-9 * voxels, held)

    sampling = [step("class_counts", 1, _REDUCED), step("sample", units, _SAMPLE)] if sampled else []
    return [
        step("label_sizes", units, _LABEL_SIZES),
        step("objects", 1, _REDUCED),
        step("classes", units, _CLASSES),
        *sampling,
        step("coordinates", len(shapes), _COORDINATES, _LISTED * listed + (1 << 29)),
        step("seeds", max(ceil(voxels / tile), 1), _SEEDS, _SEED * tile + (1 << 28)),
    ]


_LABEL_LAYER, _IMAGE_LAYER = 25, 8
"""Core-nanoseconds a voxel of the region, for a layer with its lower levels: read, pooled, encoded, written
(docs/guides/large_volumes.md; images often lie in formats that take longer to read)."""


def layer_specs(config: Config, extent: Extent) -> list["LayerSpec"]:
    """The layers that an export writes."""
    from ffn.export.layer import LayerSpec  # its package takes half a second to load

    bounds = config.data.test.bounds
    box = bounds if bounds is not None and bounds.shape == extent.region else Box.of_shape(extent.region)
    place = (box, extent.voxel_size, config.export.chunk, config.export.mips)
    labels = ["segmentation"] if config.data.test.labels is None else ["segmentation", "truth"]
    return [
        LayerSpec.of("image", "image", "uint8", *place),
        *(LayerSpec.of(name, "segmentation", "uint64", *place) for name in labels),
    ]


def _export(config: Config, extent: Extent) -> list[StepWork]:
    layers = layer_specs(config, extent)
    units = sum(len(layer.tiers[0]) for layer in layers)
    nanoseconds = sum(_IMAGE_LAYER if layer.kind == "image" else _LABEL_LAYER for layer in layers) * extent.voxels
    return [StepWork("export", "layer", units, nanoseconds * 1e-9, max(layer.worker_bytes for layer in layers))]
