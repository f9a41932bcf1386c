"""Flood fills of sub-volumes, from image to labels: each a stage in its own folder that can be killed and run again.

While it is unfinished, the folder holds `state.npz`, from which it continues; when it is finished, the files of
`ffn.inference.results`. Those of a run then go into an archive (`ffn.inference.kept`).
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ffn.config import Config
from ffn.errors import DataError, HeldError
from ffn.files import remove
from ffn.inference.canvas import Flood
from ffn.inference.drive import BatchedNetwork, drive, side_by_side
from ffn.inference.kept import Keeper, clear_left, remove_empty
from ffn.inference.results import STATE_FILE, kept_ids, write_results
from ffn.inference.scene import Scene
from ffn.inference.state import restore_state, save_state
from ffn.inference.tally import Tally, Throughput, TileTally
from ffn.inference.tile import Tile, refuse_foreign
from ffn.progress import Progress, log
from ffn.stages import Stage


def run_tile(config: Config, tile: Tile) -> None:
    """Fill one sub-volume, which becomes its own finished folder. If it is complete, nothing is done.

    The sections `network` and `inference` of the configuration and `data.voxel_size` are used.

    Raises:
        GeometryError: the box lies outside its image or is smaller than the field of view.
        CheckpointError: see `load_executor`.
        StageError: the folder belongs to other settings, or another process works there (HeldError).
        VolumeError: the image cannot be read.
    """
    box = tile.place(config)
    stage = tile.stage(config, box)
    if stage.is_done():
        _remove_traces(tile)
        stage.clear_lock()
        log(f"{tile.output} is already complete.")
        return
    with Progress(tile.output.name, box.voxels, "voxels") as progress:
        drive([_flood(config, tile, Tally(progress))], _network(config, tile, most=1))


def run_tiles(
    config: Config, own: Sequence[Tile], others: Sequence[Tile], keeper: Keeper, shows_progress: bool = True
) -> Throughput | None:
    """Fill sub-volumes of a run, some of them side by side.

    Args:
        config: As for `run_tile`.
        own: Those that this process answers for, all of one checkpoint: when this returns they are finished, by this
            process or by one that had them in hand.
        others: Those that other processes answer for. This one does what nobody has in hand by the time that its own
            are under way, and waits for others where they do the same.
        keeper: Takes finished ones.
        shows_progress: Whether to say how far the work is, besides a line for each finished sub-volume.

    Returns what this process did, or None where there was nothing to do.

    Raises as `run_tile`.
    """
    undone = _unfinished(config, own, keeper)
    if not undone:
        return None
    # Of all, not of the unfinished: on a GPU labels may depend on the batch, so a job that goes on keeps it.
    network = _network(config, own[0], most=len(own))
    concurrent = side_by_side(config.inference.concurrent, network.batch_size)
    label = undone[0].output.name if len(undone) == 1 else f"{len(undone)} sub-volumes"
    voxels = sum(tile.place(config).voxels for tile in undone)
    with Progress(label, voxels, "voxels", enabled=shows_progress) as progress:
        tally = Tally(progress)
        drive(_nobody_has(config, undone, others, tally, keeper), network, concurrent)
        waits = True if others else None
        left = [tile for tile in undone if keeper.missing([tile.index])]
        tally.expect(sum(tile.place(config).voxels for tile in left))
        drive((_flood(config, tile, tally, keeper, waits) for tile in left), network, concurrent)
    if tally.tiles > 1:
        log(f"{tally.tiles} sub-volumes: {tally.fovs} FOVs in {tally.seconds:.0f} s, {tally.fovs_per_s:.1f} FOVs/s")
    return Throughput(tally.tiles, concurrent, tally.fovs, tally.seconds)


def _network(config: Config, tile: Tile, most: int) -> BatchedNetwork:
    """What evaluates the fields of view of at most so many sub-volumes."""
    # Imported here so that a job whose sub-volumes are complete does not wait for TensorFlow.
    from ffn.inference.executor import load_executor

    inference = config.inference
    return load_executor(
        config.network,
        tile.checkpoint,
        threads=inference.intra_op_threads,
        batch_size=inference.batch_size,
        most=min(inference.concurrent or most, most),
        precision=inference.precision,
    )


def _unfinished(config: Config, tiles: Sequence[Tile], keeper: Keeper) -> list[Tile]:
    """Those that are not finished. Folders that are complete are taken in: of a process that was killed then, or of an
    older version."""
    missing = set(keeper.missing([tile.index for tile in tiles]))
    unfinished = []
    for tile in tiles:
        if tile.index not in missing:
            if tile.output.exists():
                # Raises where it holds anything else, such as an imported sub-volume: nobody's work is removed.
                tile.stage(config, tile.place(config)).is_done()
                clear_left(tile.output)
        elif tile.stage(config, tile.place(config)).is_done():
            keeper.keep(tile.index, tile.output)
        else:
            unfinished.append(tile)
    if complete := len(tiles) - len(unfinished):
        log(f"{complete} of {len(tiles)} sub-volumes are already complete.")
    return unfinished


def _nobody_has(
    config: Config, own: Sequence[Tile], others: Sequence[Tile], tally: Tally, keeper: Keeper
) -> Iterator[Flood]:
    """The flood fills that no other process has in hand: of one's own sub-volumes, then of what others have left, from
    the end, as whoever left them is likely to be at the front."""
    for tile in own:
        yield _flood(config, tile, tally, keeper, skips=True)
    for tile in reversed(others):
        if keeper.missing([tile.index]):
            tally.expect(tile.place(config).voxels)
            yield _flood(config, tile, tally, keeper, skips=True)


def _remove_traces(tile: Tile) -> None:
    """Remove what only an unfinished sub-volume needs."""
    remove(tile.output / STATE_FILE)


def _flood(
    config: Config,
    tile: Tile,
    tally: Tally,
    keeper: Keeper | None = None,
    waits: bool | None = None,
    skips: bool = False,
) -> Flood:
    """All that happens to a sub-volume, from its image to its done-marker and, of one of a run, to the archive.

    Args:
        config, tile: As for `run_tile`.
        tally: Of this process.
        keeper: Of the run.
        waits: Whether to wait for a process that has it in hand, see `ffn.locks.lock`.
        skips: Whether to leave it to such a process.
    """
    box = tile.place(config)
    stage = tile.stage(config, box)
    with ExitStack() as held:
        try:
            held.enter_context(stage.locked(waits=False if skips else waits))
        except HeldError:
            if not skips:
                raise
            tally.expect(-box.voxels)
            remove_empty(tile.output)  # where the other process has just left
            return
        # What another process did before this one got the lock is complete by now.
        if keeper is None or keeper.missing([tile.index]):
            if not stage.is_done():
                yield from _from_image(config, tile, stage, tally)
            _remove_traces(tile)
            if keeper is not None:
                keeper.keep(tile.index, tile.output)
        else:
            tally.expect(-box.voxels)
    if keeper is not None:
        remove_empty(tile.output)


def _from_image(config: Config, tile: Tile, stage: Stage, tally: Tally) -> Flood:
    """The flood fill of a sub-volume, begun or continued, and its results."""
    state = tile.output / STATE_FILE
    scene = Scene.of(config, tile.image, tile.place(config), tile.turn)
    canvas = scene.canvas
    if scene.voxel_size is None:
        log("The image states no voxel size and data.voxel_size is empty: seeds are placed as for cubic voxels.")
    resumes = stage.started_marker.exists() and state.exists()
    if resumes:
        stage.begin()
        first, seeds = restore_state(state, canvas)
        done = f"seed {canvas.next_seed} of {len(seeds)}, {canvas.counters['fovs']} FOVs done"
        log(f"{tile.output}: continuing at {done}")
    else:
        first, seeds = 0, scene.seeds_at(tile.seeds) if tile.seeds else scene.seeds(0)
        _check_seeds(seeds, tile, scene)
        refuse_foreign(stage)
        # Not before: a mistake found above leaves no trace of settings that never worked.
        stage.begin()
        save_state(state, canvas, seeds, first)
    yield from _filled(tile, scene, stage, seeds, first, tally)


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
    tally.tiles += 1
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
