"""Flood fills of sub-volumes, from image to labels: each a stage in its own folder that can be killed and run again.

While it is unfinished, the folder holds `state.npz`, from which it continues; when it is finished, the files of
`ffn.inference.results`.
"""

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ffn.config import Config
from ffn.errors import DataError
from ffn.files import remove
from ffn.inference.canvas import Flood
from ffn.inference.drive import drive, side_by_side
from ffn.inference.results import STATE_FILE, kept_ids, write_results
from ffn.inference.scene import Scene
from ffn.inference.state import restore_state, save_state
from ffn.inference.tally import Tally, Throughput, TileTally
from ffn.inference.tile import Tile, refuse_foreign
from ffn.progress import Progress, log
from ffn.stages import Stage


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
        # Of all, not of the unfinished: on a GPU labels may depend on the batch, so a job that goes on keeps it.
        most=min(inference.concurrent or len(tiles), len(tiles)),
        precision=inference.precision,
    )
    concurrent = side_by_side(inference.concurrent, executor.batch_size)
    voxels = sum(tile.place(config).voxels for tile in unfinished)
    with Progress(_label(unfinished), voxels, "voxels", enabled=shows_progress) as progress:
        tally = Tally(progress)
        drive((_flood(config, tile, tally) for tile in unfinished), executor, concurrent)
    if len(unfinished) > 1:
        log(f"{len(unfinished)} sub-volumes: {tally.fovs} FOVs in {tally.seconds:.0f} s, {tally.fovs_per_s:.1f} FOVs/s")
    return Throughput(len(unfinished), concurrent, tally.fovs, tally.seconds)


def _is_complete(config: Config, tile: Tile) -> bool:
    stage = tile.stage(config, tile.place(config))
    if not stage.is_done():
        return False
    _remove_traces(tile)
    stage.clear_lock()
    log(f"{tile.output} is already complete.")
    return True


def _remove_traces(tile: Tile) -> None:
    """Remove what only an unfinished sub-volume needs."""
    remove(tile.output / STATE_FILE)


def _label(tiles: Sequence[Tile]) -> str:
    return tiles[0].output.name if len(tiles) == 1 else f"{len(tiles)} sub-volumes"


def _flood(config: Config, tile: Tile, tally: Tally) -> Flood:
    """All that happens to a sub-volume, from its image to its done-marker."""
    box, state = tile.place(config), tile.output / STATE_FILE
    stage = tile.stage(config, box)
    scene = Scene.of(config, tile.image, box, tile.turn)
    canvas = scene.canvas
    if scene.voxel_size is None:
        log("The image states no voxel size and data.voxel_size is empty: seeds are placed as for cubic voxels.")
    resumes = stage.started_marker.exists() and state.exists()
    if not resumes:
        seeds = scene.seeds_at(tile.seeds) if tile.seeds else scene.seeds(0)
        _check_seeds(seeds, tile, scene)
        refuse_foreign(stage)
    # Not before: a mistake found above leaves no trace of settings that never worked.
    with stage.locked():
        if not stage.begin():
            _remove_traces(tile)
            return
        if resumes:
            first, seeds = restore_state(state, canvas)
            done = f"seed {canvas.next_seed} of {len(seeds)}, {canvas.counters['fovs']} FOVs done"
            log(f"{tile.output}: continuing at {done}")
        else:
            first = 0
            save_state(state, canvas, seeds, first)
        yield from _filled(tile, scene, stage, seeds, first, tally)
        _remove_traces(tile)


def _filled(tile: Tile, scene: Scene, stage: Stage, seeds: NDArray[np.int64], first: int, tally: Tally) -> Flood:
    """The flood fill from the seeds of policy `first` on, and its results."""
    canvas, state = scene.canvas, tile.output / STATE_FILE
    began, fovs_before = time.monotonic(), canvas.counters["fovs"]
    stages = 1 if tile.seeds else scene.stages
    counted = TileTally(tally, canvas, scene.box.voxels, stages)
    for number in range(first, stages):
        if number > first:
            seeds, canvas.next_seed = scene.seeds(number), 0
            save_state(state, canvas, seeds, number)
        counted.begin(number, seeds)
        yield from _saving(scene, seeds, number, state, counted)
    counted.finish()
    seconds, fovs = time.monotonic() - began, canvas.counters["fovs"] - fovs_before
    timing = {"fovs": fovs, "seconds": seconds, "fovs_per_s": fovs / max(seconds, 1e-9)}
    covered = write_results(tile.output, scene, timing)
    kept = np.unique(kept_ids(canvas))
    segments = len(kept) - 1
    stage.finish(segments=segments, largest_id=int(kept[-1]), fovs=canvas.counters["fovs"])
    log(
        f"{tile.output}: {segments - canvas.given} segments, {covered / scene.box.voxels:.1%} of the voxels, "
        f"{canvas.counters['fovs']} FOVs, {timing['fovs_per_s']:.1f} FOVs/s"
    )
    if tile.seeds and len(canvas.segments) < len(tile.seeds):
        log(_lost_seeds(scene, len(tile.seeds)))


def _saving(scene: Scene, seeds: NDArray[np.int64], stage: int, state: Path, counted: TileTally) -> Flood:
    """The flood fill of a canvas, of which the state is saved now and then."""
    saved, every_s = time.monotonic(), scene.config.inference.checkpoint_every_s
    flood = scene.canvas.segment_all(seeds)
    look = next(flood, None)
    while look is not None:
        answer = yield look
        try:
            look = flood.send(answer)
        except StopIteration:
            look = None
        counted.update()
        if time.monotonic() - saved >= every_s:
            save_state(state, scene.canvas, seeds, stage)
            saved = time.monotonic()


def _check_seeds(seeds: NDArray[np.int64], tile: Tile, scene: Scene) -> None:
    if len(seeds) or scene.stages > 1:
        return
    problem = (
        f"No seeds in box {scene.box} of {tile.image}: no place is both away from edges and half a fov from the faces, "
        "and free of masks and given segments."
    )
    if not tile.may_be_empty:
        raise DataError(f"{problem} Check that the box shows tissue and is larger than the network's fov.")
    log(f"{problem} This sub-volume stays empty.")


def _lost_seeds(scene: Scene, given: int) -> str:
    """Why some of the given seeds have no segment of their own."""
    counters, smallest = scene.canvas.counters, scene.config.inference.min_segment_size
    found = len(scene.canvas.segments)
    weak, small = counters["objects_weak"], counters["objects_small"]
    reasons = {
        "in or beside the segment of an earlier one": given - found - weak - small,
        "whose object faded: its map fell below inference.move_threshold at the seed": weak,
        f"whose object has fewer voxels than inference.min_segment_size {smallest}": small,
    }
    lost = "; ".join(f"{count} {reason}" for reason, count in reasons.items() if count)
    return f"{found} of {given} seeds gave a segment. Not: {lost}."
