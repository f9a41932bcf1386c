"""Passes over sub-volumes, from image to labels: each a stage in its own folder that can be killed and run again.

The folder holds, besides the stage's markers and, while it is unfinished, `state.npz`:

    segmentation.h5   dataset `labels`, uint64 zyx, ids from 1 in order of creation, 0 = not segmented
    origins.json      [{id, seed_zyx, fovs, voxels}], seeds relative to the sub-volume's corner, in image voxels;
                      `voxels` as in segmentation.h5
    overlaps.json     {id: [[earlier id, voxels], ...]}: whose voxels an object reached into
    counters.json     what was done and refused (`ffn.inference.canvas.COUNTERS`)
    timing.json       seconds and fields of view per second of the process that finished it; the one file that
                      differs between two runs of the same settings
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ffn.config import Config, Network
from ffn.errors import DataError, GeometryError, StageError
from ffn.files import remove, write_json
from ffn.geometry import Box
from ffn.inference.canvas import Canvas, Flood
from ffn.inference.drive import drive
from ffn.inference.fine import FineLabels
from ffn.inference.fingerprint import checkpoint_fingerprint
from ffn.inference.framing import Framing
from ffn.inference.options import FloodOptions
from ffn.inference.state import restore_state, save_state
from ffn.inference.tally import Tally, Throughput, TileTally
from ffn.prepare.seeds import coarse_seeds
from ffn.progress import Progress, log
from ffn.stages import Stage
from ffn.volumes import Volume, VoxelSize, create_hdf5, open_image

LABELS = "labels"
SEGMENTATION_FILE = "segmentation.h5"
ORIGINS_FILE = "origins.json"
STATE_FILE = "state.npz"


@dataclass(frozen=True)
class Tile:
    """One sub-volume to be filled.

    Attributes:
        image: URI of the grey values.
        checkpoint: Prefix of the weights.
        box: zyx voxels of the image; None = all of it. It is segmented as if it were the whole volume.
        output: Folder of the results. Complete with the same settings: nothing is done. Unfinished: continued.
        number: Which of the passes: 0 sees the box as it is, each other one turned its own way.
        may_be_empty: Whether a box without seeds gives an empty result (one tile of many) or a DataError.
    """

    image: str
    checkpoint: Path
    box: Box | None
    output: Path
    number: int = 0
    may_be_empty: bool = False


def run_tile(config: Config, tile: Tile) -> None:
    """Fill one sub-volume; see `run_tiles`."""
    run_tiles(config, [tile])


def run_tiles(config: Config, tiles: Sequence[Tile], shows_progress: bool = True) -> Throughput | None:
    """Fill sub-volumes, some of them side by side; each becomes its own finished folder.

    Args:
        config: Its `network` and `inference` sections and `data.voxel_size` are used.
        tiles: All of one checkpoint. Those that are complete are left alone.
        shows_progress: Whether to say how far the work is, besides a line for each finished sub-volume.

    Returns what this call reached, or None where there was nothing to do.

    Raises:
        GeometryError: a box lies outside its image or is smaller than the field of view.
        CheckpointError: see `load_executor`.
        StageError: a folder belongs to other settings.
        VolumeError: an image cannot be read.
    """
    unfinished = [tile for tile in tiles if not _is_complete(config, tile)]
    if not unfinished:
        return None
    # Imported here so that a job whose tiles are complete does not wait for TensorFlow.
    from ffn.inference.executor import load_executor

    inference = config.inference
    executor = load_executor(
        config.network,
        unfinished[0].checkpoint,
        threads=inference.intra_op_threads,
        batch_size=inference.batch_size,
        precision=inference.precision,
    )
    concurrent = inference.concurrent or (2 * executor.batch_size if executor.batch_size > 1 else 1)
    voxels = sum(_box(config, tile).voxels for tile in unfinished)
    with Progress(_label(unfinished), voxels, "voxels", enabled=shows_progress) as progress:
        tally = Tally(progress)
        drive((_flood(config, tile, tally) for tile in unfinished), executor, concurrent)
    if len(unfinished) > 1:
        log(f"{len(unfinished)} sub-volumes: {tally.fovs} FOVs in {tally.seconds:.0f} s, {tally.fovs_per_s:.1f} FOVs/s")
    return Throughput(len(unfinished), concurrent, tally.fovs, tally.seconds)


def _is_complete(config: Config, tile: Tile) -> bool:
    box = _box(config, tile)
    _require_room(box, config)
    if not Stage(tile.output, _settings(config, tile, box)).is_done():
        return False
    remove(tile.output / STATE_FILE)
    log(f"{tile.output} is already complete.")
    return True


def _box(config: Config, tile: Tile) -> Box:
    with open_image(tile.image, voxel_size=config.data.voxel_size) as volume:
        return Box.of_shape(volume.shape) if tile.box is None else volume.view(tile.box).bounds


def _label(tiles: Sequence[Tile]) -> str:
    return tiles[0].output.name if len(tiles) == 1 else f"{len(tiles)} sub-volumes"


def _flood(config: Config, tile: Tile, tally: Tally) -> Flood:
    """All that happens to a sub-volume, from its image to its done-marker."""
    box, state = _box(config, tile), tile.output / STATE_FILE
    stage = Stage(tile.output, _settings(config, tile, box))
    with open_image(tile.image, voxel_size=config.data.voxel_size) as volume:
        view = volume.view(box)
        framing = Framing.of(config, tile.number, view.shape, view.voxel_size)
        canvas = _canvas(config, framing, _normalised(framing.pooled(view), config.network))
        voxel_size = volume.voxel_size
    if voxel_size is None:
        log("The image states no voxel size and data.voxel_size is empty: seeds are placed as for cubic voxels.")
    if stage.started_marker.exists() and state.exists():
        seeds = restore_state(state, canvas)
        log(
            f"{tile.output}: continuing at seed {canvas.next_seed} of {len(seeds)}, {canvas.counters['fovs']} FOVs done"
        )
    else:
        with open_image(tile.image, box=box, voxel_size=config.data.voxel_size) as view:
            seeds = framing.seeds(_seeds(view, framing, config))
        _check_seeds(seeds, tile.image, box, tile.may_be_empty)
        _refuse_foreign(stage)
        # Claimed only now: a mistake found above leaves no trace of settings that never worked.
        stage.begin()
        save_state(state, canvas, seeds)
    began, fovs_before = time.monotonic(), canvas.counters["fovs"]
    counted = TileTally(tally, canvas, seeds, box.voxels)
    yield from _saving(canvas, seeds, state, config.inference.checkpoint_every_s, counted)
    counted.finish()
    seconds, fovs = time.monotonic() - began, canvas.counters["fovs"] - fovs_before
    timing = {"fovs": fovs, "seconds": seconds, "fovs_per_s": fovs / max(seconds, 1e-9)}
    _write(tile.output, canvas, framing, box, voxel_size, timing)
    stage.finish(segments=len(canvas.segments), fovs=canvas.counters["fovs"])
    remove(state)
    share = canvas.counters["voxels_segmented"] / canvas.image.size
    log(
        f"{tile.output}: {len(canvas.segments)} segments, {share:.1%} of the voxels, {canvas.counters['fovs']} FOVs, "
        f"{timing['fovs_per_s']:.1f} FOVs/s"
    )


def _saving(canvas: Canvas, seeds: NDArray[np.int64], state: Path, every_s: float, counted: TileTally) -> Flood:
    """The flood fill of a canvas, of which the state is saved every `every_s` seconds."""
    saved = time.monotonic()
    flood = canvas.segment_all(seeds)
    look = next(flood, None)
    while look is not None:
        answer = yield look
        try:
            look = flood.send(answer)
        except StopIteration:
            look = None
        counted.update()
        if time.monotonic() - saved >= every_s:
            save_state(state, canvas, seeds)
            saved = time.monotonic()


def _canvas(config: Config, framing: Framing, grey: NDArray[np.float32]) -> Canvas:
    options = FloodOptions.of(config.network, config.inference).turned(framing.orientation)
    image, factors = framing.image(grey), framing.orientation.reordered(framing.factors)
    z, y, x = image.shape
    fine = None if factors == (1, 1, 1) else FineLabels((z, y, x), factors, options.segment)
    return Canvas(image, options, fine)


def _write(
    output: Path,
    canvas: Canvas,
    framing: Framing,
    box: Box,
    voxel_size: VoxelSize | None,
    timing: dict[str, float],
) -> None:
    labels = framing.labels(canvas.finished_labels())
    write_labels(output / SEGMENTATION_FILE, labels, box, voxel_size)
    voxels = np.bincount(labels.ravel(), minlength=len(canvas.segments) + 1)
    seeds = framing.seeds_before(np.array([s.seed for s in canvas.segments], np.int64).reshape(-1, 3))
    origins = [
        {
            "id": s.id,
            "seed_zyx": framing.in_image(seed),
            "fovs": s.fovs,
            "voxels": int(voxels[s.id]),
        }
        for s, seed in zip(canvas.segments, seeds.tolist(), strict=True)
    ]
    write_json(output / ORIGINS_FILE, origins)
    write_json(output / "overlaps.json", {s.id: s.overlaps for s in canvas.segments if s.overlaps})
    write_json(output / "counters.json", dict(sorted(canvas.counters.items())))
    write_json(output / "timing.json", timing)


def write_labels(path: Path, labels: NDArray[np.unsignedinteger[Any]], box: Box, voxel_size: VoxelSize | None) -> None:
    """Write a sub-volume's labels (zyx, as large as its `box`) as the dataset `labels` of a new HDF5 file."""
    with create_hdf5(path, LABELS, box.shape, np.uint64, voxel_size, offset=box.start) as volume:
        volume.write(Box.of_shape(box.shape), labels.astype(np.uint64))


def _settings(config: Config, tile: Tile, box: Box) -> dict[str, Any]:
    """All that decides the labels; not how often states are saved, or by how many threads."""
    inference = config.inference
    return {
        "image": tile.image,
        "box": str(box),
        "voxel_size": config.data.voxel_size,
        "checkpoint_sha256": checkpoint_fingerprint(tile.checkpoint),
        "network": config.network.model_dump(),
        "pass": tile.number,
        "inference": {
            key: getattr(inference, key)
            for key in (
                "segment_threshold",
                "move_threshold",
                "deltas",
                "min_segment_size",
                "min_boundary_dist",
                "disco_seed_threshold",
                "seed_policy",
                "mirror",
                "precision",
            )
        },
    }


def _normalised(volume: Volume, network: Network) -> NDArray[np.float32]:
    grey = volume[...].astype(np.float32)
    grey -= np.float32(network.image_mean)
    grey /= np.float32(network.image_stddev)
    return grey


def _seeds(view: Volume, framing: Framing, config: Config) -> NDArray[np.int64]:
    network, edges = config.network, view.voxel_size or (1.0, 1.0, 1.0)
    fov = (1, 1, 1) if config.inference.mirror else network.fov
    return coarse_seeds(_normalised(view, network), framing.factors, fov, edges, framing.phase)


def _require_room(box: Box, config: Config) -> None:
    for axis, size, fov in zip("zyx", box.shape, config.network.fov_in_image_voxels, strict=True):
        if size < fov:
            raise GeometryError(
                f"Box {box} has {size} voxels along {axis}, fewer than the network's fov {fov}. "
                "Choose a larger box, or a network with a smaller fov."
            )


def _refuse_foreign(stage: Stage) -> None:
    found = [name for name in (SEGMENTATION_FILE, ORIGINS_FILE, STATE_FILE) if (stage.folder / name).exists()]
    if found and not stage.started_marker.exists():
        raise StageError(
            f"{stage.folder} already holds {', '.join(found)}, but no started.json that says what made it. "
            "Choose another output folder, or delete that one."
        )


def _check_seeds(seeds: NDArray[np.int64], image: str, box: Box, may_be_empty: bool) -> None:
    if len(seeds):
        return
    problem = f"No seeds in box {box} of {image}: no place is both away from edges and half a fov from the faces."
    if not may_be_empty:
        raise DataError(f"{problem} Check that the box shows tissue and is larger than the network's fov.")
    log(f"{problem} This sub-volume stays empty.")
