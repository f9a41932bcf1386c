"""Files and bytes that segmenting and exporting a region leaves on disk."""

from dataclasses import dataclass

from ffn.blockwise import Grid
from ffn.config import Config
from ffn.geometry import Box
from ffn.planning.extent import Extent
from ffn.planning.records import tile_records
from ffn.planning.steps import layer_specs
from ffn.volumes import shard_of

LABELS, LAYER_LABELS, LAYER_IMAGE = 0.14, 0.05, 1.0
"""Bytes a voxel as they are written: compressed labels in HDF5, in a layer, grey values in a layer. Measured on the
FIB-25 sample of 250^3 voxels and its ground truth."""
_STATE = 8
"""Bytes a voxel of a saved state, at most."""
_TILE_FILES, _CONSENSUS_FILES, _EXPORT_FILES = 7, 4, 3
_ASSEMBLY_FILES, _AGGLOMERATION_FILES = 6, 9
"""Beside the shards: markers, metadata of the store, and lists."""
_SMALL_FILES = 4096


@dataclass(frozen=True)
class Output:
    """Files of one kind, and their bytes."""

    name: str
    files: int
    bytes: int


def outputs(config: Config, extent: Extent, unfinished: int) -> list[Output]:
    """What is written, by kind; `unfinished` sub-volumes are being filled at one time."""
    records, passes = tile_records(config), len(config.inference.all_passes)
    density = sum(r.label_bytes for r in records) / sum(r.voxels for r in records) if records else LABELS
    files = extent.count * (_TILE_FILES * passes + (_CONSENSUS_FILES if passes > 1 else 0))
    written = passes + (1 if passes > 1 else 0)
    labels = int(extent.filled * density * written)
    unfinished = min(unfinished, extent.count * passes)
    return [
        Output("sub-volumes", files, labels + files * _SMALL_FILES),
        Output("saved states, while running", unfinished, unfinished * extent.tile_voxels * _STATE),
        Output("assembled volume", _shards(config, extent) + _ASSEMBLY_FILES, int(extent.voxels * density)),
        *_agglomerated(config, extent, density),
        _layers(config, extent),
    ]


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
