"""The passes over sub-volumes become one segmentation of each: a blockwise step with a unit for each sub-volume."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ffn.assembly.consensus import Pieces, agreed
from ffn.assembly.finished import Begun, begun, report
from ffn.assembly.spec import CONSENSUS_BYTES
from ffn.assembly.split_consensus import split_consensus
from ffn.blockwise import BlockwiseStage, Entry, Result, Share, Step, Task, suitable_workers
from ffn.blockwise.stage import Numbered
from ffn.bundles import Bundle
from ffn.config import Config
from ffn.errors import StageError
from ffn.files import temporary_path, write_json
from ffn.geometry import Box
from ffn.inference.kept import ARCHIVES, bundled, is_intact, labels_of
from ffn.inference.results import ORIGINS_FILE, SEGMENTATION_FILE, write_labels
from ffn.inference.tiles import grid_of, pass_settings, region_box, tile_boxes, tiles
from ffn.peers import ALONE, Peer
from ffn.progress import log
from ffn.runs import RunPaths
from ffn.stages import Stage
from ffn.volumes import open_volume


def join_passes(config: Config, indices: Sequence[int], peer: Peer = ALONE) -> None:
    """Make one segmentation of these sub-volumes from their passes, kept as `ffn.inference.kept` says.

    Raises GeometryError if there is no such sub-volume, StageError where a pass is not finished or was made with other
    settings.
    """
    tile_boxes(config, indices)
    boxes, passes = tiles(config), begun_passes(config)
    if problems := _unfinished(config, passes, boxes, indices):
        raise StageError(report(problems, f"{len(problems)} passes over sub-volumes of run {config.run} are missing"))
    settings = {
        "box": str(region_box(config)),
        **grid_of(config),
        "passes": [one.step.fingerprint for one in passes],
        **consensus_rule(config),
    }
    stage = Stage(RunPaths.of(config).consensus, settings)
    task = AgreedSubVolumes(config, boxes, [one.step for one in passes], stage.folder)
    steps = BlockwiseStage(stage, [task], "ffn consensus")
    workers = suitable_workers(config.assembly.workers, len(indices))
    steps.run(workers, Share(task.name, Numbered(tuple(indices)), peer))
    log(f"{stage.folder}: {len(indices)} sub-volumes are complete.")


def begun_passes(config: Config) -> list[Begun]:
    """All passes over the run's sub-volumes, as far as they are.

    Raises StageError where one was not begun, or with other settings than those of now.
    """
    count, paths = len(tiles(config)), RunPaths.of(config)
    return [
        begun(
            paths.infer_pass(number),
            count,
            f"Pass {number} over the sub-volumes of run {config.run}",
            f"ffn infer --config FILE --tile 0-{count - 1} --pass {number}",
            pass_settings(config, number),
        )
        for number in range(len(config.inference.all_passes))
    ]


def consensus_rule(config: Config) -> dict[str, Any]:
    """The settings by which passes are joined."""
    of_vote, of_split = ("agreement", "majority", "min_segment_size"), ("split_min_size",)
    keys = of_vote if config.inference.consensus == "vote" else of_split
    return {key: getattr(config.inference, key) for key in ("consensus", *keys)}


def _unfinished(config: Config, passes: Sequence[Begun], boxes: Sequence[Box], indices: Sequence[int]) -> list[str]:
    return [
        f"Pass {number} over sub-volume {index} ({boxes[index]}) of run {config.run} is not finished. Run `ffn infer "
        f"--config FILE --tile {index} --pass {number}` first."
        for number, one in enumerate(passes)
        for index in one.ledger(Numbered(tuple(indices)).shares_units).missing(indices)
    ]


@dataclass
class AgreedSubVolumes(Task):
    """What the passes over a sub-volume agree on.

    Attributes:
        config: Of the run.
        boxes: Of its sub-volumes.
        passes: Where the ledgers of the passes are.
        folder: Of the consensus.
    """

    config: Config
    boxes: Sequence[Box]
    passes: Sequence[Step]
    folder: Path

    name = "sub_volumes"
    unit = "sub-volumes"
    keeps_ledger = True
    remedy = "Use smaller sub-volumes, or fewer processes (assembly.workers)."

    def __post_init__(self) -> None:
        self.unit_bytes = CONSENSUS_BYTES * max(box.voxels for box in self.boxes)

    def __len__(self) -> int:
        return len(self.boxes)

    @cached_property
    def _bundle(self) -> Bundle:
        return Bundle(self.folder / ARCHIVES)

    def run(self, unit: int) -> Result:
        entries = [step.ledger(Numbered((unit,)).shares_units)[unit] for step in self.passes]
        box, name = self.boxes[unit], f"tile-{unit:04d}"
        with open_volume(labels_of(entries[0])) as first:
            voxel_size = first.voxel_size
        join = _voted if self.config.inference.consensus == "vote" else _split
        labels = join(self.config, _labels(entries)).reshape(box.shape)
        voxels = np.bincount(labels.ravel())
        settings = {
            "box": str(box),
            "passes": [entry.facts["hash"] for entry in entries],
            **consensus_rule(self.config),
        }
        with temporary_path(self.folder / name) as folder:
            stage = Stage(folder, settings)
            stage.begin()
            write_labels(folder / SEGMENTATION_FILE, labels, box, voxel_size)
            objects = [{"id": number, "voxels": int(n)} for number, n in enumerate(voxels) if number]
            write_json(folder / ORIGINS_FILE, objects)
            stage.finish(segments=len(objects), largest_id=len(objects))
            return Result(facts=bundled(self._bundle, folder, name))

    def is_intact(self, entry: Entry) -> bool:
        return is_intact(entry)

    def note(self, result: Result) -> str:
        return f"{result.facts['segments']} objects in the last one"

    def close(self) -> None:
        self._bundle.close()


def _voted(config: Config, labels: Iterator[NDArray[np.unsignedinteger]]) -> NDArray[np.unsignedinteger]:
    pieces, factors = Pieces(labels), config.network.downsample
    # Half of what an object needs: of two passes that part it differently, one half is that large.
    smallest = max(config.inference.min_segment_size * math.prod(factors) // 2, 1)
    return agreed(pieces, config.inference.agreement, config.inference.majority, smallest)[pieces.places]


def _split(config: Config, labels: Iterator[NDArray[np.unsignedinteger]]) -> NDArray[np.unsignedinteger]:
    """Ids without gaps: what a sub-volume needs to be assembled."""
    joined = split_consensus(labels, config.inference.split_min_size)
    # A zero at the end, so that the first id is 0 where every voxel has an object.
    _, places = np.unique(np.append(joined.ravel(), np.uint64(0)), return_inverse=True)
    return places[:-1].astype(np.uint32)


def _labels(passes: Sequence[Entry]) -> Iterator[NDArray[np.unsignedinteger]]:
    for entry in passes:
        with open_volume(labels_of(entry)) as volume:
            yield volume[...]
