"""The export stage of a run."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ffn.agglomeration.candidates import read_candidates
from ffn.blockwise import EVERYTHING, BlockwiseStage, Entry, Reduce, Result, Share, Task, suitable_workers
from ffn.config import Config
from ffn.errors import VolumeError
from ffn.export.layer import Kind, LayerSpec, create_layer, stored_type
from ffn.export.state import contrast_of, viewer_state, with_candidates
from ffn.export.unit import remove_unfinished, write_unit
from ffn.files import write_json
from ffn.fingerprint import fingerprint
from ffn.geometry import Box
from ffn.runs import RunPaths, image_uri, labels_uri
from ffn.stages import Stage, done_digest
from ffn.volumes import Volume, VoxelSize, open_image, open_labels
from ffn.volumes.store import shard_bytes

STATE = "state.json"
_VOXELS_OF_A_WORKER = 1 << 25
"""Fewer are written before another process has started."""


@dataclass(frozen=True)
class Layer:
    """One layer of the export: its files, and the volume that it shows."""

    folder: Path
    spec: LayerSpec
    source: Callable[[], Volume]


class LayerTask(Task):
    """The first tier of all layers: full resolution, and as many lower ones as fit into the units' boxes.

    Args:
        layers: In the order in which they are written.
    """

    name = "layer"
    unit = "voxels"
    remedy = "Use fewer export.workers."

    def __init__(self, layers: Sequence[Layer]) -> None:
        self._layers = layers
        self.unit_bytes = max(layer.spec.worker_bytes for layer in layers)
        self._sources: dict[str, Volume] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_sources": {}}

    def __len__(self) -> int:
        return sum(len(layer.spec.tiers[0]) for layer in self._layers)

    def run(self, unit: int) -> Result:
        layer, number = self._of(unit)
        if layer.spec.name not in self._sources:
            create_layer(layer.folder, layer.spec)
            self._sources[layer.spec.name] = layer.source()
        source = self._sources[layer.spec.name]
        files = write_unit(layer.folder, layer.spec, layer.spec.tiers[0], number, source)
        return Result(facts={"files": {f"{layer.spec.name}/{name}": size for name, size in files.items()}})

    def is_intact(self, entry: Entry) -> bool:
        folder = self._layers[0].folder.parent
        return all(shard_bytes(folder / name) == size for name, size in entry.facts["files"].items())

    def size(self, unit: int) -> int:
        layer, number = self._of(unit)
        written = layer.spec.regions(layer.spec.tiers[0], number).written
        return sum(box.voxels for box in written.values()) or 1

    def close(self) -> None:
        while self._sources:
            self._sources.popitem()[1].close()

    def _of(self, unit: int) -> tuple[Layer, int]:
        for layer in self._layers:
            if unit < len(layer.spec.tiers[0]):
                return layer, unit
            unit -= len(layer.spec.tiers[0])
        raise IndexError(f"the layers have {len(self)} units")


class MipsTask(Reduce):
    """The levels that are smaller than units of the first tier, and the state for Neuroglancer.

    Args:
        layers: Those of `LayerTask`.
        title: Shown by the browser.
        candidates: Folder of the agglomeration whose candidates are shown, or None.
    """

    name = "mips"

    def __init__(self, layers: Sequence[Layer], title: str, candidates: Path | None) -> None:
        self._layers, self._title, self._candidates = layers, title, candidates

    def run(self, unit: int) -> Result:
        folder, names = self._layers[0].folder.parent, [layer.spec.name for layer in self._layers]
        for layer in self._layers:
            with layer.source() as source:
                write_upper_levels(layer, source)
                if layer.spec.kind == "image":
                    contrast, full = contrast_of(source), layer.spec.pyramid[0]
        state = viewer_state(self._title, names, full.box, full.voxel_size, contrast)
        if self._candidates is not None:
            state = with_candidates(state, read_candidates(self._candidates))
        write_json(folder / STATE, state)
        return Result(facts={"box": str(full.box), "layers": names})


def write_upper_levels(layer: Layer, source: Volume) -> None:
    """Make what the first tier leaves of a layer: small levels, from its last one."""
    for tier in layer.spec.tiers[1:]:
        for unit in range(len(tier)):
            write_unit(layer.folder, layer.spec, tier, unit, source)


def export_run(config: Config, share: Share = EVERYTHING) -> Path:
    """Write the test region's image, ground truth (where there is one) and segmentation as layers, and the state.

    Returns the folder. Layers lie where the region lies in its source volume. What is complete is kept: a finished
    export does nothing, a killed one goes on with the units that are not done. `share` is what of it this process does.
    """
    region, paths = config.data.test, RunPaths.of(config)
    truth = labels_uri(config, region)
    stage = Stage(
        paths.export,
        {
            "segmentation": done_digest(paths.segmented, f"ffn {paths.segmented.name}"),
            **fingerprint(config, "export"),
        },
    )
    sources: dict[str, Callable[[], Volume]] = {
        "image": partial(open_image, image_uri(config, region), box=region.bounds, voxel_size=config.data.voxel_size),
        "segmentation": partial(open_labels, paths.segmentation),
    }
    if truth is not None:
        sources["truth"] = partial(open_labels, truth, box=region.bounds)
    # Before the folder is claimed: what is wrong here is put right in the configuration, which the claim holds.
    layers = _layers(config, paths.export, sources)
    levels = LayerTask(layers)
    tasks = [levels, MipsTask(layers, config.run, paths.agglomerate if paths.agglomerates else None)]
    worthwhile = -(-sum(levels.size(unit) for unit in range(len(levels))) // _VOXELS_OF_A_WORKER)
    workers = suitable_workers(config.export.workers, min(len(levels), worthwhile))
    BlockwiseStage(stage, tasks, "ffn export", partial(_clean, layers)).run(workers, share)
    return paths.export


def _clean(layers: Sequence[Layer]) -> None:
    for layer in layers:
        remove_unfinished(layer.folder)


def _layers(config: Config, folder: Path, sources: dict[str, Callable[[], Volume]]) -> list[Layer]:
    """The layers, after a look at the headers of their volumes."""
    with ExitStack() as files:
        volumes = {name: files.enter_context(source()) for name, source in sources.items()}
        image = volumes["image"]
        box, voxel_size = image.bounds, _known(image)
        found = []
        for name, volume in volumes.items():
            _require_shape(volume, image)
            spec = layer_spec(config, name, volume, box, voxel_size)
            found.append(Layer(folder / name, spec, sources[name]))
    return found


def layer_spec(config: Config, name: str, volume: Volume, box: Box, voxel_size: VoxelSize) -> LayerSpec:
    """The layer of a volume that shows `box`; the one named `image` holds grey values, the others labels."""
    kind: Kind = "image" if name == "image" else "segmentation"
    dtype = stored_type(volume, kind)
    return LayerSpec.of(name, kind, dtype, box, voxel_size, config.export.chunk, config.export.mips)


def _require_shape(volume: Volume, image: Volume) -> None:
    if volume.shape != image.shape:
        raise VolumeError(f"{volume.uri} has shape {volume.shape}, the image {image.uri} {image.shape} (z,y,x).")


def _known(image: Volume) -> VoxelSize:
    if image.voxel_size is None:
        raise VolumeError(
            f"{image.uri} does not state its voxel size; set data.voxel_size in the configuration, "
            "nanometres z,y,x such as [10, 10, 10]."
        )
    return image.voxel_size
