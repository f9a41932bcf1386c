"""One pass over a sub-volume, from image to labels: a stage in its own folder that can be killed and run again.

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
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ffn.config import Config, Network
from ffn.errors import DataError, GeometryError, StageError
from ffn.files import remove, write_json
from ffn.geometry import Box
from ffn.inference.canvas import Canvas, NetworkCall
from ffn.inference.fine import FineLabels
from ffn.inference.fingerprint import checkpoint_fingerprint
from ffn.inference.framing import Framing
from ffn.inference.options import FloodOptions
from ffn.inference.state import restore_state, save_state
from ffn.prepare.seeds import coarse_seeds
from ffn.progress import Progress, log
from ffn.stages import Stage
from ffn.volumes import Volume, VoxelSize, create_hdf5, open_image

LABELS = "labels"
SEGMENTATION_FILE = "segmentation.h5"
ORIGINS_FILE = "origins.json"
STATE_FILE = "state.npz"


def run_tile(
    config: Config,
    image: str,
    checkpoint: Path,
    box: Box | None,
    output: Path,
    *,
    number: int = 0,
    may_be_empty: bool = False,
) -> None:
    """Segment one box of an image, as if it were the whole volume, into the folder `output`.

    Args:
        config: Its `network` and `inference` sections and `data.voxel_size` are used.
        image: URI of the grey values.
        checkpoint: Prefix of the weights.
        box: zyx voxels of the image; None = all of it.
        output: The folder. Complete with the same settings: nothing is done. Unfinished: continued.
        number: Which of the passes: 0 sees the box as it is, each other one turned its own way.
        may_be_empty: Whether a box without seeds gives an empty result (one tile of many) or a DataError.

    Raises:
        GeometryError: the box lies outside the image or is smaller than the field of view.
        CheckpointError: see `load_executor`.
        StageError: the folder belongs to other settings.
        VolumeError: the image cannot be read.
    """
    with open_image(image, voxel_size=config.data.voxel_size) as volume:
        box = Box.of_shape(volume.shape) if box is None else box
        view = volume.view(box)
        _require_room(box, config)
        stage, state = Stage(output, _settings(config, image, checkpoint, box, number)), output / STATE_FILE
        if stage.is_done():
            remove(state)
            log(f"{output} is already complete.")
            return
        framing = Framing.of(config, number, view.shape, view.voxel_size)
        grey = _normalised(framing.pooled(view), config.network)
        voxel_size = volume.voxel_size
        if voxel_size is None:
            log("The image states no voxel size and data.voxel_size is empty: seeds are placed as for cubic voxels.")
    # Imported here so that a tile that is already complete does not wait for TensorFlow.
    from ffn.inference.executor import load_executor

    executor = load_executor(config.network, checkpoint, config.inference.intra_op_threads)
    canvas = _canvas(config, framing, grey, executor)
    if stage.started_marker.exists() and state.exists():
        seeds = restore_state(state, canvas)
        log(f"{output}: continuing at seed {canvas.next_seed} of {len(seeds)}, {canvas.counters['fovs']} FOVs done")
    else:
        with open_image(image, box=box, voxel_size=config.data.voxel_size) as view:
            seeds = framing.seeds(_seeds(view, framing, config))
        _check_seeds(seeds, image, box, may_be_empty)
        _refuse_foreign(stage)
        # Claimed only now: a mistake found above leaves no trace of settings that never worked.
        stage.begin()
        save_state(state, canvas, seeds)
    timing = _flood(canvas, seeds, state, config.inference.checkpoint_every_s, output.name)
    timing["network_seconds"] = executor.seconds
    _write(output, canvas, framing, box, voxel_size, timing)
    stage.finish(segments=len(canvas.segments), fovs=canvas.counters["fovs"])
    remove(state)
    share = canvas.counters["voxels_segmented"] / canvas.image.size
    log(
        f"{output}: {len(canvas.segments)} segments, {share:.1%} of the voxels, {canvas.counters['fovs']} FOVs, "
        f"{timing['fovs_per_s']:.1f} FOVs/s"
    )


def _canvas(config: Config, framing: Framing, grey: NDArray[np.float32], network: NetworkCall) -> Canvas:
    options = FloodOptions.of(config.network, config.inference).turned(framing.orientation)
    image, factors = framing.image(grey), framing.orientation.reordered(framing.factors)
    z, y, x = image.shape
    fine = None if factors == (1, 1, 1) else FineLabels((z, y, x), factors, options.segment)
    return Canvas(image, options, network, fine)


def _flood(canvas: Canvas, seeds: NDArray[np.int64], state: Path, every_s: float, label: str) -> dict[str, float]:
    began = time.monotonic()
    fovs_before = canvas.counters["fovs"]
    with Progress(label, len(seeds), "seeds", done=_settled(canvas, seeds)) as progress:
        canvas.segment_all(seeds, _housekeeping(canvas, seeds, state, every_s, progress))
    seconds = time.monotonic() - began
    fovs = canvas.counters["fovs"] - fovs_before
    return {"fovs": fovs, "seconds": seconds, "fovs_per_s": fovs / max(seconds, 1e-9)}


def _settled(canvas: Canvas, seeds: NDArray[np.int64]) -> int:
    """Seeds that need no more work: tried, or inside a segment. The share of the sub-volume that is done."""
    ahead = seeds[canvas.next_seed :]
    return canvas.next_seed + int(np.count_nonzero(canvas.labels[tuple(ahead.T)]))


def _housekeeping(
    canvas: Canvas, seeds: NDArray[np.int64], state: Path, every_s: float, progress: Progress
) -> Callable[[], None]:
    """What happens between two fields of view: progress, and a saved state every `every_s` seconds."""
    began = saved = time.monotonic()
    fovs_before = canvas.counters["fovs"]
    shown, shown_segments = _settled(canvas, seeds), len(canvas.segments)

    def after_fov() -> None:
        nonlocal saved, shown, shown_segments
        now = time.monotonic()
        counters = canvas.counters
        rate = (counters["fovs"] - fovs_before) / max(now - began, 1e-9)
        note = f"{rate:.1f} FOVs/s, {counters['voxels_segmented']} voxels in {len(canvas.segments)} segments"
        settled = shown
        if len(canvas.segments) != shown_segments or canvas.next_seed == len(seeds):
            settled, shown_segments = _settled(canvas, seeds), len(canvas.segments)
        progress.advance(settled - shown, note)
        shown = settled
        if now - saved >= every_s:
            save_state(state, canvas, seeds)
            saved = time.monotonic()

    return after_fov


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


def _settings(config: Config, image: str, checkpoint: Path, box: Box, number: int) -> dict[str, Any]:
    return {
        **configured_settings(config, image, box, number),
        "checkpoint_sha256": checkpoint_fingerprint(checkpoint),
    }


def configured_settings(config: Config, image: str, box: Box, number: int) -> dict[str, Any]:
    """All that decides the labels but the weights; not how often states are saved, or by how many threads."""
    inference = config.inference
    return {
        "image": image,
        "box": str(box),
        "voxel_size": config.data.voxel_size,
        "network": config.network.model_dump(),
        "pass": number,
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
