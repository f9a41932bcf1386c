"""The steps of a run's blockwise stages: their units, their work and what a worker holds.

The work of a step is a number of core-nanoseconds a voxel, measured (see each) on one core of an Intel Xeon (Sapphire
Rapids class, 2 cores shared with other machines), and scaled by the voxels of the region.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ffn.assembly.evidence import groups
from ffn.assembly.spec import looks_twice, worker_bytes
from ffn.blockwise import Grid
from ffn.config import Config
from ffn.geometry import Box
from ffn.planning.extent import Extent
from ffn.volumes import shard_of

if TYPE_CHECKING:
    from ffn.export.layer import LayerSpec


@dataclass(frozen=True)
class StepWork:
    """A step of a stage.

    Attributes:
        units: How many there are; 1 = a reduce, which one process does.
        core_seconds: Of all units.
        worker_bytes: Held by each process.
    """

    stage: str
    step: str
    units: int
    core_seconds: float
    worker_bytes: int


def steps_of(config: Config, extent: Extent) -> list[StepWork]:
    """All steps that may be jobs of their own, by stage and in their order."""
    return [*_assembly(config, extent), *_export(config, extent)]


_OVERLAPS, _LABELS, _PIECES, _TOUCHING, _RENUMBERED = 60, 190, 330, 10, 60
"""Core-nanoseconds: a voxel that sub-volumes share, and a voxel of the region in each of these steps of the assembly
(`python benchmarks/long/assembly_throughput.py --sizes 500`)."""
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
